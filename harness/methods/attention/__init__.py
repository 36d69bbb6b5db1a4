"""Methods that change attention."""
