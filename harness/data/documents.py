"""Documents: raw texts from a package, from files or from a hub; tokenized once, selected by a stated, seeded rule."""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from harness.data.containers import RawText
from harness.data.sources import SOURCES, DataSpec, Source
from harness.data.windows import Shorter
from harness.errors import UserError
from harness.storage import cache

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


def fingerprint(spec: DataSpec, tokenizer: "PreTrainedTokenizerBase", tokenizer_fingerprint: str, seed: int) -> str:
    """What identifies the documents of `load`: raw texts, tokenizer and selection, and the tokens that came of them."""
    return _identified(spec, tokenizer, tokenizer_fingerprint, seed)[1]


def _made_of(raw: Source, spec: DataSpec, tokenizer_fingerprint: str, seed: int) -> dict[str, object]:
    rule = {k: v for k, v in asdict(spec).items() if k in _SELECTION}
    if spec.skip:
        rule["skip"] = spec.skip
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
    documents, key = _identified(spec, tokenizer, tokenizer_fingerprint, seed)
    return DocumentSet(spec.name, documents, key, describe(spec, len(documents)), spec.shorter, spec.max_tokens)


def _identified(
    spec: DataSpec, tokenizer: "PreTrainedTokenizerBase", tokenizer_fingerprint: str, seed: int
) -> tuple[list[Document], str]:
    """The documents, from disk where they were tokenized before, and what identifies them."""
    raw = source(spec)
    made_of = _made_of(raw, spec, tokenizer_fingerprint, seed)
    made_by = [READER, *(version(package) for package in ("transformers", "tokenizers"))]
    stored = cache.path("documents", cache.digest(made_of | {"made_by": made_by}), ".npz")
    documents = _read(stored)
    if documents is None:
        documents = _select(spec, raw, tokenizer, seed)
        _write(stored, documents)
    return documents, cache.digest(made_of | {"tokens": _digest(documents)})


def _digest(documents: list[Document]) -> str:
    """Of all tokens and byte counts: whichever version of which package made them, equal ones have equal digests."""
    sha = hashlib.sha256()
    for document in documents:
        sha.update(np.int64(document.num_tokens).tobytes() + document.ids.tobytes() + document.byte_ends.tobytes())
    return sha.hexdigest()


def describe(spec: DataSpec, count: int) -> str:
    """The selection in words: `first 6 documents of >= 32768 tokens, cut at 32768`."""
    words = f"{spec.selection} {count} documents" + (f" after {spec.skip} others" if spec.skip else "")
    if spec.min_tokens > 2:
        words += f" of >= {spec.min_tokens} tokens"
    return words + (f", cut at {spec.max_tokens}" if spec.max_tokens else "")


def check_lengths(documents: DocumentSet, ctx: int) -> None:
    """Raise UserError naming the document that is shorter than `ctx`, and the longest length available.

    Documents that are to be scored whole where they are shorter are never too short.
    """
    if documents.shorter == "whole":
        return
    shortest = min(documents.documents, key=lambda d: d.num_tokens)
    longest = max(documents.documents, key=lambda d: d.num_tokens)
    if longest.num_tokens < ctx:
        cut = documents.cut_at is not None and documents.cut_at < ctx
        remedy = "raise data.max_tokens and data.min_tokens" if cut else "take longer documents"
        raise UserError(
            f"data={documents.name}: no document is long enough for ctx={ctx}: the longest has "
            f"{longest.num_tokens} tokens ({documents.selection}); {remedy}, a shorter ctx, or data.shorter=whole."
        )
    if shortest.num_tokens < ctx:
        raise UserError(
            f"data={documents.name}: document {shortest.name!r} has {shortest.num_tokens} tokens, fewer than "
            f"ctx={ctx}; every ctx uses the same documents, so set data.min_tokens={ctx}, "
            "or data.shorter=whole."
        )


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
    listed = list(texts)
    return (listed[i] for i in np.random.default_rng(seed).permutation(len(listed)))


def _taken(spec: DataSpec, texts: Iterator[RawText], tokenizer: "PreTrainedTokenizerBase") -> list[Document]:
    from tqdm import tqdm

    taken: list[Document] = []
    longest, left_to_skip = 0, spec.skip
    with tqdm(total=spec.num_documents, desc=f"tokenizing {spec.name}", unit="doc", leave=False) as bar:
        for text in texts:
            if spec.num_documents is not None and len(taken) == spec.num_documents:
                break
            document = _tokenize(text, tokenizer)
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
            f"the longest has {longest} tokens."
        )
    return taken


def _tokenize(text: RawText, tokenizer: "PreTrainedTokenizerBase") -> Document:
    encoded = tokenizer(
        text.text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        verbose=False,
        return_attention_mask=False,
    )
    ids = np.asarray(encoded["input_ids"], dtype=np.int64)
    characters = np.frombuffer(text.text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (characters >= 0x80).astype(np.int64) + (characters >= 0x800) + (characters >= 0x10000)
    bytes_before = np.concatenate([[0], np.cumsum(widths)])
    ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 1]
    # Tokens that share a character end at the same place; whitespace that no token covers goes to the next one.
    byte_ends = np.concatenate([[0], np.maximum.accumulate(bytes_before[ends])]) if len(ids) else np.zeros(1)
    if len(ids):
        byte_ends[-1] = bytes_before[-1]
    characters_before = np.searchsorted(bytes_before, byte_ends)
    return Document(text.name, ids, byte_ends.astype(np.int64), _words_before(text.text, characters_before))


def _words_before(text: str, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Words in the first `ends` characters of a text, (num_tokens + 1,): of the first n, what lm-eval would count.

    That is the number of parts between runs of white space, an empty one at an end counted as well. None before the
    first token.
    """
    runs = np.array([run.start() for run in re.finditer(r"\s+", text)], dtype=np.int64)
    words = 1 + np.searchsorted(runs, ends, side="left")
    words[0] = 0
    return words.astype(np.int64)


def _cut(document: Document, max_tokens: int | None) -> Document:
    if max_tokens is None or document.num_tokens <= max_tokens:
        return document
    words = None if document.word_ends is None else document.word_ends[: max_tokens + 1]
    return Document(document.name, document.ids[:max_tokens], document.byte_ends[: max_tokens + 1], words)


def _write(stored: Path, documents: list[Document]) -> None:
    arrays = {f"ids_{i}": d.ids for i, d in enumerate(documents)}
    arrays |= {f"bytes_{i}": d.byte_ends for i, d in enumerate(documents)}
    arrays |= {f"words_{i}": d.word_ends for i, d in enumerate(documents) if d.word_ends is not None}
    names = np.array([d.name for d in documents])
    cache.write(stored, lambda file: np.savez(file, allow_pickle=False, names=names, **arrays))


def _read(stored: Path) -> list[Document] | None:
    if not stored.exists():
        return None
    try:
        with np.load(stored, allow_pickle=False) as arrays:
            names = arrays["names"]
            return [
                Document(str(n), arrays[f"ids_{i}"], arrays[f"bytes_{i}"], arrays.get(f"words_{i}"))
                for i, n in enumerate(names)
            ]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        log.warning("cached documents %s are unreadable (%s); tokenizing again", stored, error)
        return None
