"""Units and bounds that configurations, the node's API and clients' requests have in common."""

from typing import Final

MIB: Final = 1024 * 1024
MAX_COUNT: Final = 2**31 - 1
"""The most of anything that a profile, an operator or a client may name. A client's larger value
means the same and is lowered to it; what it comes to in bytes has 64 bits."""
