"""Losses per token in bounded memory."""
