"""One request from model name to last event: the only place where decisions and I/O meet.

The rule of the stream (see `cortex_core.canonical`) holds over every replica that takes part:
`Started` once, no token lost or doubled, exactly one terminal event, and never a silence of more
than a second: the fleet client and the neuron client both yield a sign of life before that.
"""

import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import msgspec

from cortex_core.canonical import Completed, Event, Failed, GenerateRequest, Loading, Ping
from cortex_core.capabilities import Ability, require_ability
from cortex_core.errors import CortexError, ErrorInfo, InternalError, NodeUnavailable, ShuttingDown
from cortex_core.ids import ModelId, ReplicaId, RequestId
from cortex_core.logs import kv
from cortexd.continuation import StreamLedger, is_replicas_fault
from cortexd.drain import Drain
from cortexd.fleet.client import Lease
from cortexd.metrics import GatewayMetrics
from cortexd.request_record import Outcome, RequestRecord

log = logging.getLogger(__name__)

DRAIN_RETRY_AFTER_S = 15.0
_SEED_BITS = 63


class Fleet(Protocol):
    """What the gateway asks of `cortexd.fleet.client.FleetClient`."""

    def resolve(self, text: str) -> ModelId: ...

    def capabilities(self, model_id: ModelId) -> tuple[str, ...]: ...

    def acquire(
        self,
        model_id: ModelId,
        request_id: RequestId,
        *,
        priority: int = 0,
        principal: str | None = None,
        failed_on: tuple[ReplicaId, ...] = (),
    ) -> AsyncGenerator[Loading | Lease, None]: ...

    def report_failure(self, replica_id: ReplicaId, error: ErrorInfo) -> None: ...


class Nodes(Protocol):
    """What the gateway asks of `cortexd.neuron_client.NeuronClient`."""

    def generate(self, endpoint: str, request: GenerateRequest) -> AsyncGenerator[Event, None]: ...


class Gateway:
    """Serves requests on one worker's event loop."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        nodes: Nodes,
        metrics: GatewayMetrics,
        drain: Drain,
        clock: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._nodes = nodes
        self._metrics = metrics
        self._drain = drain
        self._clock = clock

    def prepare(self, request: GenerateRequest) -> GenerateRequest:
        """Return the request with its model found and its seed fixed.

        Raises:
            ModelNotFound: nothing has the name that the client gave.
            InvalidRequest: the model is one for embeddings.
            ShuttingDown: no new work is taken.
        """
        if self._drain.begun:
            raise shutting_down()
        sampling = request.sampling
        if sampling.seed is None:
            sampling = msgspec.structs.replace(sampling, seed=secrets.randbits(_SEED_BITS))
        return msgspec.structs.replace(
            request,
            model=find_model(self._fleet, request.model, "completions"),
            sampling=sampling,
            want_prompt_token_ids=request.n == 1,
        )

    def refused(self, error: CortexError) -> None:
        """Count a request that never came to `generate`, because of `error`."""
        self._metrics.count_refused(error.code)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Yield the events of a prepared request; the last one is `Completed` or `Failed`.

        Closing the generator, or cancelling the task in it, gives up the place in the queue or
        aborts the node's stream at once. Never raises anything else.
        """
        ledger = StreamLedger(request)
        record = RequestRecord(self._metrics, request.model, self._clock)
        outcome: Outcome = "cancelled"
        try:
            async with aclosing(self._attempts(request, ledger, record)) as events:
                async for event in events:
                    if isinstance(event, Completed):
                        outcome = "completed"
                    yield event
        except CortexError as error:
            outcome = error
            if ledger.tokens_sent:
                told = kv(request_id=request.request_id, node=record.node, cause=error.message)
                log.warning("stream broken off", extra=told)
            yield Failed(error.info())
        except Exception as error:
            log.exception("request failed", extra=kv(request_id=request.request_id))
            outcome = InternalError("cannot serve the request: internal error")
            outcome.__cause__ = error
            yield Failed(outcome.info())
        finally:
            record.end(ledger.used(), outcome)
            if not ledger.exact:
                told = kv(request_id=request.request_id, model=request.model)
                log.warning("stream went on with other weights", extra=told)

    async def _attempts(
        self, request: GenerateRequest, ledger: StreamLedger, record: RequestRecord
    ) -> AsyncGenerator[Event, None]:
        """Yield events from one replica after another until one comes to an end."""
        failed_on: tuple[ReplicaId, ...] = ()
        while True:
            lease: Lease | None = None
            try:
                waited = bool(failed_on)
                async with aclosing(self._place(request, failed_on)) as steps:
                    async for step in steps:
                        if isinstance(step, Lease):
                            lease = step
                        else:
                            waited = True
                            yield step
                assert lease is not None
                record.node = lease.replica.node
                if waited:
                    # The node's time to say something begins anew, so the client hears from us.
                    yield Ping()
                async with aclosing(self._relay(lease, ledger, record)) as events:
                    async for event in events:
                        yield event
                return
            except CortexError as error:
                if lease is None:
                    raise
                last = self._after(error, lease, request, ledger, record)
                if last is not None:
                    yield last
                    return
                failed_on = tuple(dict.fromkeys((*failed_on, lease.replica.id)))
            finally:
                if lease is not None:
                    lease.release()

    async def _place(
        self, request: GenerateRequest, failed_on: tuple[ReplicaId, ...]
    ) -> AsyncGenerator[Loading | Lease, None]:
        acquiring = self._fleet.acquire(
            request.model,
            request.request_id,
            priority=request.priority,
            principal=request.principal,
            failed_on=failed_on,
        )
        async with aclosing(acquiring) as steps:
            async for step in steps:
                if self._drain.expired and not isinstance(step, Lease):
                    raise shutting_down()
                yield step

    async def _relay(
        self, lease: Lease, ledger: StreamLedger, record: RequestRecord
    ) -> AsyncGenerator[Event, None]:
        replica = lease.replica
        stream = self._nodes.generate(replica.endpoint, ledger.next_request())
        async with aclosing(stream) as events:
            async for event in events:
                if self._drain.expired:
                    raise shutting_down()
                seen = ledger.take(event)
                if seen is None:
                    yield Ping()
                    continue
                if ledger.tokens_sent:
                    record.token()
                yield seen
                if isinstance(seen, Completed):
                    return
        raise NodeUnavailable(f"cannot finish the answer: node {replica.node} broke off")

    def _after(
        self,
        error: CortexError,
        lease: Lease,
        request: GenerateRequest,
        ledger: StreamLedger,
        record: RequestRecord,
    ) -> Completed | None:
        """Return None to go on elsewhere, the last event if only that was missing, else raise."""
        if self._drain.expired:
            raise shutting_down()
        if is_replicas_fault(error):
            self._fleet.report_failure(lease.replica.id, error.info())
        last = ledger.completed_without_saying()
        if last is not None:
            return last
        if not ledger.can_go_on(error):
            raise error
        if ledger.tokens_sent:
            record.continued()
        told = kv(
            request_id=request.request_id,
            replica=lease.replica.id,
            tokens_sent=ledger.completion_tokens,
            cause=error.message,
        )
        log.warning("replica failed, the request goes on elsewhere", extra=told)
        return None


def find_model(fleet: Fleet, name: str, ability: Ability) -> ModelId:
    """Return the model that a client means.

    Raises:
        ModelNotFound: nothing has that name.
        InvalidRequest: the model is known to lack `ability`.
    """
    model_id = fleet.resolve(name)
    require_ability(model_id, fleet.capabilities(model_id), ability)
    return model_id


def shutting_down() -> ShuttingDown:
    """Return the error for work that comes, or still runs, after the drain."""
    return ShuttingDown(
        "cannot serve the request: the gateway is shutting down", retry_after_s=DRAIN_RETRY_AFTER_S
    )
