"""What decoding of bytes that someone else wrote may raise."""

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""For `except`: bytes are no JSON or msgpack, not of the type asked for, or hold text that is not
UTF-8 or nesting that is too deep, for which msgspec has no errors of its own.
"""
