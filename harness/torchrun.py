"""Who this process is under torchrun, by its environment alone."""

import os
import socket

VARIABLES = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # as torchrun sets


def rank() -> int:
    """The number of this process among those of the run; 0 is the one that prints, draws and writes results."""
    return _number("RANK", 0)


def size() -> int:
    """Processes of this run; 1 without torchrun."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """The number of this process on its machine: the GPU that it computes on."""
    return _number("LOCAL_RANK", 0)


def local_size() -> int:
    """Processes of this run on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def name() -> str:
    """This process in messages."""
    return f"rank {rank()} of {size()} on {socket.gethostname()}"


def _number(variable: str, alone: int) -> int:
    return int(os.environ[variable]) if os.environ.keys() >= VARIABLES else alone
