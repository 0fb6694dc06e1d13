"""The body of `POST /v1/messages` by its wire names."""

from typing import Any, Final

import msgspec

from cortex_core.canonical import JsonObject, ResponseFormat
from cortex_core.dialects.anthropic_content import TextBlock
from cortex_core.dialects.anthropic_thinking import Thinking
from cortex_core.dialects.anthropic_tools import WireTool, WireToolChoice
from cortex_core.dialects.anthropic_turns import WireMessage
from cortex_core.dialects.reading import refuse
from cortex_core.errors import ThreadUnsupported


class Metadata(msgspec.Struct, frozen=True):
    user_id: str | None = None


class OutputFormat(msgspec.Struct, frozen=True):
    type: str
    schema: JsonObject | None = None


class OutputConfig(msgspec.Struct, frozen=True):
    effort: str | None = None
    format: OutputFormat | None = None
    task_budget: Any = None


class MessagesBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body; fields that are not here change nothing in an answer and are passed over.

    Of a field that may be anything, only its presence is looked at.
    """

    model: str
    messages: list[WireMessage]
    max_tokens: int | None = None
    stream: bool | None = None
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    tools: list[WireTool] | None = None
    tool_choice: WireToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """What `output_config.format` was called before."""
    metadata: Metadata | None = None
    context_management: Any = None
    container: Any = None
    fallbacks: Any = None
    mcp_servers: Any = None
    compaction: Any = None
    thread: Any = None


_LEFT_OUT: Final = ("container", "fallbacks", "mcp_servers")
"""What only Anthropic's servers have; the rest of the request makes sense without."""


def is_given(value: Any) -> bool:
    """Whether a field is there and says something."""
    return value not in (None, [], {})


def check_served(body: MessagesBody) -> None:
    """Raise `InvalidRequest` where an answer would be another one than was asked for."""
    if is_given(body.compaction):
        why = "conversations are not summed up here; ask for a summary in a message"
        raise refuse("compaction", why)
    if is_given(body.thread):
        # The SDKs' tool runners ask for one by themselves, and know this error by its code.
        raise ThreadUnsupported(
            "cannot read request: thread: conversations are not kept here; send all of their "
            "messages",
            param="thread",
        )


def left_out(body: MessagesBody) -> list[str]:
    """Return the JSON paths of fields that ask for what nobody here can do."""
    names = [name for name in _LEFT_OUT if is_given(getattr(body, name))]
    if body.output_config is not None and is_given(body.output_config.task_budget):
        names.append("output_config.task_budget")
    return names


def format_from(body: MessagesBody) -> ResponseFormat | None:
    """Return the form that the answer is to be held to.

    Raises:
        InvalidRequest: naming the field, for one that is not known.
    """
    wanted, place = body.output_format, "output_format"
    if body.output_config is not None and body.output_config.format is not None:
        wanted, place = body.output_config.format, "output_config.format"
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        raise refuse(f"{place}.type", f"expected json_schema, got {wanted.type!r}")
    if wanted.schema is None:
        raise refuse(f"{place}.schema", "this field is required")
    return ResponseFormat(kind="json_schema", schema=wanted.schema)
