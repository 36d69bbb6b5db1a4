"""Perplexities as others compute them, each loop written from what its authors' script does.

`losses(ids)` gives -log p of ids[1:] in float64, one forward of its own. Documents are lists of token ids. Every
function returns the number that the script prints. The scripts themselves are not run here.
"""

import math
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

Losses = Callable[[Sequence[int]], np.ndarray]
Documents = Sequence[Sequence[int]]


def _steps(document, length, stride):
    """Begin, end and number of new tokens of windows of `length` tokens, as in the documentation of transformers."""
    reached = 0
    for begin in range(0, len(document), stride):
        end = min(begin + length, len(document))
        yield begin, end, end - reached
        reached = end
        if end == len(document):
            return


def _windows(losses: Losses, documents: Documents, ctx: int, stride: int, bos: int | None) -> list[np.ndarray]:
    """Losses of the new tokens of every window; a BOS goes in front of each and takes a place of ctx."""
    front = [] if bos is None else [bos]
    found = []
    for document in documents:
        for begin, end, new in _steps(document, ctx - len(front), stride):
            found.append(losses([*front, *document[begin:end]])[-new:])
    return found


def yarn(losses: Losses, documents: Documents, ctx: int, bos: int, *, stride: int = 256, truncate: bool = False):
    """YaRN, eval/perplexity.py: the mean of window means over all documents; `--truncate`: one window a document."""
    if truncate:
        documents, stride = [d[: ctx - 1] for d in documents], ctx
    return math.exp(np.mean([w.mean() for w in _windows(losses, documents, ctx, stride, bos)]))


def longrope(losses: Losses, documents: Documents, ctx: int, bos: int, *, stride: int = 256):
    """LongRoPE, evaluation/perplexity.py: YaRN's, but documents are cut to ten strides."""
    return yarn(losses, [d[: 10 * stride] for d in documents], ctx, bos, stride=stride)


def pose(losses: Losses, documents: Documents, ctx: int, bos: int, *, stride: int):
    """PoSE, src/eval_ppl.py: YaRN's windows, all tokens alike."""
    return math.exp(np.concatenate(_windows(losses, documents, ctx, stride, bos)).mean())


def easycontext(losses: Losses, documents: Documents, ctx: int, bos: int):
    """EasyContext, eval_ppl.py on one GPU with --truncate: YaRN's mean of one window a document."""
    return yarn(losses, documents, ctx, bos, truncate=True)


def transformers_page(losses: Losses, document: Sequence[int], ctx: int, stride: int):
    """The page perplexity.md: sums of window means times their number of labels less one, over these numbers.

    That is one token too few for each window but the first.
    """
    total = tokens = 0.0
    for begin, end, new in _steps(document, ctx, stride):
        mean = losses(document[begin:end])[-new:].mean()
        total, tokens = total + mean * (new - 1), tokens + new - 1
    return math.exp(total / tokens)


def longppl_plain(losses: Losses, documents: Documents, ctx: int):
    """LongPPL's `ppl`: one pass a document of n tokens, whose mean over n - 1 of them weighs n."""
    cut = [d[:ctx] for d in documents]
    return math.exp(sum(losses(d).mean() * len(d) for d in cut) / sum(map(len, cut)))


def evaluate(losses: Losses, documents: Documents, ctx: int, bos: int):
    """evaluate, metrics/perplexity: the arithmetic mean of perplexities of texts cut to ctx - 1 behind a BOS."""
    return np.mean([math.exp(losses([bos, *d[: ctx - 1]]).mean()) for d in documents])


def llama_cpp(losses: Losses, document: Sequence[int], ctx: int):
    """llama-perplexity without BOS: chunks side by side, each scored behind its middle."""
    chunks = [document[i * ctx : (i + 1) * ctx] for i in range(len(document) // ctx)]
    return math.exp(np.concatenate([losses(chunk)[ctx // 2 :] for chunk in chunks]).mean())


def llama_cpp_stride(losses: Losses, document: Sequence[int], ctx: int, stride: int):
    """llama-perplexity --ppl-stride: half a stride more context, and of each window the last `stride` tokens."""
    ctx += stride // 2
    windows = (document[i * stride : i * stride + ctx] for i in count())
    found = []
    for window in windows:
        if len(window) < ctx:
            return math.exp(np.concatenate(found).mean())
        found.append(losses(window)[-stride:])
