"""Chat templates: sandboxed jinja2, with the environment that transformers gives them."""

import json
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cortex_core.canonical import ChatPrompt, JsonObject
from cortex_core.errors import CortexError, InternalError, InvalidRequest
from cortex_core.neuron_api import ToolParserName
from neurond.text.complete_tools import complete_tools
from neurond.text.described_tools import with_calls_as_text, with_described_tools
from neurond.text.image_marks import FoundImage, with_harmless_text, with_parts
from neurond.text.message_forms import forms
from neurond.text.messages import (
    END_MARK,
    TemplateMessage,
    reasoning_variables,
    template_messages,
    template_tools,
    with_end_marked,
    with_object_arguments,
    with_short_ids,
    with_text_arguments,
)
from neurond.text.shown_turns import shown_turns

T = TypeVar("T")
JINJA_FILE: Final = "<template>"
"""How jinja names the code it makes from a template that came as text."""
SHORT_IDS: Final = re.compile(r"length\s*!=\s*9")
"""What a template has that refuses other ids of calls."""
TOOLS_OF_TURN: Final = re.compile(r"message(\[['\"]|\.)tools\b")
"""What a template has that shows the tools of a turn."""
RESERVED: Final = frozenset({"messages", "tools", "add_generation_prompt"})
PROBE: Final = "a turn of text"


class Rendered(NamedTuple):
    """A conversation as text."""

    text: str
    images: tuple[FoundImage, ...] = ()
    """One for each placeholder in the text, in its order."""


class _Refused(jinja2.TemplateError):
    """The template called `raise_exception`: it does not take this conversation."""


class _Generation(Extension):
    """`{% generation %}` marks assistant text for training; here it is just its content."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A model's chat template, compiled. Rendering changes nothing and is safe between threads.

    Args:
        source: Jinja text.
        model: names the model in errors.
        special_tokens: `bos_token` and the like, as variables of the template.
        placeholder: what the template writes for an image; None where the model takes text only.
        image_token: what stands for an image in the prompt at last, where that is another text.
        now: the clock behind `strftime_now`.

    Raises:
        InvalidRequest: the text is no valid template; the message has the line.
    """

    def __init__(
        self,
        source: str,
        *,
        model: str,
        special_tokens: dict[str, str],
        placeholder: str | None = None,
        image_token: str | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._model = model
        self._placeholder = placeholder
        texts = {text for text in (placeholder, image_token) if text}
        self._image_texts = sorted(texts, key=len, reverse=True)  # one may have the other in it
        self._special_tokens = special_tokens
        self._wants_short_ids = SHORT_IDS.search(source) is not None
        self._takes_tools_in_turns = TOOLS_OF_TURN.search(source) is not None
        environment = _environment(now)
        self._functions = frozenset(environment.globals)
        self._template = _compiled(environment, source, model)
        self.knows_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
        self._knows_only_parts = placeholder is not None and not self._shows_text()
        self._shown = shown_turns(self._tried)

    def render(self, prompt: ChatPrompt, *, tool_parser: ToolParserName = "json") -> Rendered:
        """Return the prompt's text, up to where the assistant's answer begins or goes on.

        Where the template knows no tools, they are described in the system message, unless
        `tool_parser` is `none`; earlier calls and their results are text then, as they are for a
        template that does not show them, in the format that the parser reads.

        A template that refuses the conversation is asked again with other forms of it; see
        `neurond.text.message_forms`. So is one that fails over a conversation with images; a form
        that it takes but does not show is left out. One that still refuses or fails is asked again
        with arguments of calls that it can write, and tools that have all that it reads.

        Raises:
            WrongModality: the conversation has what the model does not take.
            InvalidRequest: the template refuses the conversation, or does not show its images, or
                an image is only pointed at, or the last turn of one that is
                to be continued is not the assistant's or not shown by the template, or a variable
                has the name of a function.
            InternalError: the template fails; the message has the line.
            RecursionError: tools, arguments or variables are nested too deeply.
        """
        self._check_variables(prompt)
        images: list[FoundImage] = []
        takes_images = self._placeholder is not None
        messages = template_messages(prompt, images if takes_images else None)
        if self._wants_short_ids:
            messages = with_short_ids(messages)
        if not self.knows_tools and tool_parser != "none":
            messages = with_described_tools(
                messages,
                prompt,
                tool_parser,
                in_turn=self._takes_tools_in_turns,
                result_turns=self._shown.results,
            )
        elif not self._shown.calls and tool_parser != "none":
            messages = with_calls_as_text(messages, tool_parser, result_turns=self._shown.results)
        messages = self._harmless(messages)
        if prompt.continue_final_message:
            if not messages or messages[-1]["role"] != "assistant":
                raise self._cannot_continue("it is not the assistant's")
            messages = with_end_marked(messages)
        rendered = self._first_read(prompt, messages, images)
        if not prompt.continue_final_message:
            return rendered
        return rendered._replace(text=self._up_to_mark(rendered.text))

    def _first_read(
        self, prompt: ChatPrompt, messages: list[TemplateMessage], images: list[FoundImage]
    ) -> Rendered:
        """Render with tools and arguments as they came, else as templates can read them.

        What came is what most can write, and what their models were trained on.
        """
        tools = self._harmless(template_tools(prompt))
        try:
            return self._first_taken(prompt, messages, tools, images)
        except (InternalError, InvalidRequest, RecursionError) as ex:
            first = reason = ex
        for history, told in _repaired(messages, tools):
            try:
                return self._first_taken(prompt, history, told, images)
            except (InternalError, InvalidRequest, RecursionError) as ex:
                reason = ex
        if not isinstance(reason, InvalidRequest):
            # Some join arguments to text, and fail over objects.
            for told in _tools_told(tools):
                with suppress(InternalError, InvalidRequest, RecursionError):
                    return self._first_taken(prompt, with_text_arguments(messages), told, images)
        raise first if isinstance(first, InvalidRequest) else reason

    def _first_taken(
        self,
        prompt: ChatPrompt,
        messages: list[TemplateMessage],
        tools: list[JsonObject] | None,
        images: list[FoundImage],
    ) -> Rendered:
        refusal: _Refused | None = None
        failure: InternalError | None = None
        for form in forms(messages, self._shown):
            try:
                return self._with_images(prompt, form, tools, images)
            except _Refused as ex:
                refusal = refusal or ex
            except InternalError as ex:
                if not images:
                    raise
                # Written for text, a template may join it to the parts of a tool's result.
                failure = failure or ex
        if failure is not None:
            raise failure
        line = _line(refusal) if refusal is not None else 0
        says = f"says in line {line}" if line else "does not take it"
        raise InvalidRequest(
            f"cannot render the conversation: the chat template of {self._model} {says}: "
            f"{refusal or 'it would lose a system turn'}",
            param="messages",
        ) from refusal

    def _with_images(
        self,
        prompt: ChatPrompt,
        messages: list[TemplateMessage],
        tools: list[JsonObject] | None,
        images: list[FoundImage],
    ) -> Rendered:
        if self._placeholder is None:
            return Rendered(self._render(prompt, messages, tools))
        messages, order = with_parts(messages, every=self._knows_only_parts)
        text = self._render(prompt, messages, tools)
        if not images:
            return Rendered(text)
        shown = text.count(self._placeholder)
        if shown != len(images) or sorted(order) != list(range(len(images))):
            raise _Refused(f"it shows {self._placeholder!r} {shown} times for {len(images)} images")
        return Rendered(text, tuple(images[index] for index in order))

    def _harmless(self, value: T) -> T:
        """Return messages or tools in whose text nothing stands for an image."""
        harmless: T = with_harmless_text(value, self._image_texts) if self._image_texts else value
        return harmless

    def _shows_text(self) -> bool:
        """Tell whether text is shown that is a turn's whole content, and not one of its parts."""
        try:
            return PROBE in self._bare([{"role": "user", "content": PROBE}])
        except Exception:  # noqa: BLE001 - a template can raise whatever Python can
            return False

    def _tried(self, messages: list[TemplateMessage], tools: list[JsonObject] | None) -> str:
        if self._placeholder is not None:
            messages, _ = with_parts(messages, every=self._knows_only_parts)
        return self._bare(messages, tools)

    def _bare(self, messages: list[TemplateMessage], tools: list[JsonObject] | None = None) -> str:
        return self._template.render(
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=False,
            **self._special_tokens,
        )

    def _render(
        self,
        prompt: ChatPrompt,
        messages: list[TemplateMessage],
        tools: list[JsonObject] | None,
    ) -> str:
        variables: dict[str, Any] = {"documents": None, **self._special_tokens}
        variables |= reasoning_variables(prompt)
        variables |= {
            name: value for name, value in prompt.template_kwargs.items() if name not in RESERVED
        }
        variables |= {
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": not prompt.continue_final_message,
        }
        try:
            return self._template.render(variables)
        except (_Refused, CortexError, RecursionError):
            raise
        except Exception as ex:  # a template can raise whatever Python can
            raise InternalError(
                f"cannot render the conversation: the chat template of {self._model} fails in "
                f"line {_line(ex)}: {type(ex).__name__}: {ex}"
            ) from ex

    def _check_variables(self, prompt: ChatPrompt) -> None:
        for name in prompt.template_kwargs:
            if name in self._functions:
                raise InvalidRequest(
                    f"cannot render the conversation: chat_template_kwargs.{name} would replace a "
                    "function of templates; leave it out",
                    param=f"chat_template_kwargs.{name}",
                )

    def _up_to_mark(self, rendered: str) -> str:
        text, mark, _ = rendered.rpartition(END_MARK)
        if not mark:
            raise self._cannot_continue(f"the chat template of {self._model} does not show it")
        return text

    def _cannot_continue(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"cannot continue the last turn: {why}", param="messages")


def check_template(source: str, *, model: str) -> None:
    """Raise `InvalidRequest` unless `source` is a valid template; renders nothing."""
    _compiled(_environment(datetime.now), source, model)


def _compiled(
    environment: ImmutableSandboxedEnvironment, source: str, model: str
) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as ex:
        raise InvalidRequest(
            f"cannot use the chat template of {model}: line {ex.lineno}: {ex.message}",
            param="chat_template",
        ) from ex


def _repaired(
    messages: list[TemplateMessage], tools: list[JsonObject] | None
) -> Iterator[tuple[list[TemplateMessage], list[JsonObject] | None]]:
    """Yield the conversation and its tools as more templates can read them, the nearest first."""
    tried = [(messages, tools)]
    for told in _tools_told(tools):
        for history in (messages, with_object_arguments(messages)):
            if (history, told) not in tried:
                tried.append((history, told))
                yield history, told


def _tools_told(tools: list[JsonObject] | None) -> Sequence[list[JsonObject] | None]:
    # Some go through the tools without asking whether there are any.
    return (None, []) if tools is None else (tools, complete_tools(tools))


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda layout: now().strftime(layout)
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes HTML characters, which a prompt must not have.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise _Refused(message)


def _line(error: Exception) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    return next(
        (frame.lineno or 0 for frame in reversed(frames) if frame.filename == JINJA_FILE), 0
    )
