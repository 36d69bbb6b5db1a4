"""LongRoPE: its options, published sets and files."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from harness.errors import UserError
from harness.methods import build
from harness.methods.frequency.rescale_factors import published_sets, read
from tests.methods.frequencies import LLAMA2, LONG, SHORT, TIGHT, frequencies
from tests.reference import frequencies as reference


def test_longrope_switches_factors_at_the_trained_length() -> None:
    method = build("longrope", {"long_factor": LONG, "short_factor": SHORT, "factor": 8.0}, LLAMA2, 32768)
    assert method.depends_on_length
    assert_allclose(method(LLAMA2, 4096).inv_freq, reference.longrope(128, 1e4, SHORT), rtol=TIGHT)
    assert_allclose(method(LLAMA2, 4097).inv_freq, reference.longrope(128, 1e4, LONG), rtol=TIGHT)
    assert method(LLAMA2, 4096).attention_scaling == method(LLAMA2, 4097).attention_scaling > 1


def test_longrope_options() -> None:
    ours = {"long_factor": LONG, "factor": 8.0}
    assert frequencies("longrope", LLAMA2, 32768, **ours, unscaled_prefix=12).unscaled_prefix == 12
    assert frequencies("longrope", LLAMA2, 32768, **ours, temperature="none").attention_scaling == 1
    assert frequencies("longrope", LLAMA2, 32768, **ours, temperature=1.25).attention_scaling == 1.25
    late = build("longrope", ours | {"short_temperature": False}, LLAMA2, 32768)
    assert late.depends_on_length
    assert late(LLAMA2, 4096).attention_scaling == 1 < late(LLAMA2, 4097).attention_scaling
    dynamic = build("longrope", ours | {"dynamic": True}, LLAMA2, 32768)
    assert dynamic.depends_on_length
    assert_allclose(dynamic(LLAMA2, 2048).inv_freq, LLAMA2.inv_freq, rtol=TIGHT)  # never raised
    assert_allclose(dynamic(LLAMA2, 32768).inv_freq, reference.longrope(128, 1e4, LONG), rtol=TIGHT)


def test_published_sets_are_complete() -> None:
    assert len(published_sets()) == 30
    for name, published in published_sets().items():
        factors = read(name).long_factor
        assert len(factors) == 64
        assert min(factors) >= 1
        assert max(factors) < 1.5 * max(published.target_ctx, published.finetuned_ctx) / 4096
        assert name in published.source
        assert build("longrope", {"factors": name}, LLAMA2, 32768).long_factor == factors


def test_published_values() -> None:
    # as printed in the authors' files
    assert_allclose(
        read("ft_la2_256k").long_factor[:4] + read("ft_la2_256k").long_factor[-1:],
        [1.019999980926514, 1.029999971389771, 1.049999952316284, 1.049999952316284, 64.76999664306641],
        rtol=1e-7,
    )
    assert read("ft_la2_128k").long_factor[:19] == [1.0] * 19
    assert read("ft_la2_128k").long_factor[-20:] == [32.0] * 20
    descents = {n: int(np.sum(np.diff(read(n).long_factor) < 0)) for n in ("ft_mis_128k", "ft_mis_256k", "ft_la2_256k")}
    assert descents == {"ft_mis_128k": 4, "ft_mis_256k": 1, "ft_la2_256k": 0}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("list.json", json.dumps(LONG)),
        ("pair.json", json.dumps({"long_factor": LONG, "short_factor": SHORT})),
        ("config.json", json.dumps({"rope_scaling": {"type": "longrope", "long_factor": LONG, "short_factor": SHORT}})),
        ("row.csv", ",".join(map(repr, LONG))),
        ("column.txt", "\n".join(map(repr, LONG))),
        ("layers.csv", "\n".join([",".join(map(repr, LONG))] * 3)),
    ],
)
def test_factor_files(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    method = build("longrope", {"factors": str(tmp_path / file)}, LLAMA2, 32768)
    assert method.long_factor == LONG
    assert method.short_factor == (SHORT if "short_factor" in content else None)
    assert method.factors is None  # numbers identify a method, not where they lay
    both = {"long_factor": SHORT, "short_factors": str(tmp_path / file)}
    assert build("longrope", both, LLAMA2, 32768).short_factor == LONG


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("bad.json", "[1, 2", "not JSON"),
        ("words.json", '["a"]', "list of numbers"),
        ("none.json", '{"factor": 8}', "long_factor"),
        ("words.csv", "a,b", "numbers"),
        ("layers.csv", "1,2\n1,3", "different layers"),
    ],
)
def test_bad_factor_files(tmp_path: Path, file: str, content: str, words: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=words) as raised:
        build("longrope", {"factors": str(tmp_path / file)}, LLAMA2, 32768)
    assert "\n" not in str(raised.value)
