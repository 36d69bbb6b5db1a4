"""Under torchrun."""
