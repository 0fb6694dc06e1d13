"""What every dialect offers, so that a handler chooses one and uses it at both ends.

A handler calls `decode_request` once, asks for an `encoder`, and then either writes
`encoder.event(event)` for each canonical event (a stream) or gives each event to
`encoder.feed(event)` and writes `encoder.body()` once (no stream). Errors before the first byte
go through `encode_error`; later ones are `Failed` events like any other. Everything here is pure:
no sockets, no clocks, no randomness.
"""

from typing import NamedTuple, Protocol

import msgspec

from cortex_core.canonical import Event, GenerateRequest, Prompt
from cortex_core.errors import ErrorInfo
from cortex_core.ids import RequestId

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"


class Reply(NamedTuple):
    """A whole HTTP answer. `headers` leaves out the content type, which is `JSON_TYPE`."""

    status: int
    body: bytes
    headers: dict[str, str]


class Decoded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request as a dialect read it, with what its answer has to repeat.

    `request` may be replaced (alias resolution, seed, continuation) without touching the rest.
    """

    request: GenerateRequest
    model: str
    """The client's own word for the model; answers repeat it."""
    stream: bool = False
    include_usage: bool = False
    """A stream has to carry usage where its dialect makes that a choice."""
    ignored: tuple[str, ...] = ()
    """JSON paths of what was understood, cannot be done here and was left out; the answer's headers
    name them (`cortex_core.dialects.left_out`)."""
    service_tier: str | None = None
    """The dialect's word for how the request is served, where answers have a place for it."""
    further_prompts: tuple[Prompt, ...] = ()
    """Prompts beside the request's own, in a dialect that takes several at a time."""
    echo: bool = False
    """Answers begin with the prompt's text, in a dialect that has this."""

    @property
    def choices(self) -> int:
        """Choices of the answer: `n` for each prompt, those of the first prompt first."""
        return self.request.n * (1 + len(self.further_prompts))

    def requests(self) -> list[GenerateRequest]:
        """Return one request for each prompt; the first has the id of the whole."""
        further = (
            msgspec.structs.replace(
                self.request,
                request_id=RequestId(f"{self.request.request_id}-{number}"),
                prompt=prompt,
            )
            for number, prompt in enumerate(self.further_prompts, 2)
        )
        return [self.request, *further]


class ResponseEncoder(Protocol):
    """One response. Use `event` or `feed` with `body`, never both on one encoder."""

    def event(self, event: Event) -> bytes:
        """Return the stream's bytes for `event`; empty where it has nothing to say.

        `Ping` and `Loading` become what the dialect's clients take as a sign of life, before
        and after `Started`. `Failed` becomes the dialect's error in a stream, and ends it.

        Raises:
            ProtocolError: the events do not come in the order of `cortex_core.canonical`.
        """
        ...

    def feed(self, event: Event) -> None:
        """Collect `event` for `body`.

        Raises:
            ProtocolError: the events do not come in the order of `cortex_core.canonical`.
        """
        ...

    def body(self) -> bytes:
        """Return the whole answer as JSON; call it after the terminal event.

        Raises:
            CortexError: the stream ended with `Failed`, and this is that error.
            ProtocolError: no terminal event was fed.
        """
        ...


class Dialect(Protocol):
    """Stateless; one object serves every request."""

    def decode_request(self, body: bytes, *, request_id: RequestId) -> Decoded:
        """Return the canonical request for a client's body.

        Raises:
            InvalidRequest: with `param` as the JSON path of what is wrong, in the client's words.
        """
        ...

    def encoder(self, decoded: Decoded, *, created: int) -> ResponseEncoder:
        """Return a new encoder. `created` is seconds since 1970, as answers carry it."""
        ...

    def encode_error(self, error: ErrorInfo, *, request_id: RequestId) -> Reply:
        """Return the answer for an error before the first byte of a response."""
        ...

    def response_headers(self, request_id: RequestId) -> dict[str, str]:
        """Return the headers that successful answers of this dialect carry."""
        ...
