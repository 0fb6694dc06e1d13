"""Reading configuration files into frozen structs, with errors that say what to change."""

from cortex_core.config.address import Address, parse_address
from cortex_core.config.reader import read_config

__all__ = ["Address", "parse_address", "read_config"]
