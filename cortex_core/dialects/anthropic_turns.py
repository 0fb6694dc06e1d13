"""Messages of an Anthropic request as canonical turns."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from cortex_core.canonical import (
    Message,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from cortex_core.dialects.anthropic_content import (
    Block,
    CompactionBlock,
    MidConversationSystemBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    block_parts,
    num_blocks,
    result_parts,
    text_parts,
)
from cortex_core.dialects.anthropic_skipped import SkippedBlock
from cortex_core.dialects.anthropic_thinking import sealed_thought
from cortex_core.dialects.anthropic_tools import ToolAdditionBlock, ToolChange, ToolRemovalBlock
from cortex_core.dialects.fields import check_num_parts
from cortex_core.dialects.reading import refuse, write_json

WireRole = Literal["user", "assistant", "system", "ctx", "msg"]

# Claude Code puts system text inside the conversation under each of the last three names.
_ROLES: dict[WireRole, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "ctx": "system",
    "msg": "system",
}


BILLING_LINE = "x-anthropic-billing-header:"
"""How Claude Code begins its system text: a line for Anthropic's books that says nothing to a model
and changes from request to request. Keys and values of a token depend on every token before it, so
with this line in front no prompt would ever have a beginning that is in a prefix cache."""


class TurnConfig(msgspec.Struct, frozen=True):
    effort: str | None = None


class WireMessage(msgspec.Struct, frozen=True):
    role: WireRole
    content: str | list[Block] | None = None
    clear_at: Literal["next_user_message", "never"] | None = None
    """Of a system message: until when the model is shown it."""
    output_config: TurnConfig | None = None
    """Of a system message: what holds instead until the next user message."""


class Turns:
    """The conversation, with what its messages say about the rest of the request.

    Attributes:
        ignored: JSON paths of blocks that were left out.
        tool_changes: blocks that change the tools, by their JSON paths.
        effort: what the last turn wants instead of the request's own.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ignored: list[str] = []
        self.tool_changes: dict[str, ToolChange] = {}
        self.effort: str | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the last turn is the assistant's and its text is to be continued."""
        if not self.messages or self.messages[-1].role != "assistant":
            return False
        parts = self.messages[-1].content
        last = parts[-1]
        calls = any(isinstance(part, ToolCallPart) for part in parts)
        return isinstance(last, TextPart) and bool(last.text) and not calls

    def add_system(
        self, system: str | list[TextBlock] | None, *, drop_billing_line: bool = True
    ) -> None:
        """Add the text that stands before the conversation, maybe without `BILLING_LINE`."""
        parts = text_parts(system)
        if drop_billing_line and parts and parts[0].text.startswith(BILLING_LINE):
            _, _, rest = parts[0].text.partition("\n")
            parts = (TextPart(rest), *parts[1:]) if rest else parts[1:]
        if parts:
            self.messages.append(Message(role="system", content=parts))

    def add(self, wire: WireMessage, place: str) -> None:
        """Add a message; tool results and system text inside it become turns of their own.

        Raises:
            InvalidRequest: naming the block that cannot be read, or not under this role.
        """
        role = _ROLES[wire.role]
        if wire.content is None or isinstance(wire.content, str):
            text = wire.content or ""
            if role == "system" and not text:
                return
            self.messages.append(Message(role=role, content=(TextPart(text),)))
            return
        run: list[Part] = []
        for index, block in enumerate(wire.content):
            block_place = f"{place}.content[{index}]"
            own_turn = self._own_turn(block, role, block_place)
            if own_turn is None:
                run.extend(self._parts(block, role, block_place))
                continue
            self._close(run, role)
            self.messages.append(own_turn)
        self._close(run, role)

    def _close(self, run: list[Part], role: Role) -> None:
        if run:
            self.messages.append(Message(role=role, content=tuple(run)))
            run.clear()

    def _own_turn(self, block: Block, role: Role, place: str) -> Message | None:
        match block:
            case ToolResultBlock(tool_use_id=call_id, content=content, is_error=is_error):
                if role != "user":
                    raise refuse(place, "tool_result blocks stand only in user messages")
                parts = result_parts(content, place=f"{place}.content")
                result = ToolResultPart(call_id, parts, is_error=bool(is_error))
                return Message(role="tool", content=(result,))
            case MidConversationSystemBlock(content=content):
                return Message(role="system", content=text_parts(content))
            case _:
                return None

    def _parts(self, block: Block, role: Role, place: str) -> Iterator[Part]:
        match block:
            case ToolUseBlock(id=call_id, name=name, input=arguments):
                if role != "assistant":
                    raise refuse(place, "tool_use blocks stand only in assistant messages")
                yield ToolCallPart(call_id, name, write_json(arguments or {}).decode())
            case ThinkingBlock(thinking=text, signature=signature):
                thought = text or sealed_thought(signature)
                if thought:
                    yield ReasoningPart(thought, signature or None)
                else:
                    self.ignored.append(place)
            case CompactionBlock(content=text):
                if text:
                    yield TextPart(text)
            case ToolAdditionBlock() | ToolRemovalBlock():
                self.tool_changes[place] = block
            case SkippedBlock():
                self.ignored.append(place)
            case ToolResultBlock() | MidConversationSystemBlock():
                raise AssertionError("these blocks are turns of their own")
            case _:
                yield from block_parts(block, place=place)


def turns_from(
    system: str | list[TextBlock] | None,
    messages: list[WireMessage],
    *,
    drop_billing_line: bool = True,
) -> Turns:
    """Return the conversation as the client ordered it, with `system` first.

    `drop_billing_line` leaves out the line that begins with `BILLING_LINE`.

    Raises:
        InvalidRequest: there are no messages, too many, only ones of which nothing is left, or one
            of them cannot be read.
    """
    if not messages:
        raise refuse("messages", "expected at least one message")
    num_before = num_blocks(system) if system else 0
    check_num_parts(num_before + sum(num_blocks(each.content) for each in messages))
    turns = Turns()
    turns.add_system(system, drop_billing_line=drop_billing_line)
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    last_user = users[-1] if users else -1
    for index, message in enumerate(messages):
        over = index < last_user
        if over and message.clear_at == "next_user_message":
            continue
        if not over and message.output_config is not None:
            turns.effort = message.output_config.effort or turns.effort
        turns.add(message, f"messages[{index}]")
    if not turns.messages:
        raise refuse("messages", "expected at least one message that says something")
    return turns
