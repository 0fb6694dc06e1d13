"""The command `cortex`."""

from cortexd.cli.run import main

__all__ = ["main"]
