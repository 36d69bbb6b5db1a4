"""Documents: raw texts from a package, from files or from a hub; tokenized once, selected by a stated, seeded rule."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from harness.data import needle_templates
from harness.data.needle_spec import Asked
from harness.data.raw import RawText
from harness.data.sources import SOURCES, DataSpec, Source
from harness.data.tokens import tokens_of_long
from harness.data.windows import Shorter
from harness.errors import UserError
from harness.storage import cache
from harness.storage.files import check_regular

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
READER = 2  # raised when the same files would give other texts or counts


class Document(NamedTuple):
    """One tokenized document."""

    name: str
    ids: NDArray[np.int64]  # (num_tokens,)
    byte_ends: NDArray[np.int64]  # (num_tokens + 1,): UTF-8 bytes of the first n tokens
    word_ends: NDArray[np.int64] | None = (
        None  # (num_tokens + 1,): words begun in the first n tokens; None: not counted
    )
    num_targets: int | None = None  # of its last tokens, those that count; None: it does not say
    needle: Asked | None = None  # what it asks for

    @property
    def num_tokens(self) -> int:
        """Length in tokens."""
        return len(self.ids)


class DocumentSet(NamedTuple):
    """The documents of a run, with a fingerprint of everything that made them."""

    name: str
    documents: list[Document]
    fingerprint: str
    selection: str  # the rule in words, for tables and figures
    shorter: Shorter = "error"
    cut_at: int | None = None  # tokens; longer documents were cut there


def source(spec: DataSpec) -> Source:
    """The raw documents that `spec` names. Raises UserError for anything missing, empty or unreadable."""
    return SOURCES[spec.source](spec)


def fingerprint(
    spec: DataSpec, tokenizer: "Callable[[], PreTrainedTokenizerBase]", tokenizer_fingerprint: str, seed: int
) -> str:
    """What identifies the documents of `load`: raw texts, tokenizer and selection, and the tokens that came of them.

    The tokenizer is asked for where they were not tokenized before.
    """
    return _identified(spec, tokenizer, tokenizer_fingerprint, seed)[1]


def _made_of(raw: Source, spec: DataSpec, tokenizer_fingerprint: str, seed: int) -> dict[str, object]:
    rule = {k: v for k, v in asdict(spec).items() if k in _SELECTION}
    if spec.skip:
        rule["skip"] = spec.skip
    if spec.target_column:
        rule["target_column"] = spec.target_column
    if spec.selection == "random":
        rule["seed"] = seed
    return {"raw": raw.fingerprint, "tokenizer": tokenizer_fingerprint, "selection": rule}


_SELECTION = ("column", "num_documents", "min_tokens", "max_tokens", "selection")


def load(
    spec: DataSpec, tokenizer: "PreTrainedTokenizerBase", tokenizer_fingerprint: str, seed: int = 0
) -> DocumentSet:
    """The documents of `spec`, tokenized without special tokens; kept on disk for the next run.

    Raises UserError where fewer than `num_documents` documents reach `min_tokens`, saying how long the longest is.
    """
    return load_with(spec, lambda: tokenizer, tokenizer_fingerprint, seed)


def load_with(
    spec: DataSpec, tokenizer: "Callable[[], PreTrainedTokenizerBase]", tokenizer_fingerprint: str, seed: int = 0
) -> DocumentSet:
    """As `load`; the tokenizer is asked for where they were not tokenized before."""
    documents, key = _identified(spec, tokenizer, tokenizer_fingerprint, seed)
    return DocumentSet(spec.name, documents, key, describe(spec, len(documents)), spec.shorter, spec.max_tokens)


def _identified(
    spec: DataSpec, tokenizer: "Callable[[], PreTrainedTokenizerBase]", tokenizer_fingerprint: str, seed: int
) -> tuple[list[Document], str]:
    """The documents, from disk where they were tokenized before, and what identifies them."""
    raw = source(spec)
    made_of = _made_of(raw, spec, tokenizer_fingerprint, seed)
    made_by = [READER, *(version(package) for package in ("transformers", "tokenizers"))]
    stored = cache.path("documents", cache.digest(made_of | {"made_by": made_by}), ".npz")
    documents = _read(stored)
    if documents is None:
        documents = _select(spec, raw, tokenizer(), seed)
        _write(stored, documents)
    asked = {} if spec.needles is None else {"needles": [asdict(spec.needles), needle_templates.identity(), seed]}
    return documents, cache.digest(made_of | {"tokens": _digest(documents)} | asked)


def _digest(documents: list[Document]) -> str:
    """Of all tokens and byte counts: whichever version of which package made them, equal ones have equal digests."""
    sha = hashlib.sha256()
    for document in documents:
        sha.update(np.int64(document.num_tokens).tobytes() + document.ids.tobytes() + document.byte_ends.tobytes())
        if document.num_targets is not None:
            sha.update(np.int64(document.num_targets).tobytes())
    return sha.hexdigest()


def describe(spec: DataSpec, count: int) -> str:
    """The selection in words: `first 6 documents of >= 32768 tokens, cut at 32768`."""
    words = f"{spec.selection} {count} documents" + (f" after {spec.skip} others" if spec.skip else "")
    if spec.min_tokens > 2:
        words += f" of >= {spec.min_tokens} tokens"
    return words + (f", cut at {spec.max_tokens}" if spec.max_tokens else "")


def _select(spec: DataSpec, raw: Source, tokenizer: "PreTrainedTokenizerBase", seed: int) -> list[Document]:
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"data={spec.name}: a fast tokenizer is needed for byte counts, got {type(tokenizer).__name__}."
        )
    with closing(raw.texts()) as texts:  # it is here that a text which changed meanwhile is found out
        return _taken(spec, _ordered(texts, spec, seed), tokenizer)


def _ordered(texts: Iterator[RawText], spec: DataSpec, seed: int) -> Iterator[RawText]:
    if spec.selection == "first":
        return texts
    listed = [text if isinstance(text.text, str) else text._replace(text="".join(text.text)) for text in texts]
    return (listed[i] for i in np.random.default_rng(seed).permutation(len(listed)))


def _taken(spec: DataSpec, texts: Iterator[RawText], tokenizer: "PreTrainedTokenizerBase") -> list[Document]:
    from tqdm.auto import tqdm

    taken: list[Document] = []
    longest, left_to_skip = 0, spec.skip
    enough = None if spec.max_tokens is None else max(spec.max_tokens, spec.min_tokens)
    with tqdm(total=spec.num_documents, desc=f"tokenizing {spec.name}", unit="doc", leave=False, position=0) as bar:
        for text in texts:
            if spec.num_documents is not None and len(taken) == spec.num_documents:
                break
            document = _tokenize(text, tokenizer, enough)
            longest = max(longest, document.num_tokens)
            if document.num_tokens < spec.min_tokens:
                continue
            if left_to_skip:
                left_to_skip -= 1
            else:
                taken.append(_cut(document, spec.max_tokens))
                bar.update()
    if not taken or (spec.num_documents is not None and len(taken) < spec.num_documents):
        wanted = f"{spec.num_documents} documents" if spec.num_documents else "a document"
        wanted += f" after {spec.skip} others" if spec.skip else ""
        raise UserError(
            f"data={spec.name}: {wanted} of at least {spec.min_tokens} tokens wanted, {len(taken)} found; "
            f"the longest has {longest} tokens{' or more' if enough is not None and longest > enough else ''}."
        )
    return taken


def _tokenize(text: RawText, tokenizer: "PreTrainedTokenizerBase", enough: int | None) -> Document:
    """One document; a token that holds the end of a prompt and the beginning of its target is one of the target.

    At least its first `enough` tokens and one more, where it has more.
    """
    if not isinstance(text.text, str):
        return Document(text.name, *tokens_of_long(text.text, tokenizer, enough))
    if text.target is None:
        return Document(text.name, *tokens_of_long([text.text], tokenizer, enough))
    tokens = tokens_of_long([text.text + text.target], tokenizer)
    return Document(text.name, *tokens, tokens.behind(text.text))


def _cut(document: Document, max_tokens: int | None) -> Document:
    if max_tokens is None or document.num_tokens <= max_tokens:
        return document
    words = None if document.word_ends is None else document.word_ends[: max_tokens + 1]
    return Document(document.name, document.ids[:max_tokens], document.byte_ends[: max_tokens + 1], words)


def _write(stored: Path, documents: list[Document]) -> None:
    arrays = {f"ids_{i}": d.ids for i, d in enumerate(documents)}
    arrays |= {f"bytes_{i}": d.byte_ends for i, d in enumerate(documents)}
    arrays |= {f"words_{i}": d.word_ends for i, d in enumerate(documents) if d.word_ends is not None}
    arrays |= {f"targets_{i}": np.array(d.num_targets) for i, d in enumerate(documents) if d.num_targets is not None}
    names = np.array([d.name for d in documents])
    cache.write(stored, lambda file: np.savez(file, allow_pickle=False, names=names, **arrays))


def _read(stored: Path) -> list[Document] | None:
    if not stored.exists():
        return None
    try:
        check_regular(stored)  # a FIFO would be waited for
        with np.load(stored, allow_pickle=False) as arrays:
            names = arrays["names"]
            targets = [arrays.get(f"targets_{i}") for i in range(len(names))]
            return [
                Document(
                    str(n), arrays[f"ids_{i}"], arrays[f"bytes_{i}"], arrays.get(f"words_{i}"),
                    None if counted is None else int(counted),
                )
                for i, (n, counted) in enumerate(zip(names, targets, strict=True))
            ]  # fmt: skip
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        log.warning("cached documents %s are unreadable (%s); tokenizing again", stored, error)
        return None
