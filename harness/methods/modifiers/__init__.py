"""What combines with any method."""
