"""Canonical events as answers of `POST /v1/completions`."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    Loading,
    Ping,
    PromptScored,
    ReasoningDelta,
    Started,
    TextDelta,
    TextPrompt,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStarted,
)
from cortex_core.dialects.base import Decoded
from cortex_core.dialects.collector import Answer, Choice, Collector
from cortex_core.dialects.keepalive import keepalive_comment
from cortex_core.dialects.openai_answers import FINISH_REASONS, UsageBody, usage_json
from cortex_core.dialects.openai_chunks import DONE, ChunkFrame
from cortex_core.dialects.openai_errors import error_frame
from cortex_core.dialects.sse import json_text
from cortex_core.errors import ProtocolError


class TextLogprobs(msgspec.Struct, frozen=True):
    """`text_offset` counts characters from the begin of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """None for the first token of a prompt, behind nothing."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(msgspec.Struct, frozen=True):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str


class CompletionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a completion that is not streamed."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoice]
    usage: UsageBody


class TextOffsets:
    """Where the tokens of one choice begin in its text, which their own texts do not add up to: of
    a character that is spread over several tokens each begins where the character does.
    """

    def __init__(self, begin_chars: int = 0) -> None:
        """`begin_chars` is where the first token would begin, negative before the text."""
        self._chars = begin_chars
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, token: TokenLogprob) -> int:
        """Take the next token; return where it begins, in characters."""
        begin_chars = max(0, self._chars)
        self._chars += len(self._decoder.decode(token.spelled))
        return begin_chars


class CompletionEncoder:
    """One response, as a stream or as a whole.

    What a chat would call reasoning is text here: the dialect knows nothing else.
    """

    def __init__(self, decoded: Decoded, *, created: int) -> None:
        self._decoded = decoded
        self._created = created
        self._id = f"cmpl-{decoded.request.request_id}"
        self._frame = ChunkFrame(
            decoded, chunk_id=self._id, kind="text_completion", created=created
        )
        self._scores_prompt = decoded.request.sampling.scores_prompt
        self._echoed = _echoed(decoded)
        self._offsets = [TextOffsets() for _ in range(decoded.choices)]
        self._begun = [False] * decoded.choices
        self._collector = Collector(choices=decoded.choices)

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`."""
        match event:
            case TextDelta() | ReasoningDelta():
                return self._text(event)
            case Finished(index=index, reason=reason):
                return self._frame.chunk(index, b'"text":""', finish=reason)
            case Started():
                return self._start(event)
            case Completed(usage=usage):
                last = self._frame.usage_chunk(usage) if self._decoded.include_usage else b""
                return last + DONE
            case Failed(error=error):
                return error_frame(error, request_id=self._decoded.request.request_id)
            case PromptScored():
                return self._echo(event)
            case Ping() | Loading():
                return keepalive_comment(event)
            case ToolCallStarted() | ToolCallDelta():
                raise ProtocolError("cannot encode a tool call: completions have no tools")

    def _start(self, event: Started) -> bytes:
        self._frame.start(event)
        if self._scores_prompt:
            return b""  # the prompt comes with its scores
        texts = [b'"text":' + json_text(text) for text in self._echoed if text]
        return b"".join(self._frame.chunk(index, text) for index, text in enumerate(texts))

    def _text(self, event: TextDelta | ReasoningDelta) -> bytes:
        logprobs = event.logprobs if isinstance(event, TextDelta) else ()
        if not event.text and not logprobs:
            return b""
        head = self._frame.head(event.index)
        delta = b'"text":' + json_text(event.text)
        if not logprobs:
            return head + delta + self._frame.open_tail
        chances = _logprobs(logprobs, self._offsets[event.index])
        return self._frame.chunk(event.index, delta, logprobs=chances)

    def _echo(self, event: PromptScored) -> bytes:
        """Return more of a prompt for each of its choices."""
        chunks: list[bytes] = []
        for index in range(event.index, event.index + self._decoded.request.n):
            text, begins = "", not self._begun[index]
            if begins:
                self._begun[index] = True
                text = self._echoed[index] or event.text
                self._offsets[index] = TextOffsets(_begin(text, event.scores))
            chances = _logprobs(event.scores, self._offsets[index], first=begins)
            delta = b'"text":' + json_text(text)
            chunks.append(self._frame.chunk(index, delta, logprobs=chances))
        return b"".join(chunks)

    def feed(self, event: Event) -> None:
        """Collect `event` for `body`."""
        self._collector.feed(event)

    def body(self) -> bytes:
        """Return the whole answer as JSON."""
        answer = self._collector.answer()
        whole = CompletionAnswer(
            id=self._id,
            created=self._created,
            model=self._decoded.model,
            system_fingerprint=answer.started.weights_id,
            choices=[
                _choice(index, choice, self._echoed[index], self._scored(answer, index))
                for index, choice in enumerate(answer.choices)
            ],
            usage=usage_json(answer.usage),
        )
        return msgspec.json.encode(whole)

    def _scored(self, answer: Answer, index: int) -> Choice:
        """Return the choice that has the scores of the prompt of choice `index`."""
        return answer.choices[index - index % self._decoded.request.n]


def _echoed(decoded: Decoded) -> list[str]:
    """Return for each choice the text that it begins with, empty where none was asked for."""
    if not decoded.echo:
        return [""] * decoded.choices
    prompts = (decoded.request.prompt, *decoded.further_prompts)
    texts = [prompt.text if isinstance(prompt, TextPrompt) else "" for prompt in prompts]
    return [text for text in texts for _ in range(decoded.request.n)]


def _choice(index: int, choice: Choice, echoed: str, scored: Choice) -> TextChoice:
    if choice.calls:
        raise ProtocolError("cannot encode a tool call: completions have no tools")
    scores, echoed = scored.prompt_scores, echoed or scored.prompt_text
    text = echoed + "".join(run.text for run in choice.runs)
    told = [*scores, *choice.logprobs]
    offsets = TextOffsets(_begin(echoed, scores))
    logprobs = _logprobs(told, offsets, first=bool(scores)) if told else None
    return TextChoice(index, text, logprobs, FINISH_REASONS[choice.finished.reason])


def _begin(echoed: str, scores: Sequence[TokenLogprob]) -> int:
    """Return where the first token begins: before the text where that has it not, as begin tokens
    are not echoed.
    """
    if not echoed or not scores or echoed.encode().startswith(scores[0].spelled):
        return 0
    return -len(scores[0].text)


def _logprobs(
    logprobs: Iterable[TokenLogprob], offsets: TextOffsets, *, first: bool = False
) -> TextLogprobs:
    """Return tokens in the dialect's form; `first` says that a prompt begins with them."""
    found = TextLogprobs([], [], [], [])
    for each in logprobs:
        found.tokens.append(each.text)
        found.token_logprobs.append(None if first else each.logprob)
        found.top_logprobs.append(None if first else _by_text(each.top))
        found.text_offset.append(offsets.take(each))
        first = False
    return found


def _by_text(top: Iterable[TokenLogprob]) -> dict[str, float]:
    # The form has one place per text: of two tokens with equal text the likelier one stays.
    likeliest: dict[str, float] = {}
    for each in top:
        likeliest.setdefault(each.text, each.logprob)
    return likeliest
