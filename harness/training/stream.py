"""Books as tokens, and the windows of their stream that training sees, in an order fixed by the seed."""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial

import numpy as np
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from harness.errors import UserError
from harness.storage import cache
from harness.storage.files import check_regular
from harness.training import pose
from harness.training.config import Pose

BOOKS_PER_BATCH = 64  # one call of the tokenizer, which spreads them over the cores


def encode(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[NDArray[np.int32]]:
    """Each text as token ids, shape (num_tokens,), a BOS before it."""

    def batch_ids(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
        return {"input_ids": [[tokenizer.bos_token_id, *document] for document in ids["input_ids"]]}

    wanted = list(texts)
    if not wanted:
        return []
    books = Dataset.from_dict({"text": wanted}).map(
        batch_ids,
        batched=True,
        batch_size=BOOKS_PER_BATCH,
        remove_columns=["text"],
        features=Features({"input_ids": List(Value("int32"))}),
        keep_in_memory=True,
        desc="Tokenizing",
    )
    column = books.with_format("arrow")[:]["input_ids"]
    return [document.values.to_numpy() for document in column]


def joined(books: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """All books as one stream of token ids, (num_tokens,), kept in the cache for the next run on the same ones."""
    made_of = [hashlib.sha256(text.encode()).hexdigest() for text in books.values()]
    key = cache.digest([made_of, tokenizer.backend_tokenizer.to_str(), tokenizer.bos_token_id])
    kept = cache.path("streams", key, ".npy")
    with suppress(OSError, ValueError, EOFError):  # not there, or damaged
        check_regular(kept)  # a FIFO would be waited for
        stream: NDArray[np.int32] = np.load(kept, mmap_mode="r")
        return stream
    tokens = np.concatenate(encode(books.values(), tokenizer))
    cache.write(kept, lambda file: np.save(file, tokens))
    return tokens


def window_begins(num_tokens: int, ctx: int, count: int, seed: int) -> NDArray[np.int64]:
    """Where the first `count` windows of `ctx` tokens begin, shape (count,).

    Pass after pass over the stream: each cuts it at a fresh random offset and visits its windows in a fresh random
    order, both drawn from (seed, pass) alone, so that a longer run begins as a shorter one does.
    """
    if num_tokens < 2 * ctx:
        raise UserError(f"The training books must hold at least 2 x train.ctx = {2 * ctx} tokens, got {num_tokens}.")
    passes: list[NDArray[np.int64]] = []
    while sum(map(len, passes)) < count:
        generator = np.random.default_rng([seed, len(passes)])
        offset = int(generator.integers(ctx))
        passes.append(offset + ctx * generator.permutation((num_tokens - offset) // ctx))
    return np.concatenate(passes)[:count]


def windows(stream: NDArray[np.int32], ctx: int, count: int, seed: int, of: Pose | None = None) -> Dataset:
    """The training set in training order: `count` rows of `input_ids` and equal `labels`, each (ctx,).

    With a target length, those of PoSE, which have `position_ids`, too.
    """
    begins = window_begins(len(stream), ctx, count, seed)
    if of is None or of.target_ctx is None:
        return Dataset.from_dict({"begin": begins}).with_transform(partial(_cut, stream, np.arange(ctx)))
    drawn = pose.draws(of, begins, ctx, len(stream), seed)
    return Dataset.from_dict({"begin": begins, **drawn._asdict()}).with_transform(partial(_cut_twice, stream, ctx))


def _cut(stream: NDArray[np.int32], steps: NDArray[np.int64], batch: dict[str, object]) -> dict[str, object]:
    ids = stream[np.asarray(batch["begin"])[:, None] + steps].astype(np.int64)
    return {"input_ids": ids, "labels": ids}


def _cut_twice(stream: NDArray[np.int32], ctx: int, batch: dict[str, object]) -> dict[str, object]:
    begins = np.asarray(batch["begin"])[:, None]
    drawn = pose.Draws(*(np.asarray(batch[name]) for name in pose.Draws._fields))
    places, positions = pose.indices(drawn, ctx)
    ids = stream[begins + places].astype(np.int64)
    # a mask, as without one transformers takes a jump of positions for the beginning of another text
    return {"input_ids": ids, "labels": ids, "position_ids": positions, "attention_mask": np.ones_like(ids)}
