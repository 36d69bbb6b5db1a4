"""Adapters (LoRA and its kin) that lie in a checkpoint's folder: merged into the weights, never left out in silence."""

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError, first_line, install
from harness.models.checkpoint.weights import SAFE, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model"
NOWHERE = "no-adapter-is-here"  # a subfolder; where the loader looks for adapters, so that none is loaded unmerged


def adapter_files(name: str, folder: Path, *, allow_pickle: bool) -> list[Path]:
    """The files of the adapter in a model's folder; none where there is no adapter.

    Raises UserError where there is one that cannot be merged: no model beside it, no peft, a pickle.
    """
    config = folder / CONFIG
    if not config.is_file():
        return []
    card = read_json(name, config)
    kind = card.get("peft_type")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model {name}: {folder} holds an adapter ({kind}) alone, no model: merge it into its base "
            f"{card.get('base_model_name_or_path')!r} first."
        )
    if importlib.util.find_spec("peft") is None:
        raise UserError(
            f"model {name}: {folder} holds an adapter ({kind}) beside its model; it is merged by peft: "
            f"{install('adapters')} (to evaluate the model alone, take {CONFIG} away)."
        )
    weights = folder / f"{WEIGHTS}{SAFE}"
    if not weights.is_file():
        pickle = folder / f"{WEIGHTS}.bin"
        if not (allow_pickle and pickle.is_file()):
            raise UserError(f"model {name}: the adapter in {folder} has no {weights.name}.")
        weights = pickle
    return [config, weights]


def check_no_adapter(name: str, folder: Path, gguf_file: str) -> None:
    """Raise UserError where an adapter lies beside a GGUF file, into which it cannot be merged."""
    if (folder / CONFIG).is_file():
        raise UserError(
            f"model {name}: {folder} holds an adapter beside {gguf_file}, into which it cannot be merged; take "
            f"{CONFIG} away to evaluate the file alone."
        )


def merged(name: str, model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """The model with the adapter of its folder added to its weights. Raises UserError."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    try:
        with warnings.catch_warnings(action="ignore"):  # what it would warn of is compared here
            wrapped = PeftModel.from_pretrained(model, str(folder))
            given = set(load_peft_weights(str(folder), device="cpu"))
            plain, with_embeddings = (
                set(get_peft_model_state_dict(wrapped, save_embedding_layers=kept)) for kept in (False, True)
            )
        if given not in (plain, with_embeddings):
            odd = sorted(given ^ plain)[0]
            raise UserError(f"model {name}: the adapter in {folder} does not fit its model, as {odd} shows.")
        whole: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    except UserError:
        raise
    except Exception as error:  # peft refuses in many ways, and so do tensors that do not fit
        raise UserError(f"model {name}: the adapter in {folder} cannot be merged: {first_line(error)}") from error
    return whole
