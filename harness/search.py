"""``python -m harness.search``: rescale factors for LongRoPE, found by evolution."""

from omegaconf import DictConfig

from harness import cli


def main() -> None:
    """Search as conf/search.yaml and the overrides say; the same command again goes on after a kill."""
    cli.run_app(_task, "search")


def _task(composed: DictConfig) -> None:
    from harness.config.checks import plain
    from harness.longrope_search import config

    parsed = config.parse(plain(composed))  # before torch is imported

    from harness.longrope_search.run import search

    for path in search(parsed):
        print(path)


if __name__ == "__main__":
    from harness.search import main as imported  # nothing that Hydra looks up may live in __main__

    imported()
