"""A loaded model's embedding requests: what goes into the next step, and who gets the vectors.

Beside `neurond.engine.engine.Engine`, with the same events, and stepped in turn with it: a step
takes inputs of similar length from as many requests as fit its tokens, fewer while others use the
device, so that those who decode wait for a short step. An input is computed whole, in one step:
for one that is longer than a step they wait until it is done. Principals lead steps in turn, each
with its requests in turn. There is no cache and nothing to preempt. No torch here.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Final, Protocol

from cortex_core.canonical import FinishReason
from cortex_core.errors import CortexError, ErrorInfo, QueueFull
from cortex_core.ids import RequestId
from neurond.engine.engine import Admissions, StepOutput
from neurond.engine.pacing import PrefillPace

STEP_TOKENS: Final = 512
"""Tokens in one step, padding included, unless a single input has more."""
MAX_QUEUED_TOKENS: Final = 4 * 1024 * 1024
"""Of all requests of a model; 16 MiB."""
QUEUE_FULL_RETRY_S: Final = 1.0


@dataclass(slots=True, frozen=True)
class EmbedInput:
    """One text in token ids. `dimensions` is as `EmbedRequest` has it."""

    token_ids: "array[int]"
    dimensions: int | None = None


class Embedder(Protocol):
    """What computes. Called from the actor's one thread."""

    @property
    def dimensions(self) -> int:
        """Numbers in a whole vector."""
        ...

    def embed(self, inputs: Sequence[EmbedInput]) -> Sequence[bytes | ErrorInfo]:
        """Return a vector for each input, as float32 little endian, or why it has none.

        Raises:
            CortexError: this step cannot be computed; the next one may be.
            Exception: whatever a library raises; the embedder is not to be used again.
        """
        ...


@dataclass(slots=True)
class EmbeddingRequest:
    """One request. The engine takes `inputs` apart."""

    request_id: RequestId
    stream: int
    inputs: Sequence["array[int]"]
    dimensions: int | None = None
    principal: str | None = None
    left: list[int] = field(init=False)
    """Inputs that are still to be taken, longest last; empty only within a step."""
    missing: int = field(init=False)
    """Vectors that are still to be told."""
    paused: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.missing = len(self.inputs)
        self.left = sorted(range(len(self.inputs)), key=lambda index: len(self.inputs[index]))

    @property
    def longest(self) -> int:
        """Tokens of the input that comes next."""
        return len(self.inputs[self.left[-1]])

    def take(self, at_most: int) -> list[tuple["EmbeddingRequest", int]]:
        """Take so many of the longest inputs."""
        taken = [self.left.pop() for _ in range(min(at_most, len(self.left)))]
        return [(self, index) for index in taken]


class EmbeddingEngine:
    """Batches inputs over one embedder. Owned by the actor's loop."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._requests: dict[RequestId, EmbeddingRequest] = {}
        self._turns: dict[str | None, dict[RequestId, EmbeddingRequest]] = {}
        """Principals that have requests, and these; whose turn it is first."""
        self._by_stream: dict[int, EmbeddingRequest] = {}
        self._unadmitted: list[RequestId] = []
        self._finished: list[tuple[int, FinishReason]] = []  # told by the next step
        self._queued_tokens = 0
        self._pace = PrefillPace()
        self._computing = 0

    def has_work(self) -> bool:
        """Tell whether `step` has anything to compute or to tell; paused requests are no work."""
        return bool(self._finished) or any(not r.paused for r in self._requests.values())

    def add(self, request: EmbeddingRequest) -> None:
        """Queue a request.

        Raises:
            QueueFull: too many tokens wait already.
        """
        tokens = _tokens(request)
        if self._requests and self._queued_tokens + tokens > MAX_QUEUED_TOKENS:
            raise QueueFull(
                f"cannot queue the inputs: {self._queued_tokens} tokens wait, "
                f"{MAX_QUEUED_TOKENS} is the most; retry later",
                retry_after_s=QUEUE_FULL_RETRY_S,
            )
        self._queued_tokens += tokens
        self._requests[request.request_id] = request
        self._turns.setdefault(request.principal, {})[request.request_id] = request
        self._by_stream[request.stream] = request
        self._unadmitted.append(request.request_id)

    def cancel(self, request_id: RequestId) -> None:
        """End a request; the next step tells. Idempotent, unknown ids are fine."""
        request = self._requests.get(request_id)
        if request is not None:
            self._drop(request)
            self._finished.append((request.stream, "cancelled"))

    def finish(self, stream: int) -> None:
        """End a stream early, as `cancel` does: nothing else ends one from outside."""
        request = self._by_stream.get(stream)
        if request is not None:
            self.cancel(request.request_id)

    def pause(self, stream: int) -> None:
        """Compute nothing for a stream until `resume`. Idempotent; unknown streams are fine."""
        self._set_paused(stream, paused=True)

    def resume(self, stream: int) -> None:
        """Undo `pause`. Idempotent; unknown streams are fine."""
        self._set_paused(stream, paused=False)

    def step(
        self,
        on_admitted: Callable[[Admissions], None] | None = None,
        *,
        shares_device: bool = False,
    ) -> StepOutput:
        """Compute one step, if there is one, and return everything there is to tell.

        Args:
            on_admitted: hears of requests that are new, before anything is computed.
            shares_device: others wait for the device, so the step is to be a short one.

        Raises:
            Exception: whatever the embedder raises but `CortexError`; the engine is unusable then.
        """
        output = StepOutput(finished=self._finished)
        self._finished = []
        output.admitted = [(id_, 0) for id_ in self._unadmitted if id_ in self._requests]
        self._unadmitted.clear()
        if on_admitted is not None and output.admitted:
            on_admitted(output.admitted)
        batch = self._next_batch(shares_device=shares_device)
        self._computing = sum(len(each.inputs[index]) for each, index in batch)
        if not batch:
            return output
        inputs = [EmbedInput(each.inputs[index], each.dimensions) for each, index in batch]
        try:
            results = self._embedder.embed(inputs)
        except CortexError as ex:
            results = [ex.info()] * len(batch)
        for (request, index), result in zip(batch, results, strict=True):
            self._take(request, index, result, output)
        return output

    def took(self, seconds: float) -> None:
        """Learn how long the last step took, from whoever has a clock; paces the next ones."""
        self._pace.took(0, self._computing, seconds)

    def _next_batch(self, *, shares_device: bool) -> list[tuple[EmbeddingRequest, int]]:
        """Take the longest inputs of whose turn it is, and of others what is no longer."""
        awake = self._awake()
        if not awake:
            return []
        longest = awake[0].longest
        tokens = self._pace.prefill_tokens(1 if shares_device else 0, STEP_TOKENS)
        room = max(1, tokens // longest)
        batch: list[tuple[EmbeddingRequest, int]] = []
        for request in awake:
            if len(batch) == room:
                break
            if request.longest <= longest:
                batch += request.take(room - len(batch))
        # Whoever led a step goes behind the others, or a large request would hold all small ones.
        leader = awake[0]
        requests = self._turns.pop(leader.principal)
        requests[leader.request_id] = requests.pop(leader.request_id)
        self._turns[leader.principal] = requests
        return batch

    def _awake(self) -> list[EmbeddingRequest]:
        """Return whoever can be computed: the first of each principal, then the second, and so on.

        Principals stand in their turn, and of each those in theirs.
        """
        of_each = (
            [request for request in requests.values() if not request.paused]
            for requests in self._turns.values()
        )
        in_rounds = chain.from_iterable(zip_longest(*of_each))
        return [request for request in in_rounds if request is not None]

    def _take(
        self, request: EmbeddingRequest, index: int, result: bytes | ErrorInfo, output: StepOutput
    ) -> None:
        if request.request_id not in self._requests:
            return  # it failed with an input before this one
        if isinstance(result, ErrorInfo):
            self._drop(request)
            output.failed.append((request.request_id, result))
            return
        output.vectors.append((request.stream, index, result))
        request.missing -= 1
        if not request.missing:
            self._drop(request)
            output.finished.append((request.stream, "stop"))

    def _drop(self, request: EmbeddingRequest) -> None:
        del self._requests[request.request_id]
        del self._turns[request.principal][request.request_id]
        if not self._turns[request.principal]:
            del self._turns[request.principal]
        del self._by_stream[request.stream]
        self._queued_tokens -= _tokens(request)

    def _set_paused(self, stream: int, *, paused: bool) -> None:
        request = self._by_stream.get(stream)
        if request is not None:
            request.paused = paused


def _tokens(request: EmbeddingRequest) -> int:
    return sum(map(len, request.inputs))
