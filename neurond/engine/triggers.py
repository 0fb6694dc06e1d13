"""Where a grammar begins to hold an answer that is free before: behind tokens. Pure.

The device holds there, and who reads the answer knows from the same tokens where it did.
"""

from __future__ import annotations

import msgspec

from cortex_core.canonical import ResponseFormat


class Triggers(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens behind which an answer is held until the form is whole, and free again behind it."""

    token_ids: tuple[int, ...]
    thoughts: tuple[int, int] | None = None
    """Tokens that open and close thoughts, in which nothing is triggered; None: it is anywhere."""
    thinks: bool = False
    """The answer begins in thoughts."""


class DeviceFormat(ResponseFormat, frozen=True, omit_defaults=True):
    """What the device is asked to hold an answer to; the whole of it where there are no triggers.

    With triggers it is a favour: what cannot be held to is free.
    """

    triggers: Triggers | None = None


class TriggerWatch:
    """Follows the tokens of one answer, of which those that are held trigger nothing."""

    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers
        self._thinks = triggers.thinks

    def fork(self) -> TriggerWatch:
        """Return one in the same state, for another answer."""
        return TriggerWatch(msgspec.structs.replace(self._triggers, thinks=self._thinks))

    def takes(self, token_id: int) -> bool:
        """Take the next token; return whether what follows it is held."""
        triggers = self._triggers
        if triggers.thoughts is not None and token_id in triggers.thoughts:
            self._thinks = token_id == triggers.thoughts[0]
        return token_id in triggers.token_ids and not self._thinks
