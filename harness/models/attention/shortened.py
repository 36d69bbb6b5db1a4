"""Windows, chunks and top-k of a model made so short that a short probe sees them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from harness.models.checkpoint.families import FIXED_REACH, REACH
from harness.models.checkpoint.geometry import text_config
from harness.models.parts import CausalLM
from harness.models.swap import swapped

SHORT = 5  # tokens: a probe of some dozen spans it several times


@contextmanager
def shortened(model: CausalLM, tokens: Mapping[str, int] | None = None) -> Iterator[None]:
    """Until the block ends, what attention sees is cut to SHORT tokens; fields in `tokens` to theirs.

    In the configuration, which masks are made from, and in all modules that copied it. What weights were made for
    (compression rates) stays.
    """
    text = text_config(model.config)
    configs = {id(config): config for config in (getattr(m, "config", text) for m in model.modules())}
    with ExitStack() as stack:
        for owner in (*configs.values(), *model.modules()):
            for name, value in list(vars(owner).items()):
                if REACH.search(name) and type(value) is int and value > 0:
                    stack.enter_context(swapped(owner, name, (tokens or {}).get(name, min(SHORT, value))))
        yield


def fixed_reach(model: CausalLM) -> int:
    """The longest block (tokens) of those that cannot be shortened; 0 where there is none."""
    longest = 0
    for name, value in vars(text_config(model.config)).items():
        if FIXED_REACH.search(name):
            several = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
            longest = max([longest, *(one for one in several if type(one) is int)])
    return longest
