"""Rotary modules."""
