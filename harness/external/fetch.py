"""Log-probabilities from a server: every window asked for once, kept as soon as it is there."""

import logging
import os
from collections.abc import Callable, Sequence

from harness.cells.documents import Documents
from harness.cells.files import Outcome
from harness.cells.prepare import Prepared
from harness.errors import UserError
from harness.external import answers, finish
from harness.external.client import Client, RequestsSpent
from harness.external.dialects import DIALECTS
from harness.external.dialects.base import Dialect
from harness.external.kept import Kept
from harness.external.prompts import Prompt, flat
from harness.external.settings import Settings
from harness.external.workers import asked
from harness.storage.leases import Leases

log = logging.getLogger(__name__)
Windows = list[list[Prompt]]  # of a cell, by document


def fetch(
    prepared: Sequence[Prepared], settings: Settings, documents: Documents, windows: Sequence[Windows]
) -> list[Outcome]:
    """What became of every cell; finished ones are not asked for. Raises UserError, and keeps what is there."""
    from tqdm.auto import tqdm

    todo = [not p.files.is_finished() for p in prepared]
    if not any(todo):
        return [Outcome(p.files, "finished") for p in prepared]
    assert settings.dialect is not None
    client = _client(settings)
    served = settings.served or _first_served(client)
    dialects = [DIALECTS[settings.dialect](p, served) for p in prepared]
    _check_limit(settings, [d.requests(w) for d, own in zip(dialects, windows, strict=True) for w in flat(own)])
    total = sum(len(w.ids) for own, wanted in zip(windows, todo, strict=True) for w in flat(own) if wanted)
    outcomes = []
    with Leases() as leases, tqdm(total=total, desc=f"{settings.name}", unit="tok", unit_scale=True) as bar:
        for p, dialect, own, wanted in zip(prepared, dialects, windows, todo, strict=True):
            if not wanted:
                outcomes.append(Outcome(p.files, "finished"))
                continue
            if not leases.acquire([p.files.lease]):
                raise UserError(f"{p.files.label} is being fetched by another process.")
            kept = Kept(p.files.checkpoint / "answers.jsonl", flat(own))
            if _ask(dialect, client, kept, flat(own), settings.parallel, bar.update):
                scored = finish.scores(p, kept.answers, own)
                source: dict[str, object] = {"dialect": settings.dialect, "served": served}
                outcomes.append(finish.write(p, documents, scored, settings, source))
            else:
                reason = f"max_requests={settings.max_requests} were made, {len(kept.answers)} windows are there"
                outcomes.append(Outcome(p.files, "missing", reason))
            leases.release([p.files.lease])
    return outcomes


def _check_limit(settings: Settings, requests: Sequence[int]) -> None:
    """Raise UserError where a window takes more requests than one command may make: none would ever be whole."""
    if settings.max_requests is not None and settings.max_requests < max(requests, default=0):
        raise UserError(
            f"max_requests must be at least {max(requests)}, the requests of one window with dialect="
            f"{settings.dialect}, got {settings.max_requests}."
        )


def _client(settings: Settings) -> Client:
    key = None
    if settings.key_variable is not None:
        key = os.environ.get(settings.key_variable)
        if not key:
            raise UserError(f"key_variable: the environment has no variable {settings.key_variable!r}.")
    return Client(
        settings.url or "",
        retries=settings.retries,
        wait_s=settings.wait_s,
        timeout_s=settings.timeout_s,
        max_requests=settings.max_requests,
        key=key,
    )


def _first_served(client: Client) -> str | None:
    """The first model that the server lists; None where it lists none."""
    listed = client.get("/v1/models")
    try:
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        return None


def _ask(
    dialect: Dialect,
    client: Client,
    kept: Kept,
    prompts: Sequence[Prompt],
    parallel: int,
    progress: Callable[[int], object],
) -> bool:
    """Ask for every window that has no answer yet; whether all have one now. Raises UserError."""
    distinct = {prompt.id: prompt for prompt in prompts}
    missing = [prompt for name, prompt in distinct.items() if name not in kept.answers]
    progress(sum(len(p.ids) for p in prompts) - sum(len(p.ids) for p in missing))
    if len(missing) < len(distinct):
        log.info("%d of %d windows were there", len(distinct) - len(missing), len(distinct))

    def ask(prompt: Prompt) -> answers.Answer:
        answer = dialect.ask(client.post, prompt)
        answers.check(prompt, answer)
        return answer

    try:
        for prompt, answer in asked(missing, ask, parallel):
            kept.add(prompt.id, answer)
            progress(len(prompt.ids))
    except RequestsSpent:
        pass
    return len(kept.answers) == len(distinct)
