"""Hydra finds sweepers and launchers in the namespace package hydra_plugins."""
