"""Attention calls sent to functions of ours."""
