"""What a user can say of an engine: keys of conf/external.yaml beside those of a cell."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from harness.config.checks import section, typed
from harness.config.schema import Config, config_of
from harness.errors import UserError, unknown

Action = Literal["prompts", "read", "fetch"]
DialectName = Literal["vllm", "sglang", "llama_cpp_python", "llama_server"]
ACTIONS: tuple[Action, ...] = get_args(Action)
NEEDS: dict[Action, tuple[str, ...]] = {
    "prompts": ("file",),
    "read": ("file", "name", "computed_by"),
    "fetch": ("url", "dialect", "name", "computed_by"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """An engine, what its rows say of it, and how it is asked."""

    name: str | None = None  # of the model, in rows
    computed_by: str | None = None  # the engine with its version, in words
    dtype: str = "unknown"  # in words
    file: str | None = None
    url: str | None = None
    dialect: DialectName | None = None
    served: str | None = None  # the model's name at the server; None: the first that it lists
    parallel: int = 1
    max_requests: int | None = None
    retries: int = 5
    wait_s: float = 1.0
    timeout_s: float = 600.0
    key_variable: str | None = None

    def __post_init__(self) -> None:
        if self.dialect is not None and self.dialect not in get_args(DialectName):
            raise unknown("dialect", self.dialect, get_args(DialectName))
        for key, least in (("parallel", 1), ("max_requests", 1), ("retries", 0), ("wait_s", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise UserError(f"{key} must be at least {least}, got {value}.")
        if not self.timeout_s > 0:
            raise UserError(f"timeout_s must be above 0, got {self.timeout_s}.")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise UserError(f"url must begin with http:// or https://, got {self.url!r}.")

    def check(self, action: Action) -> None:
        """Raise UserError where an action lacks what it needs."""
        for key in NEEDS[action]:
            if not getattr(self, key):
                needs = ", ".join(f"{k}=..." for k in NEEDS[action])
                raise UserError(f"external {action} needs {needs}; {key} is missing.")

    @property
    def identity(self) -> dict[str, str | None]:
        """What determines the losses as far as the engine goes, as the user names it."""
        return {"engine": self.computed_by, "name": self.name}

    @property
    def path(self) -> Path:
        """The file."""
        assert self.file is not None
        return Path(os.path.expanduser(self.file))


def of(values: dict[str, Any], action: Action, overrides: Sequence[str]) -> tuple[Settings, list[Config]]:
    """The engine and the cells, one for each length, of a composed configuration. Raises UserError."""
    own = {field.name: values.pop(field.name) for field in fields(Settings)}
    settings = section(Settings, {"external": own}, "external")
    settings.check(action)
    lengths = values.pop("ctx")
    lengths = lengths if isinstance(lengths, list) else [lengths]
    if not lengths:
        raise UserError("ctx must be a number of tokens or a list of them, got [].")
    common = values | {"dry_run": False}
    distinct = dict.fromkeys(typed("ctx", ctx, int) for ctx in lengths)
    configs = [config_of(common | {"ctx": ctx}, overrides) for ctx in distinct]
    return settings, configs
