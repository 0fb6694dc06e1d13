"""The requests that one life of an actor has in flight, and where their tokens go.

Lives on the supervisor's loop. It allocates prompt ranges and stream ids, turns what the actor
says into items of `TokenStream`s, and forgets a request when its last finish record, or its
failure, has come; a client that has left does not end that earlier, because the engine still has
the request until then.

Records from the ring are moved to streams at once and never wait for a reader: see
`neurond.supervisor.streams` for why the buffers stay bounded all the same.
"""

import logging
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from cortex_core.errors import (
    CortexError,
    DeviceFailed,
    Overloaded,
    ProtocolError,
    QueueFull,
    error_from_info,
)
from cortex_core.ids import ModelId, RequestId
from cortex_core.ipc.arena import Arena
from cortex_core.logs import kv
from neurond import protocol
from neurond.images.read_image import ReadImage
from neurond.ring_records import (
    FinishRecord,
    PromptTokenRecord,
    Record,
    TokenRecord,
    VectorRecord,
    decode_record,
)
from neurond.stream_items import (
    Admitted,
    Adopted,
    ChoiceFinished,
    NotHeld,
    PromptToken,
    Token,
    Vector,
)
from neurond.supervisor.jobs import EmbedJob, EngineJob
from neurond.supervisor.streams import TokenStream

RETRY_AFTER_S = 1.0
MAX_ID_CHARS = 256
"""Of a client's id for a request, as far as the actor is told it."""
MAX_IMAGE_BYTES = 1 << 30
"""Of images in flight on a device, as a vision tower takes them: some 25 MB for a megapixel."""

_log = logging.getLogger(__name__)


class ActorCommands(Protocol):
    """The way to the actor."""

    def send_control(self, command: protocol.Command) -> None:
        """Send what must arrive; never raises (an actor that takes no control is killed)."""
        ...

    def send_data(self, command: protocol.Command) -> None:
        """Send work.

        Raises:
            Overloaded: the actor has too much of it unread.
        """
        ...

    def send_images(self, request_id: RequestId, fds: Sequence[int]) -> None:
        """Send the descriptors of a request's images, before its command.

        Raises:
            Overloaded: the actor has too many of them unread.
        """
        ...


class _Request:
    """One request in flight; its stream's way back to the actor."""

    def __init__(self, model_id: ModelId, engine_id: RequestId, first_stream: int, n: int) -> None:
        self.engine_id = engine_id
        self.model_id = model_id
        self.first_stream = first_stream
        self.open_streams = set(range(first_stream, first_stream + n))
        self.prompt_offset: int | None = None
        self.image_bytes = 0
        self.admitted = False
        self.commands: ActorCommands
        self.stream: TokenStream

    def pause(self, choice: int) -> None:
        self._send(choice, protocol.Pause)

    def resume(self, choice: int) -> None:
        self._send(choice, protocol.Resume)

    def finish(self, choice: int) -> None:
        self._send(choice, protocol.FinishStream)

    def cancel(self) -> None:
        if self.open_streams:
            self.commands.send_control(protocol.Cancel(self.engine_id))

    def _send(self, choice: int, command: Callable[[int], protocol.Command]) -> None:
        stream = self.first_stream + choice
        if stream in self.open_streams:
            self.commands.send_control(command(stream))


class InFlight:
    """Requests by stream and by id, for one life of one actor.

    `on_end` is called with the model of each request that has ended, behind its last item.
    """

    def __init__(
        self,
        commands: ActorCommands,
        prompt_area: "memoryview[int]",
        *,
        max_requests: int,
        on_end: Callable[[ModelId], None],
    ) -> None:
        self._commands = commands
        self._prompt_area = prompt_area
        self._arena = Arena(len(prompt_area))
        self._max_requests = max_requests
        self._on_end = on_end
        self._requests: dict[RequestId, _Request] = {}
        self._by_stream: dict[int, _Request] = {}
        self._closed = False
        self._next_stream = 1
        self._accepted = 0
        self._image_bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def counts(self, model_id: ModelId) -> tuple[int, int]:
        """Return how many requests of a model the engine computes, and how many wait for it."""
        admitted = [r.admitted for r in self._requests.values() if r.model_id == model_id]
        return sum(admitted), len(admitted) - sum(admitted)

    def submit(self, job: EngineJob | EmbedJob) -> TokenStream:
        """Send a request to the actor.

        Raises:
            QueueFull: `max_requests` are in flight.
            Overloaded: the prompt area or the actor's socket is full, or there are too many bytes
                of images in flight.
        """
        if len(self._requests) >= self._max_requests:
            raise QueueFull(
                f"cannot take the request: {len(self._requests)} are in flight on this device, "
                "which is the limit; retry later",
                retry_after_s=RETRY_AFTER_S,
            )
        self._accepted += 1
        # A client may use an id twice, or one of any length; towards the actor it must be unique,
        # and short enough for a message of its own (`neurond.actor.images`).
        engine_id = RequestId(f"{job.request_id[:MAX_ID_CHARS]}.{self._accepted}")
        n = job.n if isinstance(job, EngineJob) else 1
        request = _Request(job.model_id, engine_id, self._next_stream, n)
        request.commands = self._commands
        request.stream = TokenStream(n, request)
        images = job.images if isinstance(job, EngineJob) else ()
        request.image_bytes = self._room_for(images)
        offset = self._place_prompt(_token_ids(job))
        try:
            if images:
                self._commands.send_images(engine_id, [image.segment.fd for image in images])
            self._commands.send_data(_command(job, request, offset))
        except Exception:
            self._arena.free(offset)
            raise
        request.prompt_offset = offset
        self._next_stream += n
        self._requests[engine_id] = request
        self._by_stream |= dict.fromkeys(request.open_streams, request)
        self._image_bytes += request.image_bytes
        return request.stream

    def admitted(self, notice: protocol.Admitted) -> None:
        """The engine has copied the prompt and begins with it."""
        request = self._requests.get(notice.request_id)
        if request is not None:
            request.admitted = True
            self._free_prompt(request)
            request.stream.deliver(Admitted(notice.cached_tokens))

    def records(self, records: Iterable[bytes]) -> list[protocol.ModelNotice]:
        """Take records off the ring; return the notices among them that are about models.

        Raises:
            ProtocolError: one of them is no record; the actor is not to be trusted any more, and
                every request has failed: nobody knows whose token it was.
        """
        notices: list[protocol.ModelNotice] = []
        if self._closed:
            return notices
        try:
            for data in records:
                self._take(decode_record(data), notices)
        except ProtocolError as ex:
            self.fail_all(DeviceFailed(ex.message, retry_after_s=RETRY_AFTER_S))
            raise
        return notices

    def _take(self, record: Record, notices: list[protocol.ModelNotice]) -> None:
        match record:
            case TokenRecord() | PromptTokenRecord() | FinishRecord() | VectorRecord():
                self._deliver(record)
            case protocol.Admitted():
                self.admitted(record)
            case protocol.NotHeld():
                self._not_held(record)
            case protocol.Adopted():
                self._adopted(record)
            case protocol.RequestFailed():
                self.request_failed(record)
            case _:
                notices.append(record)

    def _not_held(self, notice: protocol.NotHeld) -> None:
        request = self._requests.get(notice.request_id)
        if request is not None:
            request.stream.deliver(NotHeld())

    def _adopted(self, notice: protocol.Adopted) -> None:
        request = self._requests.get(notice.request_id)
        if request is not None:
            request.stream.deliver(Adopted(notice.cached_tokens))

    def _deliver(
        self, record: TokenRecord | PromptTokenRecord | FinishRecord | VectorRecord
    ) -> None:
        request = self._by_stream.get(record.stream)
        if request is None:
            _log.error("token record without a request", extra=kv(stream=record.stream))
            return
        index = record.stream - request.first_stream
        if isinstance(record, TokenRecord):
            token = Token(index, record.token_id, record.logprob, record.top)
            request.stream.deliver(token)
        elif isinstance(record, PromptTokenRecord):
            scored = PromptToken(record.token_id, record.logprob or 0.0, record.top)
            request.stream.deliver(scored)
        elif isinstance(record, VectorRecord):
            request.stream.deliver(Vector(record.index, record.vector))
        else:
            request.stream.deliver(ChoiceFinished(index, record.reason))
            self._end_stream(request, record.stream)

    def request_failed(self, notice: protocol.RequestFailed) -> None:
        """The engine gave a request up."""
        request = self._requests.get(notice.request_id)
        if request is not None:
            self._end(request, error_from_info(notice.error))

    def fail_all(self, error: CortexError) -> None:
        """End every request, for good: the actor is gone, or is about to be."""
        self._closed = True
        for request in list(self._requests.values()):
            self._end(request, error)

    def tick(self, now: float) -> None:
        """Cancel what nobody reads any more; see `TokenStream.tick`."""
        for request in self._requests.values():
            request.stream.tick(now)

    def cancel_all(self, error: CortexError, model_id: ModelId | None = None) -> None:
        """Fail every stream, of one model if named, and have the engine drop its request.

        The records still come.
        """
        for request in self._requests.values():
            if model_id not in (None, request.model_id):
                continue
            request.stream.fail(error)
            request.cancel()

    def _place_prompt(self, token_ids: "array[int]") -> int:
        data = token_ids.tobytes()
        offset = self._arena.allocate(len(data))
        if offset is None:
            raise Overloaded(
                f"cannot take the request: its prompt has {len(data)} bytes of token ids, and "
                f"{self._arena.largest_free_bytes} of {self._arena.size_bytes} are free for "
                "prompts on their way to the device; retry later",
                retry_after_s=RETRY_AFTER_S,
            )
        self._prompt_area[offset : offset + len(data)] = data
        return offset

    def _room_for(self, images: Sequence[ReadImage]) -> int:
        """Return the bytes of images, which the actor holds until their request ends."""
        size = sum(image.segment.size_bytes for image in images)
        # A request alone has room in any case: its images have a limit of their own.
        if self._image_bytes and self._image_bytes + size > MAX_IMAGE_BYTES:
            raise Overloaded(
                f"cannot take the request: its images have {size} bytes, and those in flight have "
                f"{self._image_bytes} of {MAX_IMAGE_BYTES}; retry later",
                retry_after_s=RETRY_AFTER_S,
            )
        return size

    def _free_prompt(self, request: _Request) -> None:
        if request.prompt_offset is not None:
            self._arena.free(request.prompt_offset)
            request.prompt_offset = None

    def _end_stream(self, request: _Request, stream: int) -> None:
        del self._by_stream[stream]
        request.open_streams.discard(stream)
        if not request.open_streams:
            self._forget(request)

    def _end(self, request: _Request, error: CortexError) -> None:
        for stream in request.open_streams:
            del self._by_stream[stream]
        request.open_streams.clear()
        request.stream.fail(error)
        self._forget(request)

    def _forget(self, request: _Request) -> None:
        self._free_prompt(request)
        self._image_bytes -= request.image_bytes
        del self._requests[request.engine_id]
        self._on_end(request.model_id)


def _token_ids(job: EngineJob | EmbedJob) -> "array[int]":
    parts: Sequence[Sequence[int]] = (
        job.inputs if isinstance(job, EmbedJob) else (job.prompt_token_ids, job.replayed_token_ids)
    )
    token_ids = array("i")
    for part in parts:
        token_ids.extend(part)
    return token_ids


def _command(
    job: EngineJob | EmbedJob, request: _Request, offset: int
) -> protocol.Generate | protocol.Embed:
    if isinstance(job, EngineJob):
        return _generate(job, request, offset)
    return protocol.Embed(
        request_id=request.engine_id,
        model_id=job.model_id,
        stream=request.first_stream,
        prompt_offset=offset,
        input_tokens=tuple(len(ids) for ids in job.inputs),
        dimensions=job.dimensions,
        principal=job.principal,
    )


def _generate(job: EngineJob, request: _Request, offset: int) -> protocol.Generate:
    return protocol.Generate(
        request_id=request.engine_id,
        model_id=job.model_id,
        first_stream=request.first_stream,
        n=job.n,
        prompt_offset=offset,
        num_prompt_tokens=len(job.prompt_token_ids) + len(job.replayed_token_ids),
        num_replayed_tokens=len(job.replayed_token_ids),
        sampling=job.sampling,
        max_tokens=job.max_tokens,
        seed=job.seed,
        eos_token_ids=job.eos_token_ids,
        priority=job.priority,
        principal=job.principal,
        response_format=job.response_format,
        images=tuple(
            protocol.PromptImage(image.key, image.num_tokens, image.places) for image in job.images
        ),
        placeholder_id=job.placeholder_id,
    )
