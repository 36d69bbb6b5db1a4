"""The model to train: a fresh Llama, or a checkpoint with its tokenizer."""

from importlib.resources import files
from pathlib import Path

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from harness.errors import UserError, first_line
from harness.methods.base import parameters
from harness.methods.encoding.base import Encoding
from harness.models.encoded.model import EncodedConfig, EncodedForCausalLM
from harness.training.config import ModelShape


def fresh(
    shape: ModelShape, tokenizer: PreTrainedTokenizerBase, ctx: int, seed: int, encoding: tuple[str, Encoding] | None
) -> PreTrainedModel:
    """A randomly initialised float32 Llama with tied embeddings, trained length `ctx` tokens.

    encoding: name and parameters of what takes the place of its rotary embedding.
    """
    if shape.hidden_size % (2 * shape.num_attention_heads):
        raise UserError(
            "train.model.hidden_size must be an even multiple of num_attention_heads, "
            f"got {shape.hidden_size} and {shape.num_attention_heads}."
        )
    set_seed(seed)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": ctx,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "use_cache": False,
    }
    if encoding is not None:
        name, given = encoding
        declared = {"name": name, **parameters(given.filled(ctx))}
        return EncodedForCausalLM(EncodedConfig(position_encoding=declared, **sizes))
    rotary = {"rope_type": "default", "rope_theta": shape.rope_theta}
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=shape.num_attention_heads, rope_parameters=rotary, **sizes))


def checkpoint_directory(given: str, key: str = "init_from") -> Path:
    """Where a checkpoint lies: `reference` is the embedded model, anything else a directory; key: of the error."""
    path = Path(str(files("harness.models") / "reference")) if given == "reference" else Path(given)
    if not (path / "config.json").is_file():
        raise UserError(f"train.{key} must be null, reference or a checkpoint directory; {path} holds no config.json.")
    return path


def tokenizer_of(path: Path, key: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a checkpoint directory, with a BOS token to set books apart; key: of the error."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise _unreadable(key, path, error) from error
    if tokenizer.bos_token_id is None:
        raise UserError(f"train.{key}: the tokenizer in {path} has no BOS token to set books apart with.")
    return tokenizer


def _unreadable(key: str, path: Path, error: Exception) -> UserError:
    return UserError(f"train.{key}: {path} cannot be loaded ({first_line(error)}).")


def from_checkpoint(init_from: str, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The checkpoint in float32 and its tokenizer, which must have a BOS token to set books apart."""
    path = checkpoint_directory(init_from)
    set_seed(seed)
    tokenizer = tokenizer_of(path, "init_from")
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    except (OSError, ValueError) as error:
        raise _unreadable("init_from", path, error) from error
    model.config.use_cache = False
    return model, tokenizer
