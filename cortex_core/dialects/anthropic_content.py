"""Content blocks of an Anthropic request: wire types, and their canonical parts."""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from cortex_core.canonical import JsonObject, MediaPart, TextPart
from cortex_core.dialects.anthropic_skipped import BrowserStateBlock, ServerBlock
from cortex_core.dialects.anthropic_tools import ToolAdditionBlock, ToolRemovalBlock
from cortex_core.dialects.media import media_from_base64, media_from_url
from cortex_core.dialects.reading import refuse

Content = TextPart | MediaPart


class TextBlock(msgspec.Struct, frozen=True, tag="text"):
    text: str


class Base64Source(msgspec.Struct, frozen=True, tag="base64"):
    data: str
    media_type: str | None = None


class UrlSource(msgspec.Struct, frozen=True, tag="url"):
    url: str


class TextSource(msgspec.Struct, frozen=True, tag="text"):
    data: str


class FileSource(msgspec.Struct, frozen=True, tag="file"):
    file_id: str


class ImageBlock(msgspec.Struct, frozen=True, tag="image"):
    source: Base64Source | UrlSource | FileSource


class ContentSource(msgspec.Struct, frozen=True, tag="content"):
    content: str | list[TextBlock | ImageBlock]


class DocumentBlock(msgspec.Struct, frozen=True, tag="document"):
    source: Base64Source | UrlSource | FileSource | TextSource | ContentSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(msgspec.Struct, frozen=True, tag="search_result"):
    source: str
    title: str
    content: list[TextBlock]


class ToolReferenceBlock(msgspec.Struct, frozen=True, tag="tool_reference"):
    tool_name: str


ResultBlock = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ToolReferenceBlock
    | BrowserStateBlock
)


class ThinkingBlock(msgspec.Struct, frozen=True, tag="thinking"):
    thinking: str
    signature: str | None = None


class ToolUseBlock(msgspec.Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: JsonObject | None = None


class ToolResultBlock(msgspec.Struct, frozen=True, tag="tool_result"):
    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


class MidConversationSystemBlock(msgspec.Struct, frozen=True, tag="mid_conv_system"):
    content: str | list[TextBlock]


class CompactionBlock(msgspec.Struct, frozen=True, tag="compaction"):
    """What a server summed up earlier turns to; without content it says nothing."""

    content: str | None = None


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | MidConversationSystemBlock
    | CompactionBlock
    | ToolAdditionBlock
    | ToolRemovalBlock
    | ServerBlock
)


def num_blocks(content: str | Sequence[Block | ResultBlock] | None) -> int:
    """Return the number of blocks, those inside of others with them; text and nothing are one."""
    if content is None or isinstance(content, str):
        return 1
    return max(1, sum(map(_num_blocks_in, content)))


def _num_blocks_in(block: Block | ResultBlock) -> int:
    match block:
        case (
            ToolResultBlock(content=list() as inner)
            | MidConversationSystemBlock(content=list() as inner)
            | SearchResultBlock(content=inner)
            | DocumentBlock(source=ContentSource(content=list() as inner))
        ):
            return num_blocks(inner)
        case _:
            return 1


def text_parts(content: str | list[TextBlock] | None) -> tuple[TextPart, ...]:
    """Return text that may come plain or as blocks; each block stays a part of its own."""
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    return tuple(TextPart(block.text) for block in content)


def result_parts(content: str | list[ResultBlock] | None, *, place: str) -> tuple[Content, ...]:
    """Return what a tool answered.

    Raises:
        InvalidRequest: naming the block under `place` that cannot be read.
    """
    if content is None or isinstance(content, str):
        return (TextPart(content),) if content else ()
    parts: list[Content] = []
    for index, block in enumerate(content):
        parts.extend(block_parts(block, place=f"{place}[{index}]"))
    return tuple(parts)


def block_parts(block: ResultBlock, *, place: str) -> Iterator[Content]:
    """Yield the canonical parts of a block of text or media.

    Raises:
        InvalidRequest: naming the field under `place` that cannot be read.
    """
    match block:
        case TextBlock(text=text):
            yield TextPart(text)
        case ImageBlock(source=source):
            yield _media("image", source, f"{place}.source")
        case DocumentBlock():
            yield from _document(block, place)
        case SearchResultBlock(source=source, title=title, content=content):
            yield TextPart(f"{title}\n{source}")
            yield from text_parts(content)
        case ToolReferenceBlock(tool_name=tool_name):
            yield TextPart(tool_name)
        case BrowserStateBlock():
            pass


def _document(block: DocumentBlock, place: str) -> Iterator[Content]:
    heading = "\n".join(text for text in (block.title, block.context) if text)
    if heading:
        yield TextPart(heading)
    match block.source:
        case TextSource(data=text):
            yield TextPart(text)
        case ContentSource(content=str() as text):
            yield TextPart(text)
        case ContentSource(content=list() as blocks):
            for index, inner in enumerate(blocks):
                yield from block_parts(inner, place=f"{place}.source.content[{index}]")
        case Base64Source() | UrlSource() | FileSource() as source:
            yield _media("file", source, f"{place}.source")


def _media(
    kind: Literal["image", "file"], source: Base64Source | UrlSource | FileSource, place: str
) -> MediaPart:
    match source:
        case Base64Source(data=data, media_type=media_type):
            return media_from_base64(kind, media_type, data, place=f"{place}.data")
        case UrlSource(url=url):
            return media_from_url(kind, url, place=f"{place}.url")
        case FileSource():
            raise refuse(f"{place}.file_id", "no files are stored here; send the data itself")
