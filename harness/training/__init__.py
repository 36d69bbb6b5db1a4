"""Training: books, tokenizer, windows of the token stream, and the run itself."""
