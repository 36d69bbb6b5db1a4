"""Where bases break."""
