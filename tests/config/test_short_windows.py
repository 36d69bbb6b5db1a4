"""Short windows beside single passes: which cells a sweep gets, and what is refused."""

import pytest

from harness.config.short_windows import ShortWindows
from harness.errors import UserError


def test_a_short_cell_keeps_what_does_not_belong_to_the_long_one() -> None:
    long = [
        "experiment=long_context", "model=smollm2", "method=yarn", "method.factor=4", "+method.query_scale=log_n",
        "ctx=4096", "protocol=single_pass", "protocol.bos=every_window", "data.num_documents=3",
        "~short_windows.method",
    ]  # fmt: skip
    made = ShortWindows(ctx=320, stride=64).overrides(long)
    assert made == [
        "experiment=long_context", "model=smollm2", "data.num_documents=3", "method=none", "protocol=sliding",
        "protocol.stride=64", "protocol.bos=none", "protocol.max_windows=null", "ctx=320", "short_windows=null",
    ]  # fmt: skip


def test_the_same_method_keeps_its_parameters() -> None:
    made = ShortWindows(method="same").overrides(["method=yarn", "method.factor=4", "ctx=4096"])
    assert made[:3] == ["method=yarn", "method.factor=4", "protocol=sliding"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stride": 0}, r"short_windows.stride must be at least 1 and less than short_windows.ctx=512 tokens, got 0\."),
        ({"ctx": 64, "stride": 64}, "less than short_windows.ctx=64 tokens, got 64"),
        ({"method": "sam"}, "Unknown short_windows.method 'sam'. Did you mean 'same'"),
    ],
)
def test_mistakes(given: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ShortWindows(**given)
