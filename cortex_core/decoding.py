"""What decoding of bytes that someone else wrote may raise."""

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
"""For `except`: bytes are no JSON or msgpack, not of the type asked for, or hold text that is not
UTF-8, for which msgspec has no error of its own. Nesting that is too deep is a RecursionError, left
to those who read what clients send.
"""
