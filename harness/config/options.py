"""The command lines of compare and report."""

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as every command does, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        print(f"error: {' '.join(message.split())} (--help lists what there is)", file=sys.stderr)
        sys.exit(2)
