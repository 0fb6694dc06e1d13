"""Everything about a model's text: its tokenizer and its chat template."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cortex_core.canonical import (
    MAX_PARTS,
    MAX_TOOLS,
    ChatPrompt,
    MediaPart,
    Prompt,
    TextPart,
    TextPrompt,
    TokensPrompt,
    ToolResultPart,
)
from cortex_core.errors import InvalidRequest
from cortex_core.neuron_api import ReasoningParserName, ToolParserName
from neurond.sources.prepared import CHAT_TEMPLATE, PreparedModel
from neurond.text.parsing.answer_format import AnswerFormat
from neurond.text.parsing.families import recognised
from neurond.text.template import ChatTemplate, Rendered
from neurond.text.tokenizer import ModelTokenizer
from neurond.text.vocabulary import check_token_ids

SMALL_PROMPT_CHARS: Final = 1500
SMALL_PROMPT_PARTS: Final = 16
SMALL_PROMPT_TOKENS: Final = 16_384
"""A prompt up to these is rendered and tokenised within about a millisecond."""


class ModelText:
    """One model's way from prompts to token ids. Immutable; used from any thread.

    Attributes:
        prepared: the model's manifest.
        tokenizer: also has the way back to text.
        answers: how it writes thoughts and calls; None where it has no template.
        folder: where it lies on disk.
    """

    def __init__(
        self,
        prepared: PreparedModel,
        tokenizer: ModelTokenizer,
        template: ChatTemplate | None,
        answers: AnswerFormat | None = None,
        folder: Path | None = None,
    ) -> None:
        self.prepared = prepared
        self.folder = folder
        self.tokenizer = tokenizer
        self.answers = answers
        self._template = template

    @classmethod
    def read(
        cls,
        folder: Path,
        prepared: PreparedModel,
        template: str | None,
        tokenizer: ModelTokenizer | None = None,
        *,
        tool_parser: ToolParserName | None = None,
        reasoning_parser: ReasoningParserName | None = None,
    ) -> "ModelText":
        """Read a prepared folder.

        Args:
            folder: the prepared folder.
            prepared: its manifest.
            template: Jinja text that replaces the model's own.
            tokenizer: the model's, where it has been read before.
            tool_parser: None is the one that the template tells.
            reasoning_parser: None is the one that the template tells.

        Raises:
            ModelLoadFailed: the tokenizer cannot be read.
            InvalidRequest: the template is no valid Jinja.
        """
        own = folder / CHAT_TEMPLATE
        source = template or (own.read_text(encoding="utf-8") if own.exists() else None)
        tokenizer = tokenizer or ModelTokenizer.read(folder, prepared)
        if source is None:
            return cls(prepared, tokenizer, None)
        special = {"bos_token": prepared.bos_token or "", "eos_token": prepared.eos_token or ""}
        compiled = ChatTemplate(
            source,
            model=prepared.model_id,
            special_tokens=special,
            placeholder=prepared.images.placeholder if prepared.images is not None else None,
            image_token=prepared.images.token if prepared.images is not None else None,
        )
        if not prepared.generates:
            return cls(prepared, tokenizer, compiled)
        parsers = recognised(
            source,
            tokenizer.pieces.added_tokens,
            knows_tools=compiled.knows_tools,
            tools=tool_parser,
            reasoning=reasoning_parser,
        )
        answers = AnswerFormat(parsers, tokenizer.pieces)
        return cls(prepared, tokenizer, compiled, answers, folder)

    def token_ids(self, prompt: Prompt) -> list[int]:
        """Return a prompt's token ids.

        Raises:
            InvalidRequest: the model has no chat template, the template refuses the
                conversation, it has more than `MAX_PARTS` or `MAX_TOOLS` or is nested too deeply, a
                token is not in the vocabulary, or there are no tokens at all.
            WrongModality: the prompt has more than text.
            InternalError: the template fails.
        """
        return self.checked(self._ids(prompt), prompt)

    def rendered(self, prompt: ChatPrompt) -> Rendered:
        """Return a conversation as text, with a placeholder for each image.

        Raises:
            CortexError: as `token_ids`.
        """
        if self._template is None:
            raise InvalidRequest(
                f"cannot chat with {self.prepared.model_id}: it has no chat template; use "
                "completions, or set chat_template for it in models.toml or neuron.toml",
                param="messages",
            )
        _check_parts(prompt)
        parser = self.answers.parsers.tools if self.answers is not None else "none"
        try:
            return self._template.render(prompt, tool_parser=parser)
        except RecursionError as ex:
            raise InvalidRequest(
                "cannot render the conversation: its tools, arguments of calls or "
                "chat_template_kwargs are nested too deeply",
                param="messages",
            ) from ex

    def ids_with_images(self, rendered: Rendered, texts: Sequence[str]) -> list[int]:
        """Return the ids of a conversation with `texts` in place of its placeholders."""
        assert self.prepared.images is not None, "a model of text got images"
        pieces = rendered.text.split(self.prepared.images.placeholder)
        whole = "".join(text for pair in zip(pieces, (*texts, ""), strict=True) for text in pair)
        return self.tokenizer.encode_rendered(whole)

    def checked(self, ids: list[int], prompt: Prompt) -> list[int]:
        """Return a prompt's ids; raises `InvalidRequest` where the model cannot take them."""
        if not ids:
            raise InvalidRequest(
                "cannot generate: the prompt has no tokens", param=param_of(prompt)
            )
        beyond = self.tokenizer.beyond_model(ids)
        if beyond is not None:
            raise InvalidRequest(
                f"cannot generate: the prompt has {beyond!r}, a token that is not in the model's "
                f"vocabulary of {self.prepared.vocab_size}; leave it out",
                param=param_of(prompt),
            )
        return ids

    def input_ids(self, prompt: TextPrompt | TokensPrompt, *, param: str) -> list[int]:
        """Return an input's token ids for a vector: text with the special tokens around it.

        Raises:
            InvalidRequest: a token is not in the vocabulary, or there is none.
        """
        if isinstance(prompt, TextPrompt):
            ids = self.tokenizer.encode_whole(prompt.text)
        else:
            ids = list(prompt.token_ids)
            check_token_ids(ids, self.prepared.vocab_size, param=param)
        beyond = self.tokenizer.beyond_model(ids)
        if not ids or beyond is not None:
            why = "it has no tokens" if beyond is None else f"{beyond!r} is not in the vocabulary"
            raise InvalidRequest(f"cannot embed: {param}: {why}", param=param)
        return ids

    def _ids(self, prompt: Prompt) -> list[int]:
        match prompt:
            case TextPrompt(text):
                return self.tokenizer.encode_text(text)
            case TokensPrompt(token_ids):
                check_token_ids(token_ids, self.prepared.vocab_size, param="prompt")
                return list(token_ids)
            case ChatPrompt():
                return self.tokenizer.encode_rendered(self.rendered(prompt).text)


def is_small(prompt: Prompt) -> bool:
    """Whether turning the prompt into ids takes about a millisecond at most."""
    match prompt:
        case TokensPrompt(token_ids):
            return len(token_ids) <= SMALL_PROMPT_TOKENS
        case TextPrompt(text):
            return len(text) <= SMALL_PROMPT_CHARS
        case ChatPrompt():
            plain = not prompt.tools and not prompt.template_kwargs
            few = plain and _num_parts(prompt) <= SMALL_PROMPT_PARTS
            return few and _chars(prompt) <= SMALL_PROMPT_CHARS


def _chars(prompt: ChatPrompt) -> float:
    """Return the characters of a conversation; without end where some of it is not text."""
    chars = 0
    for message in prompt.messages:
        chars += len(message.name or "")
        for part in message.content:
            if not isinstance(part, TextPart):
                return math.inf
            chars += len(part.text)
    return chars


def has_images(prompt: Prompt) -> bool:
    """Tell whether a prompt has images."""
    if not isinstance(prompt, ChatPrompt):
        return False
    parts = [part for message in prompt.messages for part in message.content]
    parts += [inner for part in parts if isinstance(part, ToolResultPart) for inner in part.content]
    return any(isinstance(part, MediaPart) and part.kind == "image" for part in parts)


def _num_parts(prompt: ChatPrompt) -> int:
    return sum(max(1, len(message.content)) for message in prompt.messages)


def _check_parts(prompt: ChatPrompt) -> None:
    num_parts = _num_parts(prompt)
    if num_parts > MAX_PARTS:
        raise InvalidRequest(
            f"cannot render the conversation: its messages have {num_parts} parts, {MAX_PARTS} is "
            "the most; join or leave out some",
            param="messages",
        )
    if len(prompt.tools) > MAX_TOOLS:
        raise InvalidRequest(
            f"cannot render the conversation: it has {len(prompt.tools)} tools, {MAX_TOOLS} is the "
            "most",
            param="tools",
        )


def param_of(prompt: Prompt) -> str:
    """Return the field of a request that a prompt of this kind came in."""
    return "messages" if isinstance(prompt, ChatPrompt) else "prompt"
