"""Small language models with any encoding of position, and the encodings as parts of them."""
