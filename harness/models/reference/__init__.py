"""The embedded reference model: weights, tokenizer, configuration; MODEL_CARD.md says how they were made."""
