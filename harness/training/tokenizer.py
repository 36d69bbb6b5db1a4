"""The byte-level BPE of a fresh model."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.errors import UserError

END_OF_TEXT = "<|endoftext|>"
SMALLEST = 257  # every byte, and END_OF_TEXT


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocab_size` tokens (Sennrich et al. 2016, arXiv:1508.07909), the same for the same texts.

    Any text survives encoding and decoding. END_OF_TEXT, token 0, is both BOS and EOS: training puts it before
    every book. Encoding adds no special token by itself.
    """
    if vocab_size < SMALLEST:
        raise UserError(f"train.model.vocab_size must be >= {SMALLEST} (all bytes), got {vocab_size}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
