"""The command `neuron`."""

from neurond.cli.run import main

__all__ = ["main"]
