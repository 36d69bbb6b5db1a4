"""Texts, documents, windows."""
