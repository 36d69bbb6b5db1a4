"""``python -m harness.train``: train a model, or fine-tune one under a scaling method."""

from omegaconf import DictConfig

from harness import cli


def main() -> None:
    """Train as conf/train.yaml and the overrides say; the same command again goes on after a kill."""
    cli.run_app(_task, "train")


def _task(composed: DictConfig) -> None:
    from harness.config.checks import group, plain
    from harness.config.schema import MODIFIERS
    from harness.errors import UserError
    from harness.training import config

    values = plain(composed)
    wanted = config.parse(_of_corpus(group(values, "train")))
    config.validate(wanted)  # before torch is imported
    method = group(values, "method")
    for modifier in MODIFIERS:
        if given := method.pop(modifier, None):
            raise UserError(f"method.{modifier} is for evaluation; training takes none, got {given!r}.")

    from harness.training.run import train

    print(f"checkpoint: {train(wanted, str(method.pop('name')), method, _seed(values['seed']))}")


def _of_corpus(train: dict[str, object]) -> dict[str, object]:
    """Without a preset's lists of books where its corpus is not given: they name no others."""
    from hydra.core.hydra_config import HydraConfig

    given = {override.split("=")[0].lstrip("+~") for override in HydraConfig.get().overrides.task}
    preset = [] if train.get("corpus") else [k for k in ("held_out", "left_out") if f"train.{k}" not in given]
    return {key: value for key, value in train.items() if key not in preset}


def _seed(given: object) -> int:
    from harness.errors import UserError

    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < 2**32:
        raise UserError(f"seed must be a whole number of 0 .. {2**32 - 1}, got {given!r}.")
    return given


if __name__ == "__main__":
    from harness.train import main as imported  # nothing that Hydra looks up may live in __main__

    imported()
