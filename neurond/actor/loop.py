"""The actor's loop: commands in, one engine step at a time, tokens out.

It runs in the actor's main thread and is the only user of the sockets, the ring and the engines.
Each turn: control commands, data commands, what the loader and the format queue have, then one step
of the next engine that has work, and one message for it. With no work it sleeps in a poll, so that
a command is seen at once and an idle device costs nothing.
"""

import logging
import time
from array import array
from collections import deque
from dataclasses import replace
from typing import assert_never

from cortex_core.canonical import FinishReason
from cortex_core.errors import CortexError, ErrorInfo, ModelNotLoaded, error_from_info
from cortex_core.ids import ModelId, RequestId
from cortex_core.ipc.blocking_channel import BlockingChannel, wait_readable
from cortex_core.ipc.liveness import LivenessWriter, Phase
from cortex_core.ipc.segment import Segment
from cortex_core.logs import kv
from neurond.actor.backend import Backend, ServedModel
from neurond.actor.formats import FormatQueue
from neurond.actor.launch import PhaseDeadlines
from neurond.actor.loader import Loader
from neurond.actor.outbox import Outbox
from neurond.actor.requests import RequestTable
from neurond.engine.engine import Admissions, Engine, EngineRequest, StepOutput
from neurond.protocol import (
    Admitted,
    Cancel,
    Configure,
    ControlCommand,
    DataCommand,
    FinishStream,
    Generate,
    KvUsage,
    LoadModel,
    ModelLoadFailed,
    ModelLoading,
    ModelUnloaded,
    Pause,
    Ping,
    Pong,
    RequestFailed,
    Resume,
    Shutdown,
    UnloadModel,
)
from neurond.ring_records import encode_finish, encode_token

_BLOCKED_POLL_S = 0.002
_USAGE_INTERVAL_S = 1.0
_MAX_FAILED_STEPS = 3
"""Unexpected exceptions of one engine in a row after which the process is not to be trusted."""

_log = logging.getLogger(__name__)


class _Serving:
    """A loaded model and the engine that serves it now."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.engine: Engine = model.new_engine()
        self.failed_steps = 0
        self.told_usage: KvUsage | None = None

    def usage(self) -> KvUsage:
        scheduler = self.engine.scheduler
        return KvUsage(
            self.model.loaded.model_id,
            scheduler.num_available_blocks,
            scheduler.num_cached_blocks,
            scheduler.num_preemptions,
            scheduler.num_drafted_tokens,
            scheduler.num_accepted_tokens,
        )


class ActorLoop:
    """Owns the engines of one device. Everything it is given stays its caller's to close."""

    def __init__(
        self,
        backend: Backend,
        control: BlockingChannel[ControlCommand],
        data: BlockingChannel[DataCommand],
        outbox: Outbox,
        prompt_area: Segment,
        liveness: LivenessWriter,
        deadlines: PhaseDeadlines,
    ) -> None:
        self._backend = backend
        self._control = control
        self._data = data
        self._outbox = outbox
        self._prompt_area = prompt_area
        self._liveness = liveness
        self._deadlines = deadlines
        self._loader = Loader(backend)
        self._formats = FormatQueue()
        self._served: dict[ModelId, _Serving] = {}
        self._order: deque[ModelId] = deque()
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
            serving = self._next_with_work()
            if serving is None:
                self._idle()
            else:
                self._step(serving)

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
                case Generate():
                    self._generate(command)
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
                self._outbox.notice(ModelLoadFailed(command.model_id, result))
                continue
            self._served[command.model_id] = _Serving(result)
            self._order.append(command.model_id)
            self._outbox.notice(result.loaded)

    def _generate(self, command: Generate) -> None:
        streams = range(command.first_stream, command.first_stream + command.n)
        if self._requests.was_cancelled(command.request_id):
            for stream in streams:
                self._outbox.record(encode_finish(stream, "cancelled"))
            return
        serving = self._served.get(command.model_id)
        try:
            if serving is None:
                raise ModelNotLoaded(f"cannot generate: {command.model_id} is not loaded")
            request = self._engine_request(command)
            if command.response_format is None:
                serving.engine.add(request)
            else:
                self._formats.put(request, command.response_format, serving.model.formats)
        except CortexError as ex:
            self._outbox.notice(RequestFailed(command.request_id, ex.info()))
            return
        self._requests.add(command.request_id, command.model_id, streams)

    def _take_formats(self) -> None:
        for request, outcome in self._formats.take():
            request_id = request.request_id
            model_id = self._requests.model_of(request_id)
            assert model_id is not None, "a request that has ended still waits for its format"
            try:
                if isinstance(outcome, ErrorInfo):
                    raise error_from_info(outcome)
                if outcome.is_complete:
                    self._end_at_once(request)
                else:
                    self._served[model_id].engine.add(replace(request, grammar=outcome))
            except CortexError as ex:
                self._requests.end_request(request_id)
                self._outbox.notice(RequestFailed(request_id, ex.info()))

    def _end_at_once(self, request: EngineRequest) -> None:
        """Answer a request whose output has its whole form already, as far as it was replayed."""
        self._outbox.notice(Admitted(request.request_id, 0))
        for choice in range(request.n):
            self._finish(request.first_stream + choice, "stop")

    def _engine_request(self, command: Generate) -> EngineRequest:
        start = command.prompt_offset
        token_ids = array("i")
        token_ids.frombytes(self._prompt_area.buf[start : start + 4 * command.num_prompt_tokens])
        return EngineRequest(
            request_id=command.request_id,
            first_stream=command.first_stream,
            prompt_token_ids=token_ids,
            sampling=command.sampling,
            max_tokens=command.max_tokens,
            seed=command.seed,
            n=command.n,
            num_replayed_tokens=command.num_replayed_tokens,
            eos_token_ids=command.eos_token_ids,
            priority=command.priority,
            principal=command.principal,
        )

    def _cancel(self, request_id: RequestId) -> None:
        model_id = self._requests.model_of(request_id)
        if model_id is None:
            self._requests.keep_cancel(request_id)
        elif self._formats.drop(request_id):
            for stream in self._requests.streams_of(request_id):
                self._finish(stream, "cancelled")
        else:
            self._served[model_id].engine.cancel(request_id)

    def _engine_of(self, stream: int) -> Engine | None:
        model_id = self._requests.model_of_stream(stream)
        return None if model_id is None else self._served[model_id].engine

    def _unload(self, model_id: ModelId) -> None:
        serving = self._served.pop(model_id, None)
        if serving is not None:
            self._order.remove(model_id)
            error = ModelNotLoaded(f"cannot go on: {model_id} was unloaded").info()
            self._fail_requests(model_id, error)
            model = serving.model
            del serving  # and with it the engine, which holds weights and KV cache
            model.free()
        self._outbox.notice(ModelUnloaded(model_id))

    def _fail_requests(self, model_id: ModelId, error: ErrorInfo) -> None:
        for request_id in self._requests.on_model(model_id):
            self._formats.drop(request_id)
            self._requests.end_request(request_id)
            self._outbox.notice(RequestFailed(request_id, error))

    def _next_with_work(self) -> _Serving | None:
        for _ in range(len(self._order)):
            self._order.rotate(-1)
            serving = self._served[self._order[-1]]
            if serving.engine.has_work():
                return serving
        return None

    def _idle(self) -> None:
        deadline_s = self._deadlines.idle_s
        if self._num_loading or self._formats.is_busy:
            # A library that loads may keep the interpreter to itself for a while.
            self._liveness.enter(Phase.LOADING, max(deadline_s, self._deadlines.step_s))
        else:
            self._liveness.enter(Phase.IDLE, deadline_s)
        wakeups = [self._loader.wakeup_fd, self._formats.wakeup_fd]
        wait_readable((self._control, self._data), min(1.0, deadline_s / 3), wakeups)

    def _wait_for_room(self) -> None:
        if self._blocked_at != self._steps:
            self._blocked_at = self._steps
            self._liveness.enter(Phase.BLOCKED, self._deadlines.blocked_s)
        wait_readable((self._control,), _BLOCKED_POLL_S)

    def _step(self, serving: _Serving) -> None:
        self._liveness.enter(Phase.STEPPING, self._deadlines.step_s)
        began_s = time.monotonic()
        try:
            output = serving.engine.step(self._tell_admitted)
        except Exception as ex:  # noqa: BLE001 - sorted out by the backend, or raised again
            _log.exception("engine step failed", extra=kv(model=serving.model.loaded.model_id))
            self._recover(serving, ex)
            return
        serving.engine.took(time.monotonic() - began_s)
        serving.failed_steps = 0
        self._steps += 1
        self._liveness.beat(self._steps)
        self._tell(output)

    def _recover(self, serving: _Serving, cause: Exception) -> None:
        """Fail what the engine held and give the model a fresh one, if the device is sound."""
        error = self._backend.describe(cause)
        serving.failed_steps += 1
        model_id = serving.model.loaded.model_id
        self._fail_requests(model_id, error.info())
        if serving.failed_steps >= _MAX_FAILED_STEPS or self._backend.is_poisoned(cause):
            raise error from cause
        serving.engine = serving.model.new_engine()

    def _tell_admitted(self, admitted: Admissions) -> None:
        for request_id, cached_tokens in admitted:
            self._outbox.notice(Admitted(request_id, cached_tokens))
        self._outbox.flush()

    def _tell_usage(self, now: float) -> None:
        if now < self._tell_usage_at_s:
            return
        self._tell_usage_at_s = now + _USAGE_INTERVAL_S
        for serving in self._served.values():
            usage = serving.usage()
            if usage != serving.told_usage:
                serving.told_usage = usage
                self._outbox.notice(usage)

    def _tell(self, output: StepOutput) -> None:
        outbox = self._outbox
        for stream, token, reason in output.tokens:
            outbox.record(encode_token(stream, token.token_id, token.logprob, token.top))
            if reason is not None:
                self._finish(stream, reason)
        for stream, reason in output.finished:
            self._finish(stream, reason)
        for request_id, error in output.failed:
            self._requests.end_request(request_id)
            outbox.notice(RequestFailed(request_id, error))
        outbox.flush()

    def _finish(self, stream: int, reason: FinishReason) -> None:
        self._requests.end_stream(stream)
        self._outbox.record(encode_finish(stream, reason))
