"""The actor's loop: commands in, one engine step at a time, tokens out.

It runs in the actor's main thread and is the only user of the sockets, the ring and the engines.
Each turn: control commands, data commands, what the loader and the format queue have, then one step
of the next engine that has work, and one ring of the bell for it. With no work it makes memory
ready that later steps will need, a piece in a turn, and then sleeps in a poll, so that a command is
seen at once and an idle device costs nothing.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from cortex_core.canonical import FinishReason
from cortex_core.errors import (
    CortexError,
    DeviceFailed,
    ErrorInfo,
    InvalidRequest,
    ModelNotLoaded,
    error_from_info,
)
from cortex_core.ids import ModelId, RequestId
from cortex_core.ipc.blocking_channel import BlockingChannel, Wakeups
from cortex_core.ipc.liveness import LivenessWriter, Phase
from cortex_core.logs import kv
from neurond.actor.backend import Backend
from neurond.actor.commands import CommandReader, streams_of
from neurond.actor.formats import FormatQueue
from neurond.actor.launch import PhaseDeadlines
from neurond.actor.loader import Loader
from neurond.actor.model_engine import ModelEngine, engines_of
from neurond.actor.outbox import Outbox
from neurond.actor.requests import Place, RequestTable
from neurond.engine.embedding import EmbeddingEngine
from neurond.engine.engine import Admissions, Engine, EngineRequest, StepOutput
from neurond.protocol import (
    Admitted,
    Adopted,
    Cancel,
    Configure,
    ControlCommand,
    DataCommand,
    Embed,
    FinishStream,
    Generate,
    LoadModel,
    ModelLoadFailed,
    ModelLoading,
    ModelUnloaded,
    NotHeld,
    Pause,
    Ping,
    Pong,
    RequestFailed,
    Resume,
    Shutdown,
    UnloadModel,
)
from neurond.ring_records import encode_finish, encode_token, encode_vector

_BLOCKED_POLL_S = 0.002
_USAGE_INTERVAL_S = 1.0
_LOOKING_FACTOR = 5
"""A vision tower over a large image on a few processors may take so much longer than a step."""
_MAX_FAILED_STEPS = 3
"""Unexpected exceptions of one engine in a row after which the process is not to be trusted."""

_log = logging.getLogger(__name__)


class ActorLoop:
    """Owns the engines of one device. Everything it is given stays its caller's to close."""

    def __init__(
        self,
        backend: Backend,
        control: BlockingChannel[ControlCommand],
        data: BlockingChannel[DataCommand],
        outbox: Outbox,
        commands: CommandReader,
        liveness: LivenessWriter,
        deadlines: PhaseDeadlines,
    ) -> None:
        self._backend = backend
        self._control = control
        self._data = data
        self._outbox = outbox
        self._commands = commands
        self._liveness = liveness
        self._deadlines = deadlines
        self._loader = Loader(backend)
        self._formats = FormatQueue()
        wakeup_fds = (self._loader.wakeup_fd, self._formats.wakeup_fd)
        self._wakeups = Wakeups((control, data), wakeup_fds)
        self._served: dict[Place, ModelEngine] = {}
        self._order: deque[Place] = deque()
        self._requests = RequestTable()
        self._steps = 0
        self._blocked_at: int | None = None
        self._num_loading = 0
        self._stopping = False
        self._tell_usage_at_s = 0.0

    def run(self) -> None:
        """Serve until `Shutdown`.

        Raises:
            CortexError: the device cannot be used any more; the process must end.
        """
        while True:
            if self._wakeups.pending():
                self._take_control()
                if self._stopping:
                    return
                self._take_data()
                self._take_loads()
                self._take_formats()
            self._tell_usage(time.monotonic())
            if not self._outbox.flush():
                self._wait_for_room()
                continue
            if not self._step_next():
                self._idle()

    def _take_control(self) -> None:
        for command in self._control.try_recv():
            match command:
                case Cancel(request_id):
                    self._cancel(request_id)
                case FinishStream(stream):
                    if engine := self._engine_of(stream):
                        engine.finish(stream)
                case Pause(stream):
                    if engine := self._engine_of(stream):
                        engine.pause(stream)
                case Resume(stream):
                    if engine := self._engine_of(stream):
                        engine.resume(stream)
                case Ping(sequence):
                    self._control.send(Pong(sequence))
                case Shutdown():
                    self._stopping = True
                case Configure():
                    _log.error("command ignored: the device is open already")
                case _:
                    assert_never(command)

    def _take_data(self) -> None:
        for command in self._data.try_recv():
            match command:
                case Generate() | Embed():
                    self._start(command)
                case LoadModel():
                    self._num_loading += 1
                    self._loader.load(command)
                case UnloadModel(model_id):
                    self._unload(model_id)
                case _:
                    assert_never(command)

    def _take_loads(self) -> None:
        for outcome in self._loader.take():
            if isinstance(outcome, ModelLoading):
                self._outbox.notice(outcome)
                continue
            self._num_loading -= 1
            command, result = outcome
            if isinstance(result, ErrorInfo):
                if result.code == DeviceFailed.code:
                    raise error_from_info(result)
                self._outbox.notice(ModelLoadFailed(command.model_id, result))
                continue
            for served in engines_of(result):
                self._served[served.place] = served
                self._order.append(served.place)
            self._outbox.notice(result.loaded)

    def _start(self, command: Generate | Embed) -> None:
        streams = streams_of(command)
        if self._requests.was_cancelled(command.request_id):
            self._commands.drop(command)
            for stream in streams:
                self._outbox.record(encode_finish(stream, "cancelled"))
            return
        try:
            place = self._add(command)
        except CortexError as ex:
            self._outbox.notice(RequestFailed(command.request_id, ex.info()))
            return
        self._requests.add(command.request_id, place, streams)

    def _add(self, command: Generate | Embed) -> Place:
        place = Place(command.model_id, "generate" if isinstance(command, Generate) else "embed")
        served = self._served.get(place)
        engine = served.engine if served is not None else None
        if isinstance(engine, Engine) and isinstance(command, Generate):
            self._add_generation(command, engine)
        elif isinstance(engine, EmbeddingEngine) and isinstance(command, Embed):
            engine.add(self._commands.embedding(command))
        else:
            self._commands.drop(command)
            raise self._no_engine(place)
        return place

    def _no_engine(self, place: Place) -> CortexError:
        if any(other.model_id == place.model_id for other in self._served):
            return InvalidRequest(f"cannot {place.work}: {place.model_id} is no model for it")
        return ModelNotLoaded(f"cannot {place.work}: {place.model_id} is not loaded")

    def _add_generation(self, command: Generate, engine: Engine) -> None:
        request = self._commands.generation(command)
        formats = self._served[Place(command.model_id, "generate")].model.formats
        if command.response_format is None:
            engine.add(request)
        else:
            assert formats is not None, "a model that generates has formats"
            self._formats.put(request, command.response_format, formats)

    def _take_formats(self) -> None:
        for request, outcome in self._formats.take():
            request_id = request.request_id
            place = self._requests.place_of(request_id)
            assert place is not None, "a request that has ended still waits for its format"
            engine = self._served[place].engine
            assert isinstance(engine, Engine), "embeddings have no format"
            try:
                if isinstance(outcome, ErrorInfo):
                    raise error_from_info(outcome)
                if outcome is None:
                    self._outbox.notice(NotHeld(request_id))
                    engine.add(request)
                elif outcome.is_complete:
                    self._end_at_once(request)
                else:
                    engine.add(replace(request, grammar=outcome))
            except CortexError as ex:
                self._requests.end_request(request_id)
                self._outbox.notice(RequestFailed(request_id, ex.info()))

    def _end_at_once(self, request: EngineRequest) -> None:
        """Answer a request whose output has its whole form already, as far as it was replayed."""
        self._outbox.notice(Admitted(request.request_id, 0))
        for choice in range(request.n):
            self._finish(request.first_stream + choice, "stop")

    def _cancel(self, request_id: RequestId) -> None:
        place = self._requests.place_of(request_id)
        if place is None:
            self._requests.keep_cancel(request_id)
        elif self._formats.drop(request_id):
            for stream in self._requests.streams_of(request_id):
                self._finish(stream, "cancelled")
        else:
            self._served[place].engine.cancel(request_id)

    def _engine_of(self, stream: int) -> Engine | EmbeddingEngine | None:
        place = self._requests.place_of_stream(stream)
        return None if place is None else self._served[place].engine

    def _unload(self, model_id: ModelId) -> None:
        free: Callable[[], None] | None = None
        error = ModelNotLoaded(f"cannot go on: {model_id} was unloaded").info()
        for place in [place for place in self._served if place.model_id == model_id]:
            self._order.remove(place)
            self._fail_requests(place, error)
            # The engine, which holds weights and KV cache, goes before they are freed.
            free = self._served.pop(place).model.free
        if free is not None:
            free()
        self._outbox.notice(ModelUnloaded(model_id))

    def _fail_requests(self, place: Place, error: ErrorInfo) -> None:
        for request_id in self._requests.at(place):
            self._formats.drop(request_id)
            self._requests.end_request(request_id)
            self._outbox.notice(RequestFailed(request_id, error))

    def _step_next(self) -> bool:
        """Step the next engine that has work, and return whether one has.

        `run` itself refers to none: what is unloaded meanwhile would not be freed.
        """
        for _ in range(len(self._order)):
            self._order.rotate(-1)
            served = self._served[self._order[-1]]
            if served.engine.has_work():
                self._step(served)
                return True
        return False

    def _idle(self) -> None:
        deadline_s = self._deadlines.idle_s
        if self._num_loading or self._formats.is_busy:
            # A library that loads may keep the interpreter to itself for a while.
            self._enter(Phase.LOADING, max(deadline_s, self._deadlines.step_s))
        else:
            self._enter(Phase.IDLE, deadline_s)
            # A piece at a time: what has come meanwhile goes before the next.
            if any(served.make_resident() for served in self._served.values()):
                return
        self._wakeups.wait(min(1.0, deadline_s / 3))

    def _enter(self, phase: Phase, deadline_s: float) -> None:
        self._liveness.enter(phase, deadline_s, self._steps)

    def _wait_for_room(self) -> None:
        if self._blocked_at != self._steps:
            self._blocked_at = self._steps
            self._enter(Phase.BLOCKED, self._deadlines.blocked_s)
        self._wakeups.wait(_BLOCKED_POLL_S)

    def _step(self, served: ModelEngine) -> None:
        engine = served.engine
        looks = isinstance(engine, Engine) and engine.may_look
        factor = _LOOKING_FACTOR if looks else 1
        self._enter(Phase.STEPPING, factor * self._deadlines.step_s)
        began_s = time.monotonic()
        try:
            output = self._compute(served)
        except Exception as ex:  # noqa: BLE001 - sorted out by the backend, or raised again
            _log.exception("engine step failed", extra=kv(model=served.place.model_id))
            self._recover(served, ex)
            return
        took_s = time.monotonic() - began_s
        self._tell(output)  # first: who hears of it works on another core meanwhile
        served.engine.took(took_s)
        served.failed_steps = 0
        self._steps += 1
        if served.model.stepped is not None and isinstance(engine, Engine):
            served.model.stepped(took_s)

    def _compute(self, served: ModelEngine) -> StepOutput:
        engine = served.engine
        others = [other.engine for other in self._served.values() if other is not served]
        if isinstance(engine, Engine):
            engines = [other for other in others if isinstance(other, Engine)]
            return engine.step(
                self._tell_admitted,
                decoding_elsewhere=lambda: [one for other in engines for one in other.decoding],
            )
        shares = any(other.has_work() for other in others)
        return engine.step(self._tell_admitted, shares_device=shares)

    def _recover(self, served: ModelEngine, cause: Exception) -> None:
        """Fail what the engine held and give the model a fresh one, if the device is sound."""
        error = self._backend.describe(cause)
        served.failed_steps += 1
        self._fail_requests(served.place, error.info())
        if served.failed_steps >= _MAX_FAILED_STEPS or self._backend.is_poisoned(cause):
            raise error from cause
        served.renew()

    def _tell_admitted(self, admitted: Admissions) -> None:
        for request_id, cached_tokens in admitted:
            self._outbox.notice(Admitted(request_id, cached_tokens))
        self._outbox.flush()

    def _tell_usage(self, now: float) -> None:
        if now < self._tell_usage_at_s:
            return
        self._tell_usage_at_s = now + _USAGE_INTERVAL_S
        for served in self._served.values():
            usage = served.usage()
            if usage is not None and usage != served.told_usage:
                served.told_usage = usage
                self._outbox.notice(usage)

    def _tell(self, output: StepOutput) -> None:
        outbox = self._outbox
        for request_id, cached_tokens in output.adopted:
            outbox.notice(Adopted(request_id, cached_tokens))
        for stream, token in output.scores:
            record = encode_token(stream, token.token_id, token.logprob, token.top, of_prompt=True)
            outbox.record(record)
        for stream, token, reason in output.tokens:
            outbox.record(encode_token(stream, token.token_id, token.logprob, token.top))
            if reason is not None:
                self._finish(stream, reason)
        for stream, index, vector in output.vectors:
            outbox.record(encode_vector(stream, index, vector))
        for stream, reason in output.finished:
            self._finish(stream, reason)
        for request_id, error in output.failed:
            self._requests.end_request(request_id)
            outbox.notice(RequestFailed(request_id, error))
        outbox.flush()

    def _finish(self, stream: int, reason: FinishReason) -> None:
        self._requests.end_stream(stream)
        self._outbox.record(encode_finish(stream, reason))
