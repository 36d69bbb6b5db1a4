"""What determines the tokens of a text: the state of the tokenizer that was loaded, whatever files it came from."""

from transformers import PreTrainedTokenizerBase

from harness.storage import cache

PROBE = (
    "The river, 340 feet long (built 1871), isn't old:  two spaces,\ttabs\r\n\n and line ends \n "
    "HTTP_Error404 camelCase x=1e-5; don't WE'LL I'M $1,234.56 https://a.b/c?d=e#f don\u2019t \u201cquoted\u201d "
    "\u2014 naïve façade süß ﬁne e\u0301 Ελληνικά русский עברית العربية हिन्दी ไทย 日本語の文章 中文 한국어 \u3000"
    "\u00a0\u200b\ufeff\u2028 🙂🏳️\u200d🌈 \U00010348 \x00\x07 def f(x):\n        return {x: [1, 2]}\n\n\n   "
)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Sixteen hex digits over its class, the state of its backend, the tokens of a probe, and its BOS and EOS.

    The probe holds what tokenizers treat in different ways, and the names of the special tokens. It comes first: to
    tokenize resets what of the state belongs to a call.
    """
    probe = PROBE + "".join(f" {token}{token} " for token in tokenizer.all_special_tokens)
    ids = tokenizer(probe, add_special_tokens=False, verbose=False)["input_ids"]
    backend = getattr(tokenizer, "backend_tokenizer", None)  # only fast ones have it; documents need a fast one
    state = backend.to_str() if backend is not None else tokenizer.get_vocab()
    return cache.digest([type(tokenizer).__name__, state, ids, tokenizer.bos_token_id, tokenizer.eos_token_id])
