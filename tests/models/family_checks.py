"""What a family of models can be asked, found out on a tiny random model of it.

`checked(family)` is what both the loop over all families and docs/families.md are made from.
"""

import copy
from dataclasses import dataclass, field

import torch
from transformers import PretrainedConfig
from transformers.utils import logging

from harness.errors import UserError, first_line, one_line
from harness.methods import build, construct
from harness.models.checkpoint.families import TRAINED_LENGTH, first_set
from harness.models.checkpoint.geometry import (
    declares_scaling,
    geometry,
    has_rope,
    is_local,
    layer_types,
    rope_parameters,
    text_config,
)
from harness.models.checkpoint.load import _check_causal
from harness.models.checkpoint.sliding_window import limits
from harness.models.checkpoint.spec import ModelSpec
from harness.models.install import applied
from harness.models.parts import CausalLM
from harness.models.positions import last_position
from harness.models.probe import check_causal, probe_of
from harness.models.rotary.find import rotaries
from tests.models.tiny_families import TEXT_IDS, TRAINED, default_config, tiny_family_config, tiny_family_model

LOOSE = {"gemma3n_text": 1e-4, "gemma3n": 1e-4}  # thresholds on activations: transformers' float32 angles show
LENGTH, FACTOR = 3 * TRAINED, 3.0
ROTARY, WITHOUT, ENDING = "rotary", "no rotary embedding", "positions that end"
OF_ATTENTION = ("rerope", "dca", "windowed")
OF_SCALING = (
    *("rope_type", "type", "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor"),
    *("truncate", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor"),
)
# Why a family's own declared scaling is not what methods are compared with
OWN_SCALING_DIFFERS = {
    "blt": "its parts declare theirs one by one",
    "ernie4_5_vl_moe": "its declared scaling leaves out the order of frequencies that its rotations need",
    "granite_swa": "its declared scaling acts on local layers, too",
    "granitemoe_swa": "its declared scaling acts on local layers, too",
}
EAGER_DIFFERS = {"falcon, with ALiBi": "transformers' eager attention adds the biases twice"}
logging.set_verbosity_error()


@dataclass
class Checked:
    """What came of one family."""

    family: str
    refused: str = ""  # why it cannot be scored at all
    kind: str = ""  # of positions
    methods: dict[str, str] = field(default_factory=dict)  # of attention -> "acts", or why it is refused
    faults: list[str] = field(default_factory=list)  # what is not as it should be


def checked(family: str) -> Checked:
    """Build a family's tiny model, score text with it under every kind of method, and compare."""
    torch.set_num_threads(1)
    found = Checked(family)
    try:
        config = tiny_family_config(family)
        model = tiny_family_model(config)
    except Exception as error:  # a family can be unusable in any way
        found.refused = _refused(default_config(family), "") or (
            f"transformers makes no model of its default configuration ({one_line(error)})"
        )
        return found
    # Some classes set fields of theirs (those of decoders alone), and some keep the part for text (Mllama)
    saved = copy.deepcopy(model.config if type(model.config) is type(config) else config)
    found.refused = _refused(saved, type(model).__name__, model, _as_loaded(model, family))
    if not found.refused:
        _check(found, saved, model)
    return found


def _refused(config: PretrainedConfig, architecture: str, *models: CausalLM) -> str:
    """What the harness says of a checkpoint that it does not score; empty where it does."""
    config.architectures = [architecture] if architecture else None
    try:
        _check_causal(ModelSpec(name="tiny", path="."), config)
        for model in models:
            check_causal(model)
            probe_of(model)
    except UserError as error:
        return str(error).removeprefix("model tiny ")
    return ""


def _as_loaded(model: CausalLM, family: str) -> CausalLM:
    """The same weights with the attention that transformers chooses by itself."""
    chosen = tiny_family_model(tiny_family_config(family), attention=None)
    chosen.load_state_dict(model.state_dict())
    return chosen


def _check(found: Checked, config: PretrainedConfig, model: CausalLM) -> None:
    text = text_config(config)
    found.kind = _kind(text, model)
    ends = last_position(model) if found.kind == ENDING else None
    if not all(module.reaches(LENGTH) for module in rotaries(model)):
        ends = TRAINED
    ids = torch.randint(*TEXT_IDS, (1, min(LENGTH, ends or LENGTH)), generator=torch.Generator().manual_seed(1))
    own = _logits(model, ids)
    _compare(found, "native", _under(model, "native", ids), own, exactly=True)
    if found.family not in EAGER_DIFFERS:
        _compare(found, "the attention that transformers chooses", _logits(_as_loaded(model, found.family), ids), own)
    unscaled = _unscaled(model, ids, found) if declares_scaling(text) else own
    _compare(found, "none", _under(model, "none", ids), unscaled)
    if found.kind == ROTARY:
        for name, declared in _declared().items():
            other = _twin(model, declared, found)
            if other is not None and found.family not in OWN_SCALING_DIFFERS:
                _compare(found, name, _under(model, name, ids), _logits(other, ids), own)
        for name in OF_ATTENTION:
            found.methods[name] = _attends(found, model, name, ids, unscaled)
    if not torch.equal(_logits(model, ids), own):
        found.faults.append("the model is not as before")


def _unscaled(model: CausalLM, ids: torch.Tensor, found: Checked) -> torch.Tensor:
    """Logits of the same weights with no scaling declared; by linear scaling by 1 where that makes no model."""
    for declared in ({"rope_type": "default"}, {"rope_type": "linear", "factor": 1.0}):
        if (twin := _twin(model, declared, found)) is not None:
            try:
                return _logits(twin, ids)
            except RuntimeError:
                continue
    raise AssertionError(f"{found.family}: no model without scaling")


def _kind(text: PretrainedConfig, model: CausalLM) -> str:
    if has_rope(text) and rotaries(model):
        return ROTARY
    return WITHOUT if last_position(model) is None else ENDING


def _declared() -> dict[str, dict[str, object]]:
    scaled = {"factor": FACTOR, "original_max_position_embeddings": TRAINED}
    return {"linear": {"rope_type": "linear", "factor": FACTOR}, "yarn": {"rope_type": "yarn", **scaled}}


def _twin(model: CausalLM, declared: dict[str, object], found: Checked) -> CausalLM | None:
    """The same weights in a model whose own configuration declares this of its rotations; None: there is none."""
    config = copy.deepcopy(model.config)
    text = text_config(config)
    if not getattr(text, "rope_parameters", None):
        return None
    for kind in layer_types(text):
        own = rope_parameters(text, kind)
        kept = {key: value for key, value in own.items() if key not in OF_SCALING}
        proportional, wanted = own.get("rope_type") == "proportional", declared
        if is_local(text, kind):
            continue
        if proportional and declared["rope_type"] == "yarn":
            return None  # transformers has no such thing
        if proportional:
            wanted = {"rope_type": "proportional", "factor": declared.get("factor", 1.0)}
        merged = {**kept, **wanted}
        text.rope_parameters = merged if kind is None else {**text.rope_parameters, kind: merged}
    try:
        twin = type(model)._from_config(config, attn_implementation="eager").eval()
    except Exception as error:  # some families know no other scaling
        found.methods[str(declared["rope_type"])] = f"cannot be declared ({first_line(error)})"
        return None
    twin.load_state_dict(model.state_dict())
    if declared["rope_type"] in _declared():
        try:
            _logits(twin, torch.full((1, LENGTH), TEXT_IDS[0]))
        except LookupError as error:
            found.methods[str(declared["rope_type"])] = f"cannot be declared ({first_line(error)})"
            return None
    return twin


def _attends(found: Checked, model: CausalLM, name: str, ids: torch.Tensor, unscaled: torch.Tensor) -> str:
    try:
        got = _under(model, name, ids)
    except UserError as error:
        return str(error)
    hidden = limits(text_config(model.config))  # the family's own windows may be shorter than the method's
    if (got - unscaled).abs().max() < 1e-3 and not hidden:
        found.faults.append(f"{name} changes nothing")
    return "acts"


def _under(model: CausalLM, name: str, ids: torch.Tensor) -> torch.Tensor:
    length = ids.shape[1]
    plain = name in ("native", "none")
    params = {"factor": FACTOR} if name in ("linear", "yarn") else {}
    trained = None if first_set(text_config(model.config), TRAINED_LENGTH) else TRAINED  # RecurrentGemma says nothing
    method = construct(name, params) if plain else build(name, params, geometry(model.config, trained), length)
    with applied(model, method, length, trained):
        return _logits(model, ids)


def _compare(
    found: Checked, name: str, got: torch.Tensor, want: torch.Tensor, without: torch.Tensor | None = None,
    *, exactly: bool = False,
) -> None:  # fmt: skip
    atol = LOOSE.get(found.family, 1e-5) * max(1.0, float(want.abs().max()))
    if not (torch.equal(got, want) if exactly else torch.allclose(got, want, rtol=0, atol=atol)):
        found.faults.append(f"{name} differs by {float((got - want).abs().max()):.2g}")
    if without is not None and (want - without).abs().max() < 1e-4:
        found.faults.append(f"{name}: the comparison would not see it")


@torch.no_grad()
def _logits(model: CausalLM, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits
