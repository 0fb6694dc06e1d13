"""Which requests an actor has, and on which model; bookkeeping of the loop's thread."""

from dataclasses import dataclass

from cortex_core.ids import ModelId, RequestId


@dataclass(slots=True)
class ActorRequest:
    """A request from `Generate` until its last finish or its failure."""

    request_id: RequestId
    model_id: ModelId
    open_streams: set[int]


class RequestTable:
    """Requests by id and by stream."""

    def __init__(self) -> None:
        self._by_id: dict[RequestId, ActorRequest] = {}
        self._by_stream: dict[int, ActorRequest] = {}

    def add(self, request_id: RequestId, model_id: ModelId, streams: range) -> None:
        request = ActorRequest(request_id, model_id, set(streams))
        self._by_id[request_id] = request
        self._by_stream |= dict.fromkeys(streams, request)

    def model_of(self, request_id: RequestId) -> ModelId | None:
        request = self._by_id.get(request_id)
        return request.model_id if request else None

    def model_of_stream(self, stream: int) -> ModelId | None:
        request = self._by_stream.get(stream)
        return request.model_id if request else None

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
