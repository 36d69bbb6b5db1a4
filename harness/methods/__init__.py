"""Scaling methods: one file each, registered in METHODS."""
