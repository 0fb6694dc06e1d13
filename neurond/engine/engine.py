"""One loaded model's engine: requests in, tokens out, one step at a time.

Owned by the actor's loop and called from its one thread only. The engine turns requests into
sequences, drives scheduler and runner, and knows which stream belongs to which request; it reads
no socket, no clock and no tensor. Nothing here waits but `Runner.execute`.

Every stream of a request ends in exactly one of: a token with a finish reason, a finish without a
token (cancelled, or a stop string matched outside), the failure of its request.
"""

from array import array
from collections.abc import Callable
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field

from cortex_core.canonical import FinishReason, SamplingParams
from cortex_core.errors import (
    ContextLengthExceeded,
    CortexError,
    ErrorInfo,
    InvalidRequest,
    OutOfMemory,
    QueueFull,
)
from cortex_core.ids import RequestId
from neurond.engine.batch import Grammar, Row, RowFailed, Runner, SampledToken
from neurond.engine.blocks import blocks_for
from neurond.engine.config import SchedulerConfig
from neurond.engine.drafts import Drafter
from neurond.engine.images import ImagePrompt, TokenRuns, token_runs
from neurond.engine.scheduler import Scheduler, Step, StepResults
from neurond.engine.sequence import Sequence, SequenceStatus, count_tokens

QUEUE_FULL_RETRY_S = 1.0

Admissions = list[tuple[RequestId, int]]
"""Requests, with their number of cached tokens."""


@dataclass(slots=True, frozen=True)
class EngineRequest:
    """`n` choices for one prompt; choice `i` is stream `first_stream + i`."""

    request_id: RequestId
    first_stream: int
    prompt_token_ids: AbstractSequence[int]
    """Prompt, and after it the output that is replayed; copied by `Engine.add`."""
    sampling: SamplingParams
    max_tokens: int
    """New tokens per choice, 1 or more; what the context leaves if that is less."""
    seed: int
    n: int = 1
    num_replayed_tokens: int = 0
    """How many of the tokens are earlier output."""
    eos_token_ids: tuple[int, ...] = ()
    priority: int = 0
    principal: str | None = None
    grammar: Grammar | None = None
    """What the output is held to, not complete with what is replayed; the engine's from now on."""
    images: ImagePrompt | None = None


@dataclass(slots=True)
class StepOutput:
    """What one step has to tell, in the order in which it is to be told."""

    admitted: Admissions = field(default_factory=list)
    """Requests whose first choice got its blocks, with its number of cached tokens."""
    adopted: Admissions = field(default_factory=list)
    """Requests for which others have computed more since then, with the final number."""
    tokens: list[tuple[int, SampledToken, FinishReason | None]] = field(default_factory=list)
    """Stream, token, and the reason if the stream ends with this token."""
    scores: list[tuple[int, SampledToken]] = field(default_factory=list)
    """Stream, and a token of its prompt with its log probability; before all its tokens."""
    vectors: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Stream, number of the input, and its vector; see `engine.embedding`."""
    finished: list[tuple[int, FinishReason]] = field(default_factory=list)
    """Streams that end without another token."""
    failed: list[tuple[RequestId, ErrorInfo]] = field(default_factory=list)
    """Requests of which nothing more comes, for any stream."""


class Engine:
    """Continuous batching of requests over one runner."""

    def __init__(self, runner: Runner, config: SchedulerConfig) -> None:
        self._runner = runner
        self._config = config
        self._scheduler = Scheduler(config)
        self._sequences: dict[int, Sequence] = {}  # by stream, unfinished ones only
        self._streams_of: dict[RequestId, list[int]] = {}  # all choices, until the last ends
        self._unadmitted: set[RequestId] = set()
        self._finished: list[tuple[int, FinishReason]] = []  # told by the next step
        self._arrivals = 0
        self._num_with_images = 0

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_paused(self) -> int:
        return self._scheduler.num_paused

    @property
    def decoding(self) -> list[int]:
        """Priorities of the sequences that decode in the next step, highest first."""
        return self._scheduler.decoding

    @property
    def may_look(self) -> bool:
        """Whether a step may have to compute an image, which can take a hundred times as long."""
        return self._num_with_images > 0

    @property
    def scheduler(self) -> Scheduler:
        """For its counters; only the engine calls its methods."""
        return self._scheduler

    def has_work(self) -> bool:
        """Tell whether `step` has anything to compute or to tell; paused streams are no work."""
        return bool(self._finished or self.num_running or self.num_waiting)

    def add(self, request: EngineRequest) -> None:
        """Queue a request.

        Raises:
            ContextLengthExceeded: the prompt leaves no token of the model's context.
            OutOfMemory: the prompt can never fit the K/V blocks.
            QueueFull: too many wait already.
            InvalidRequest: the request contradicts itself, or its ids are in use.
        """
        self._refuse_invalid(request)
        self._refuse_oversized(len(request.prompt_token_ids))
        if not self._scheduler.has_room_for(request.n):
            raise QueueFull(
                f"cannot queue the request: {self.num_waiting} wait and "
                f"{self.num_running} of {self._config.max_sequences} run; retry later",
                retry_after_s=QUEUE_FULL_RETRY_S,
            )
        two_way = self._two_way(request)
        leader: Sequence | None = None
        for choice in range(request.n):
            seq = self._sequence(request, choice, leader, two_way)
            leader = leader or seq
            self._sequences[seq.stream] = seq
            self._num_with_images += request.images is not None
            self._scheduler.add(seq)
        self._streams_of[request.request_id] = list(_streams(request))
        self._unadmitted.add(request.request_id)

    def cancel(self, request_id: RequestId) -> None:
        """End every choice of a request; the next step tells. Idempotent, unknown ids are fine."""
        for stream in tuple(self._streams_of.get(request_id, ())):
            self._end(stream, "cancelled")

    def finish(self, stream: int) -> None:
        """End one choice because a stop string matched in its text; the next step tells.

        Idempotent; unknown streams are fine, as the choice may have ended by itself meanwhile.
        """
        self._end(stream, "stop")

    def pause(self, stream: int) -> None:
        """Produce nothing for a stream until `resume`. Idempotent; unknown streams are fine."""
        seq = self._sequences.get(stream)
        if seq is not None:
            self._scheduler.pause(seq)

    def resume(self, stream: int) -> None:
        """Undo `pause`. Idempotent; unknown streams are fine."""
        seq = self._sequences.get(stream)
        if seq is not None:
            self._scheduler.resume(seq)

    def step(
        self,
        on_admitted: Callable[[Admissions], None] | None = None,
        *,
        decoding_elsewhere: Callable[[], AbstractSequence[int]] = tuple,
    ) -> StepOutput:
        """Compute one step, if there is one, and return everything there is to tell.

        Args:
            on_admitted: hears of `StepOutput.admitted`, where it is not empty, before anything is
                computed: the first chunk of a prompt can take seconds.
            decoding_elsewhere: returns priorities of those that decode in other engines of the
                device; they wait for this step, so its prompts are paced as beside decodes of its
                own. Asked where there are prompts.

        Raises:
            Exception: whatever the runner raises but `CortexError`; the engine is unusable then.
        """
        output = StepOutput(finished=self._finished)
        self._finished = []
        step = self._scheduler.schedule(decoding_elsewhere)
        self._tell_cached(step, output)
        if on_admitted is not None and output.admitted:
            on_admitted(output.admitted)
        if step.batch is None:
            return output
        try:
            sampled = self._runner.execute(step.batch)
        except RowFailed as ex:
            guilty = [seq for seq in self._scheduler.abandon() if seq.row is ex.row]
            self._fail([(seq, ex.error) for seq in guilty], output)
            return output
        except CortexError as ex:
            self._fail([(seq, ex.info()) for seq in self._scheduler.abandon()], output)
            return output
        assert len(sampled) == len(step.batch.rows), "the runner lost rows"
        self._tell(self._scheduler.complete(sampled), output)
        return output

    def took(self, seconds: float) -> None:
        """Learn how long the last step took, from whoever has a clock; paces long prompts."""
        self._scheduler.took(seconds)

    def check(self) -> None:
        """Assert every invariant; O(blocks + sequences), for tests and for an idle engine."""
        self._scheduler.check()
        told = {stream for stream, _ in self._finished}
        for streams in self._streams_of.values():
            assert any(stream in self._sequences for stream in streams), "a request has no stream"
        for stream, seq in self._sequences.items():
            assert seq.status is not SequenceStatus.FINISHED
            assert stream not in told
            assert stream in self._streams_of[seq.request_id]
        live = self.num_running + self.num_waiting + self.num_paused
        assert live == len(self._sequences), "a sequence is lost"
        with_images = [seq for seq in self._sequences.values() if seq.row.images is not None]
        assert len(with_images) == self._num_with_images
        assert self._unadmitted <= self._streams_of.keys()

    def _refuse_invalid(self, request: EngineRequest) -> None:
        if not 0 <= request.num_replayed_tokens < len(request.prompt_token_ids):
            raise InvalidRequest("cannot generate: the prompt has no tokens", param="messages")
        if request.n < 1 or request.max_tokens < 1:
            raise InvalidRequest(
                f"cannot generate {request.max_tokens} tokens for {request.n} choices: "
                "both must be at least 1",
                param="max_tokens" if request.max_tokens < 1 else "n",
            )
        if request.request_id in self._streams_of:
            raise InvalidRequest(f"cannot add request {request.request_id}: its id is in use")
        if any(stream in self._sequences for stream in _streams(request)):
            raise InvalidRequest(f"cannot add request {request.request_id}: a stream is in use")

    def _refuse_oversized(self, prompt_tokens: int) -> None:
        config = self._config
        if prompt_tokens >= config.context_tokens:
            raise ContextLengthExceeded(
                prompt_tokens=prompt_tokens, max_tokens=config.context_tokens - 1
            )
        if prompt_tokens >= config.limit_tokens:
            raise OutOfMemory(
                f"cannot hold a prompt of {prompt_tokens} tokens: with one token of output it "
                f"needs {blocks_for(prompt_tokens + 1, config.block_tokens)} blocks of "
                f"{config.block_tokens} tokens, and the KV cache has {config.num_blocks} "
                f"({config.limit_tokens} tokens); give the model a larger KV cache",
                param="messages",
            )

    def _two_way(self, request: EngineRequest) -> TokenRuns:
        """Return the runs of tokens that see each other both ways.

        Raises:
            InvalidRequest: a step cannot take one of them, or not what is wanted of it.
        """
        most = self._config.two_way_tokens
        if not most or request.images is None:
            return ()
        if request.sampling.scores_prompt:
            raise InvalidRequest(
                "cannot score a prompt with images: this model sees an image whole, and would need "
                "the logits of all its tokens at once"
            )
        runs = token_runs(request.images)
        longest = max(behind - first for first, behind in runs)
        if longest > most:
            raise InvalidRequest(
                f"cannot look at an image: {longest} of its tokens see each other, {most} is the "
                "most of a step; send a smaller one",
                param="messages",
            )
        return runs

    def _sequence(
        self, request: EngineRequest, choice: int, leader: Sequence | None, two_way: TokenRuns
    ) -> Sequence:
        token_ids = array("i", request.prompt_token_ids)
        num_prompt_tokens = len(token_ids) - request.num_replayed_tokens
        sampling = request.sampling
        grammar = request.grammar
        # Where a form is whole nothing but an end may follow, so that one is not ignored.
        ignores_eos = sampling.ignore_eos and grammar is None
        eos_token_ids = () if ignores_eos else request.eos_token_ids
        self._arrivals += 1
        return Sequence(
            request_id=request.request_id,
            row=Row(
                stream=request.first_stream + choice,
                choice=choice,
                seed=request.seed,
                sampling=sampling,
                token_ids=token_ids,
                num_prompt_tokens=num_prompt_tokens,
                counts=count_tokens(sampling, token_ids, num_prompt_tokens),
                grammar=grammar.fork() if grammar is not None and choice else grammar,
                images=request.images,
                two_way=two_way,
            ),
            table=self._scheduler.new_table(),
            stop_token_ids=frozenset((*eos_token_ids, *sampling.stop_token_ids)),
            max_length=min(len(token_ids) + request.max_tokens, self._config.limit_tokens),
            arrival=self._arrivals,
            priority=request.priority,
            principal=request.principal,
            drafter=Drafter() if self._config.max_draft_rows else None,
            leader=leader,
        )

    def _tell_cached(self, step: Step, output: StepOutput) -> None:
        for seq in step.admitted:
            if seq.request_id in self._unadmitted:
                self._unadmitted.remove(seq.request_id)
                seq.num_cached_told = seq.num_cached_of_prompt
                output.admitted.append((seq.request_id, seq.num_cached_told))
        for seq in step.arriving:
            told, num_cached = seq.num_cached_told, seq.num_cached_of_prompt
            if told is not None and told < num_cached:
                seq.num_cached_told = num_cached
                output.adopted.append((seq.request_id, num_cached))

    def _tell(self, results: StepResults, output: StepOutput) -> None:
        if results.failed:
            self._fail(results.failed, output)
        failed = {request_id for request_id, _ in output.failed}
        output.scores = [
            (seq.stream, token) for seq, token in results.scores if seq.request_id not in failed
        ]
        for seq, token, reason in results.tokens:
            if seq.request_id in failed:
                continue
            output.tokens.append((seq.stream, token, reason))
            if reason is not None:
                self._forget(seq)

    def _fail(self, failures: list[tuple[Sequence, ErrorInfo]], output: StepOutput) -> None:
        for seq, error in failures:
            if seq.request_id in self._streams_of:
                self._drop(seq.request_id)
                output.failed.append((seq.request_id, error))

    def _drop(self, request_id: RequestId) -> None:
        streams = self._streams_of.pop(request_id)
        self._unadmitted.discard(request_id)
        for stream in streams:
            seq = self._sequences.pop(stream, None)
            if seq is not None:
                self._num_with_images -= seq.row.images is not None
                self._scheduler.remove(seq)

    def _end(self, stream: int, reason: FinishReason) -> None:
        seq = self._sequences.get(stream)
        if seq is not None:
            self._scheduler.remove(seq)
            self._forget(seq)
            self._finished.append((stream, reason))

    def _forget(self, seq: Sequence) -> None:
        """Drop the names of a sequence that has ended, and of its request with the last one."""
        del self._sequences[seq.stream]
        self._num_with_images -= seq.row.images is not None
        streams = self._streams_of[seq.request_id]
        if not any(stream in self._sequences for stream in streams):
            del self._streams_of[seq.request_id]
            self._unadmitted.discard(seq.request_id)


def _streams(request: EngineRequest) -> range:
    return range(request.first_stream, request.first_stream + request.n)
