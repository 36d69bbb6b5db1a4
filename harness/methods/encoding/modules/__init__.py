"""Encodings as parts of a model."""
