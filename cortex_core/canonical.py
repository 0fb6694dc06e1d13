"""The canonical request and its events: what every dialect is translated to and from.

A `GenerateRequest` goes forward from the gateway's HTTP worker to the neuron's actor; a stream of
`Event`s comes back. Both travel as JSON (`POST /generate`, one event per line, see
`docs/protocol.md`). Nothing here knows a dialect, a tokenizer or a socket.

Order of a stream: any number of `Loading` and `Ping`, one `Started`, `PromptScored` where that is
asked for, deltas of one or more choices interleaved, one `Finished` for each choice, then
`Completed`; or `Failed` in place of whatever was still to come. Within a choice, a tool call's
deltas follow its start before anything else does: some dialects close a call for good when the next
thing begins. `Ping` may stand anywhere. `Completed` and `Failed` are terminal and exactly one of
them ends every stream.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from cortex_core.errors import ErrorInfo
from cortex_core.ids import ModelId, RequestId

JsonObject = dict[str, Any]
"""An object that JSON can say; used only where a client's own schema passes through."""

Role = Literal["system", "developer", "user", "assistant", "tool"]
Priority = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    text: str


class MediaPart(msgspec.Struct, frozen=True, tag="media", omit_defaults=True):
    """An image, audio clip or file. Exactly one of `data` (raw bytes) and `url` is set."""

    kind: Literal["image", "audio", "file"]
    media_type: str | None = None
    data: bytes | None = None
    url: str | None = None
    place: str | None = None
    """JSON path in the client's request, for errors: turns here are not its messages one by one."""


class ReasoningPart(msgspec.Struct, frozen=True, tag="reasoning", omit_defaults=True):
    """What the model thought in an earlier turn."""

    text: str
    signature: str | None = None


class ToolCallPart(msgspec.Struct, frozen=True, tag="tool_call"):
    """A call the model made in an earlier turn. `arguments` is JSON text, kept as it came."""

    id: str
    name: str
    arguments: str


class ToolResultPart(msgspec.Struct, frozen=True, tag="tool_result", omit_defaults=True):
    """What a tool answered. Stands only in messages of role `tool`."""

    call_id: str
    content: tuple[TextPart | MediaPart, ...]
    is_error: bool = False


Part = TextPart | MediaPart | ReasoningPart | ToolCallPart | ToolResultPart


MAX_PARTS: Final = 16_384
"""Messages of a conversation and the parts in them, an empty message counting as one. A part
costs about 0.1 ms to render, even an empty one, and nothing stops a thread that has begun."""
MAX_TOOLS: Final = 4096
"""Of a conversation; each is rendered too."""
MAX_PROMPT_TOKENS: Final = 1_048_576
"""Of a prompt that is token ids; more than any model's context."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn. System messages stay where the client put them."""

    role: Role
    content: tuple[Part, ...]
    name: str | None = None


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function the model may call. `parameters` is its JSON schema, passed on as it came."""

    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool = False


class ToolChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """`name` is set where mode is `named`, and only there."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat", omit_defaults=True):
    """A conversation, rendered by the model's chat template on the node."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    reasoning_effort: str | None = None
    template_kwargs: JsonObject = {}
    """Extra variables for the template, for example `enable_thinking`."""
    continue_final_message: bool = False
    """The last turn is the assistant's and has text: the answer goes on where that text ends."""
    truncates: bool = False
    """Where the conversation is longer than the context, its oldest turns are left out."""


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """Text that is tokenised with the model's own special tokens and continued."""

    text: str


class TokensPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """Token ids, taken as they are."""

    token_ids: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokensPrompt


class ResponseFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The form the answer is held to. `schema` is set for `json_schema`, `text` for the last two.

    A regex is Rust's and matches the whole answer; a grammar is in Lark's notation, beginning with
    the rule `start`.
    """

    kind: Literal["json_object", "json_schema", "regex", "grammar"]
    schema: JsonObject | None = None
    text: str | None = None
    strict: bool = True
    """False: keywords of the schema that the answer cannot be held to are passed over."""


class SamplingParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """How tokens are chosen. None means: the model profile's default, else the value named.

    Ranges are checked by `cortex_core.sampling_limits.check_sampling`, once, where a dialect
    decodes a request.
    """

    temperature: float | None = None
    """0 to 2 and above; below 0.00001 is greedy. Else 1."""
    top_p: float | None = None
    """Over 0 up to 1. Else 1."""
    top_k: int | None = None
    """1 and above; None is no limit."""
    min_p: float | None = None
    """0 to 1, relative to the most likely token. Else 0."""
    repetition_penalty: float | None = None
    """Over 0; 1 is off. Applies to prompt and output (CTRL, arXiv:1909.05858)."""
    presence_penalty: float = 0.0
    """-2 to 2, once for a token that is in the output (OpenAI)."""
    frequency_penalty: float = 0.0
    """-2 to 2, for each time a token is in the output (OpenAI)."""
    logit_bias: dict[int, float] = {}
    """Token id to a number in -100 to 100 that is added to its logit."""
    seed: int | None = None
    """64 bits. The gateway sets one where the client did not, so that a stream can move."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; neither sent nor counted."""
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int | None = None
    """Tokens of output per choice; clamped to what the context leaves, never refused. With 0 the
    prompt is computed, and so is in the prefix cache, and each choice ends with `length`."""
    ignore_eos: bool = False
    logprobs: int | None = None
    """None: none. 0 to 20: the chosen token's, and so many of the most likely ones'."""
    scores_prompt: bool = False
    """Log probabilities are wanted of the prompt's tokens too; needs `logprobs`."""


class ContinueFrom(msgspec.Struct, frozen=True):
    """Where a stream stopped that is to go on here, for requests of one choice.

    The node renders nothing: it takes `prompt_token_ids`, replays `output_token_ids` silently
    through detokeniser, stop strings and random counter, and sends events from `next_seq` on.
    """

    prompt_token_ids: tuple[int, ...]
    output_token_ids: tuple[int, ...]
    next_seq: int


class GenerateRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request of a client, whatever its dialect."""

    request_id: RequestId
    model: ModelId
    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    n: int = 1
    """Choices, 1 to 16."""
    response_format: ResponseFormat | None = None
    priority: Priority = 0
    """Higher goes first among waiting requests of a node."""
    principal: str | None = None
    """Who asks, for fairness; never a secret."""
    want_prompt_token_ids: bool = False
    """Ask `Started` to carry the prompt's token ids (the gateway does, to be able to continue)."""
    continue_from: ContinueFrom | None = None


class CountTokensRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many tokens would `prompt` be; asked of `/models/{id}/count_tokens`."""

    prompt: Prompt
    chat_template: str | None = None
    """Jinja text that a load would bring. None is what holds for the model on the node."""


class CountTokensResponse(msgspec.Struct, frozen=True):
    prompt_tokens: int


class TokenLogprob(msgspec.Struct, frozen=True, omit_defaults=True):
    """`logprob` is the natural logarithm of the probability before temperature and filters."""

    token_id: int
    text: str
    logprob: float
    top: tuple["TokenLogprob", ...] = ()
    raw: bytes | None = None
    """Its bytes where they are not whole characters and `text` has U+FFFD; None elsewhere."""

    @property
    def spelled(self) -> bytes:
        """The bytes that the token stands for."""
        return self.text.encode() if self.raw is None else self.raw


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """`prompt_tokens` includes the cached ones, `completion_tokens` the reasoning ones."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Nothing new, but still at it. Sent when nothing else was for a second."""


class Loading(msgspec.Struct, frozen=True, tag="loading", omit_defaults=True):
    """The model is being made ready for this request. `progress` is 0 to 1 where known."""

    stage: str
    """`queued`, `evicting`, `fetching`, `preparing`, `loading`; `ready` ends an admin `load`."""
    progress: float | None = None
    eta_s: float | None = None


class Started(msgspec.Struct, frozen=True, tag="started", omit_defaults=True):
    """The request has its place in the engine; the prompt is counted."""

    request_id: RequestId
    model: ModelId
    prompt_tokens: int
    cached_tokens: int = 0
    weights_id: str | None = None
    """Names weights, weight format and kernel variant; equal ids give equal text."""
    prompt_token_ids: tuple[int, ...] | None = None


class PromptScored(msgspec.Struct, frozen=True, tag="prompt_scored", omit_defaults=True):
    """Log probabilities of more tokens of the prompt, in their order, before all deltas.

    They have no number: where a request is asked again they come again, from the first one on.
    `index` is the first choice of that prompt. Over all of these events there is one score for each
    token; that of the first one, behind nothing, is 0 and means nothing.
    """

    index: int
    scores: tuple[TokenLogprob, ...]
    text: str = ""
    """All of a prompt that was given as token ids, in the first of these events: the scores' own
    texts do not add up to it where a character is spread over several tokens."""


class TextDelta(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """More of the visible answer. `text` may be empty while a stop string may be forming.

    `token_ids` are those that this event consumed: the concatenation over a choice's deltas is
    exactly what the engine produced and counted.
    """

    index: int
    text: str
    seq: int = 0
    """Number of this event among the request's deltas and finishes, from 0."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True, tag="reasoning", omit_defaults=True):
    """More of what the model thinks before it answers."""

    index: int
    text: str
    seq: int = 0
    token_ids: tuple[int, ...] = ()


class ToolCallStarted(msgspec.Struct, frozen=True, tag="tool_call_started", omit_defaults=True):
    """The model began call number `call_index` (from 0, in order) of this choice."""

    index: int
    call_index: int
    id: str
    name: str
    seq: int = 0
    token_ids: tuple[int, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, tag="tool_call_delta", omit_defaults=True):
    """More of a call's arguments. Over one call they concatenate to an object of JSON; over the
    last one of a choice that ends with `length` or `cancelled`, maybe to the beginning of one.
    `arguments` may be empty while nothing is certain."""

    index: int
    call_index: int
    arguments: str
    seq: int = 0
    token_ids: tuple[int, ...] = ()


class Finished(msgspec.Struct, frozen=True, tag="finished", omit_defaults=True):
    """A choice ended. `stop_sequence` is the stop string that fired, if one did."""

    index: int
    reason: FinishReason
    stop_sequence: str | None = None
    seq: int = 0
    token_ids: tuple[int, ...] = ()
    """Tokens that were consumed without a delta of their own, such as end-of-sequence."""


class Completed(msgspec.Struct, frozen=True, tag="completed"):
    """The stream is whole."""

    usage: Usage


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The stream ends here, with what went wrong."""

    error: ErrorInfo


Event = (
    Ping
    | Loading
    | Started
    | PromptScored
    | TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | Finished
    | Completed
    | Failed
)
TERMINAL_EVENTS = (Completed, Failed)
