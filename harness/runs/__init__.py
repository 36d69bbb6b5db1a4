"""Cells computed, here or elsewhere."""
