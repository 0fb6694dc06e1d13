"""Which requests an actor has, and on which model; bookkeeping of the loop's thread."""

from dataclasses import dataclass

from cortex_core.ids import ModelId, RequestId

_MAX_EARLY_CANCELS = 4096
"""As many as there can be requests on the data socket that were sent and not yet read."""


@dataclass(slots=True)
class ActorRequest:
    """A request from `Generate` until its last finish or its failure."""

    request_id: RequestId
    model_id: ModelId
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

    def add(self, request_id: RequestId, model_id: ModelId, streams: range) -> None:
        request = ActorRequest(request_id, model_id, set(streams))
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

    def model_of(self, request_id: RequestId) -> ModelId | None:
        request = self._by_id.get(request_id)
        return request.model_id if request else None

    def model_of_stream(self, stream: int) -> ModelId | None:
        request = self._by_stream.get(stream)
        return request.model_id if request else None

    def streams_of(self, request_id: RequestId) -> list[int]:
        """Return the open streams of a request that is here, in order."""
        return sorted(self._by_id[request_id].open_streams)

    def on_model(self, model_id: ModelId) -> list[RequestId]:
        return [key for key, request in self._by_id.items() if request.model_id == model_id]

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
