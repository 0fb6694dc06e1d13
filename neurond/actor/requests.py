"""Which requests an actor has, and with which engine; bookkeeping of the loop's thread."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cortex_core.ids import ModelId, RequestId

_MAX_EARLY_CANCELS = 4096
"""As many as there can be requests on the data socket that were sent and not yet read."""


Work = Literal["generate", "embed"]


class Place(NamedTuple):
    """Names one engine of an actor: a model has one for each kind of work that it can do."""

    model_id: ModelId
    work: Work


@dataclass(slots=True)
class ActorRequest:
    """A request from `Generate` or `Embed` until its last finish or its failure."""

    request_id: RequestId
    place: Place
    open_streams: set[int]


class RequestTable:
    """Requests by id and by stream.

    A cancel travels on the control socket and can overtake its request. One for an id that is not
    here is therefore kept for a while: the request may have ended, or may be yet to come.
    """

    def __init__(self) -> None:
        self._early_cancels: dict[RequestId, None] = {}  # oldest first
        self._by_id: dict[RequestId, ActorRequest] = {}
        self._by_stream: dict[int, ActorRequest] = {}

    def add(self, request_id: RequestId, place: Place, streams: range) -> None:
        request = ActorRequest(request_id, place, set(streams))
        self._by_id[request_id] = request
        self._by_stream |= dict.fromkeys(streams, request)

    def keep_cancel(self, request_id: RequestId) -> None:
        """Note that a request which is not here was cancelled."""
        self._early_cancels[request_id] = None
        if len(self._early_cancels) > _MAX_EARLY_CANCELS:
            del self._early_cancels[next(iter(self._early_cancels))]

    def was_cancelled(self, request_id: RequestId) -> bool:
        """Tell whether a request that arrives now was cancelled before."""
        return self._early_cancels.pop(request_id, request_id) is None

    def place_of(self, request_id: RequestId) -> Place | None:
        request = self._by_id.get(request_id)
        return request.place if request else None

    def place_of_stream(self, stream: int) -> Place | None:
        request = self._by_stream.get(stream)
        return request.place if request else None

    def streams_of(self, request_id: RequestId) -> list[int]:
        """Return the open streams of a request that is here, in order."""
        return sorted(self._by_id[request_id].open_streams)

    def at(self, place: Place) -> list[RequestId]:
        return [key for key, request in self._by_id.items() if request.place == place]

    def end_stream(self, stream: int) -> None:
        """Forget a stream, and its request with the last one."""
        request = self._by_stream.pop(stream)
        request.open_streams.discard(stream)
        if not request.open_streams:
            del self._by_id[request.request_id]

    def end_request(self, request_id: RequestId) -> None:
        """Forget a request and every stream of it."""
        request = self._by_id.pop(request_id)
        for stream in request.open_streams:
            del self._by_stream[stream]
