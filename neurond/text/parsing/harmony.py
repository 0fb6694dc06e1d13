"""OpenAI's harmony format: messages on channels (github.com/openai/harmony). Pure.

`<|channel|>analysis<|message|>…<|end|>` are thoughts; `final`, and `commentary` to nobody, are the
answer; `commentary to=functions.name <|constrain|>json<|message|>{…}<|call|>` is a call. Between
messages stands `<|start|>assistant`, where the recipient may stand too.
"""

import re
from typing import Final

from neurond.text.parsing.json_calls import told_call
from neurond.text.parsing.parser import AnswerParser
from neurond.text.parsing.reader import Markers, Steps
from neurond.text.parsing.segments import Malformed

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"
HARMONY_MARKERS: Final = frozenset({START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN})
_BODIES: Final = Markers(HARMONY_MARKERS)
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT: Final = re.compile(r"\bto=(?:functions\.)?([^\s<]+)")


class HarmonyParser(AnswerParser):
    """Parses answers on channels.

    Args:
        hidden: see `AnswerParser`.
        wants_calls: there are tools; otherwise a call is text.
        wants_reasoning: thoughts are told from the answer; otherwise they are text.
        held: calls are held to the format.
        keep_blanks: see `AnswerParser`.
    """

    def __init__(
        self,
        hidden: frozenset[str],
        *,
        wants_calls: bool,
        wants_reasoning: bool = True,
        held: bool = False,
        keep_blanks: bool = False,
    ) -> None:
        self._wants_calls = wants_calls
        self._wants_reasoning = wants_reasoning
        self._held = held
        super().__init__(hidden, keep_blanks=keep_blanks)

    def _answer(self) -> Steps[None]:
        # Where the prompt ends in a message, the answer begins in its body.
        marker = yield from self._body()
        while marker is not None:
            try:
                header = yield from self._header(marker)
            except Malformed:
                self._give_back()
                return
            marker = yield from self._message(header)

    def _header(self, marker: str) -> Steps[str]:
        return marker + (yield from self._reader.until(MESSAGE))

    def _message(self, header: str) -> Steps[str | None]:
        """Read a message's body; returns the marker that begins the next header."""
        recipient = _RECIPIENT.search(header)
        if recipient is not None and self._wants_calls:
            self._sink.expect(held=self._held)
            try:
                yield from told_call(self._reader, recipient.group(1), self._sink)
            except Malformed:
                yield from self._spoilt()
            else:
                self._reader.unmark()
        else:
            channel = _CHANNEL.search(header)
            thinks = channel is not None and channel.group(1) == "analysis"
            self._turn(thinks=thinks and self._wants_reasoning)
            self._reader.unmark()
        return (yield from self._body())

    def _body(self) -> Steps[str | None]:
        while (marker := (yield from self._prose(_BODIES))) is not None:
            if marker in (START, CHANNEL):
                return marker
            self._reader.unmark()
        return None
