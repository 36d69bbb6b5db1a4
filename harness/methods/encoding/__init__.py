"""Encodings that must be trained."""
