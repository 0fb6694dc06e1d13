"""Tokens to text, one at a time. Pure."""

import codecs

from neurond.text.pieces import TokenPieces

_utf8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """The text of one choice as it grows.

    Whatever `push` returned, together with a final `flush`, is the UTF-8 text of all tokens'
    bytes, with U+FFFD for what is none. A character whose bytes are spread over several tokens
    comes with its last byte. The text continues a prompt, so a leading space is kept. Work per
    token does not grow with the length of the text.
    """

    def __init__(self, pieces: TokenPieces) -> None:
        self._pieces = pieces
        self._decoder = _utf8("replace")
        self.holds_bytes = False
        """The last token ended within a character."""

    def push(self, token_id: int) -> str:
        """Take the next token; returns the text that is certain now, often empty."""
        piece = self._pieces.piece(token_id)
        # The decoder is Python code; most tokens have no need of it.
        if piece.isascii() and not self.holds_bytes:
            return piece.decode("ascii")
        text = self._decoder.decode(piece)
        self.holds_bytes = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        """Return what stands for the bytes of an unfinished character, at the end of a choice."""
        return self._decoder.decode(b"", final=True)
