"""LongRoPE's evolutionary search for rescale factors (arXiv:2402.13753), and LongRoPE2's variant (arXiv:2502.20082)."""
