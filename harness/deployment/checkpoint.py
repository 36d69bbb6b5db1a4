"""A checkpoint that declares other rotations: a config.json of its own beside links to the weights."""

from pathlib import Path

from harness.deployment import gguf_file, llama_cpp
from harness.deployment.express import Expression
from harness.deployment.huggingface import settings_for
from harness.deployment.target import Target
from harness.errors import UserError
from harness.models.checkpoint.files import directory
from harness.models.checkpoint.geometry import text_config
from harness.models.checkpoint.load import load_config
from harness.models.checkpoint.sliding_window import set_window
from harness.models.checkpoint.spec import ModelSpec
from harness.storage.files import storage


def write(spec: ModelSpec, expression: Expression, target: Target, output: Path) -> Path:
    """Write config.json into `output`, a new or empty folder, and link the checkpoint's other files beside it.

    The configuration is what transformers needs for the method without a patch; returns its path.
    """
    config = load_config(spec)
    text = text_config(config)
    settings = settings_for(expression, target)
    text.rope_parameters = target.rope_parameters(settings.parameters())
    text.max_position_embeddings = target.max_positions(settings)
    if target.names_original:
        text.original_max_position_embeddings = target.geometry.original_max_position_embeddings
    if not isinstance(spec.sliding_window, str):
        set_window(config, spec.sliding_window)
    with storage(output, "the checkpoint"):
        empty_folder(output)
        config.save_pretrained(output)
        for file in sorted(directory(spec).iterdir()):
            if file.is_file() and file.name != "config.json" and (file.suffix != ".py" or spec.trust_remote_code):
                (output / file.name).symlink_to(file.resolve())
    return output / "config.json"


def write_gguf(spec: ModelSpec, expression: Expression, target: Target, output: Path) -> Path:
    """Write a copy of the model's GGUF file with the method in its metadata into `output`, a new or empty folder.

    Returns its path; UserError where llama.cpp has no settings for the method on this architecture.
    """
    assert spec.gguf_file is not None
    source = directory(spec) / spec.gguf_file
    arch, spelling = llama_cpp.architecture(target), llama_cpp.spell(expression, target)
    metadata = llama_cpp.metadata_of(expression, target, arch)
    if spelling.match == "no" or (metadata.factors is not None and arch not in llama_cpp.FACTOR_TENSOR):
        raise UserError(f"architecture {arch} of {spec.gguf_file} cannot be given this method by metadata.")
    with storage(output, "the model"):
        empty_folder(output)
        gguf_file.write(source, output / source.name, metadata)
    return output / source.name


def empty_folder(output: Path) -> None:
    """Make the folder; UserError where it holds something already."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"output must be a new or empty folder, got {output}, which holds something.")
    output.mkdir(parents=True, exist_ok=True)
