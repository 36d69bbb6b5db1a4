"""Models put together in ways of their own, from their folder to the rows of a cell: the right number, or one line.

Every right value is from the model's own forward, one document a pass, in float64.
"""

import numpy as np
import pytest
import torch
from transformers import OPTConfig

from harness.errors import UserError
from harness.results import store
from harness.runs import runner
from tests.engine.test_attention_limits import made as windowed
from tests.engine.test_odd_families import MODELS
from tests.tiny import TRAINED, VOCABULARY, logits, tiny_config, tiny_model

BEYOND = {  # positions that do not end: run beyond the trained length
    name: make for name, make in MODELS.items() if name.startswith(("biases", "recurrence"))
} | {"biases by distance": lambda: tiny_model(tiny_config("bloom"))}
WITHIN = {name: make for name, make in MODELS.items() if name not in BEYOND}
WINDOWED = {name: lambda name=name: windowed(name) for name in ("afmoe", "olmo3", "llama4_text")}
LEARNED = {
    "gpt2": lambda: tiny_config("gpt2"),
    "opt": lambda: OPTConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        max_position_embeddings=TRAINED, word_embed_proj_dim=32,
    ),
    "mpt": lambda: tiny_config("mpt", max_seq_len=TRAINED),
}  # fmt: skip


def save(place, model):
    model.save_pretrained(place.model)  # beside the tokenizer that is there


def right(place, model, ctx):
    """Mean loss of the first `ctx` tokens of every document."""
    losses = []
    for line in place.texts.read_text().splitlines():
        ids = torch.tensor([[int(word[1:]) for word in line.split('"')[3].split()]])[:, :ctx]
        log_probs = logits(model, ids)[0].double().log_softmax(-1)
        losses.append(-log_probs[:-1].gather(1, ids[0, 1:, None])[:, 0].numpy())
    return np.concatenate(losses).mean()


def computed(place, *overrides):
    (prepared,) = place.prepared(" ".join(overrides))
    (outcome,) = runner.run([prepared], raise_mistakes=True)
    rows = store.load_results(outcome.files.windows)
    return rows["nll_sum"].sum() / rows["num_scored"].sum()


@pytest.mark.parametrize(
    ("name", "ctx"),
    [*((n, 3 * TRAINED) for n in BEYOND), *((n, TRAINED) for n in WITHIN), *((n, 96) for n in WINDOWED)],
)
def test_a_cell_of_an_odd_model_has_its_own_losses(place, name, ctx):
    model = (BEYOND | WITHIN | WINDOWED)[name]()
    save(place, model)
    for method in ("none", "native"):
        assert computed(place, f"ctx={ctx}", f"method={method}") == pytest.approx(right(place, model, ctx), rel=1e-6)


@pytest.mark.parametrize("name", LEARNED)
def test_positions_that_end_are_one_line(place, name):
    model = tiny_model(LEARNED[name]())
    save(place, model)
    assert computed(place, f"ctx={TRAINED}", "method=none") == pytest.approx(right(place, model, TRAINED), rel=1e-6)
    for method in ("none", "native"):
        with pytest.raises(UserError, match=f"has no positions beyond {TRAINED} tokens, got ctx={2 * TRAINED}"):
            computed(place, f"ctx={2 * TRAINED}", f"method={method}")
