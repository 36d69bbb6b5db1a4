"""``python -m harness.search``: rescale factors for LongRoPE, found by evolution."""

import json

from omegaconf import DictConfig

from harness import cli


def main() -> None:
    """Search as conf/search.yaml and the overrides say; the same command again goes on after a kill."""
    cli.run_app(_task, "search")


def _task(composed: DictConfig) -> None:
    from harness.config.checks import plain
    from harness.longrope_search import config

    parsed = config.parse(plain(composed))  # before torch is imported

    from harness.longrope_search.evaluated import table
    from harness.longrope_search.result import summary
    from harness.longrope_search.run import search

    files = search(parsed)
    content = json.loads(files[0].read_text())
    for path in files:
        print(path)
    print(f"\nperplexity on the search documents\n{summary(content)}")
    if (beside := table(content)) is not None:
        seen = content["evaluation_documents"]
        print(f"\nperplexity on the {len(seen['documents'])} evaluation documents, data={seen['data']}\n{beside}")


if __name__ == "__main__":
    from harness.search import main as imported  # nothing that Hydra looks up may live in __main__

    imported()
