"""One request from model name to last event: the only place where decisions and I/O meet.

The rule of the stream (see `cortex_core.canonical`) holds over every replica that takes part:
`Started` once, no token lost or doubled, exactly one terminal event, and never a silence of more
than a second: the fleet client and the neuron client both yield a sign of life before that.
"""

import logging
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec

from cortex_core.canonical import Completed, Event, Failed, GenerateRequest, Ping
from cortex_core.errors import CortexError, InternalError, NodeUnavailable, error_from_info
from cortex_core.ids import ReplicaId
from cortex_core.joined_events import joined
from cortex_core.logs import kv
from cortexd.continuation import StreamLedger, has_no_room
from cortexd.fleet.client import Lease
from cortexd.request_gateway import RequestGateway
from cortexd.request_record import Outcome, RequestRecord

log = logging.getLogger(__name__)

_SEED_BITS = 63


class Nodes(Protocol):
    """What the gateway asks of `cortexd.neuron_client.NeuronClient`."""

    def generate(self, endpoint: str, request: GenerateRequest) -> AsyncGenerator[Event, None]: ...


class Gateway(RequestGateway[Nodes]):
    """Generates text; serves requests on one worker's event loop."""

    def prepare(self, request: GenerateRequest) -> GenerateRequest:
        """Return the request with its model found and its seed fixed.

        Raises:
            ModelNotFound: nothing has the name that the client gave.
            InvalidRequest: the model is one for embeddings.
            ShuttingDown: no new work is taken.
        """
        model = self._find_model(request.model, "completions")
        sampling = request.sampling
        if sampling.seed is None:
            sampling = msgspec.structs.replace(sampling, seed=secrets.randbits(_SEED_BITS))
        return msgspec.structs.replace(
            request,
            model=model,
            sampling=sampling,
            want_prompt_token_ids=request.n == 1,
        )

    def generate(self, request: GenerateRequest, path: str) -> AsyncGenerator[Event, None]:
        """Yield the events of a prepared request; the last one is `Completed` or `Failed`.

        How it ended is logged, with the `path` that it came in by.

        Closing the generator, or cancelling the task in it, gives up the place in the queue or
        aborts the node's stream at once. Never raises anything else.
        """
        return self._generate(request, path, [])

    def generate_together(
        self, requests: Sequence[GenerateRequest], path: str
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of prepared requests, one or more, as those of one.

        See `cortex_core.joined_events.joined`; otherwise as `generate`. The first one that fails
        ends all, and all are logged and counted with its error: no client went away.
        """
        failed: list[CortexError] = []
        streams = [self._generate(request, path, failed) for request in requests]
        return streams[0] if len(streams) == 1 else joined(streams, choices=requests[0].n)

    async def _generate(
        self, request: GenerateRequest, path: str, failed: list[CortexError]
    ) -> AsyncGenerator[Event, None]:
        """See `generate`. `failed` is shared by requests that end with the first that fails."""
        ledger = StreamLedger(request)
        record = self._record(request.request_id, request.model, path)
        outcome: Outcome = "cancelled"
        try:
            async with aclosing(self._attempts(request, ledger, record)) as events:
                async for event in events:
                    if isinstance(event, Completed):
                        outcome = "completed"
                    yield event
        except CortexError as error:
            outcome = error
            failed.append(error)
            yield Failed(error.info())
        except Exception as error:  # noqa: BLE001 the record logs it
            outcome = InternalError("cannot serve the request: internal error")
            failed.append(outcome)
            outcome.__cause__ = error
            yield Failed(outcome.info())
        finally:
            if outcome == "cancelled" and failed:
                # As it was told: whence it came is in the log of the request that failed.
                outcome = error_from_info(failed[0].info())
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
                placing = self._place(
                    request.model,
                    request.request_id,
                    priority=request.priority,
                    principal=request.principal,
                    failed_on=failed_on,
                    waited_s=ledger.attempts.waited_s,
                )
                async with aclosing(placing) as steps:
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
                stream = self._nodes.generate(lease.replica.endpoint, ledger.next_request())
                async with aclosing(stream) as events:
                    async for event in events:
                        seen = self._seen(event, ledger, record)
                        yield seen
                        if isinstance(seen, Completed):
                            return
                raise NodeUnavailable(f"cannot finish the answer: node {record.node} broke off")
            except CortexError as error:
                if lease is None:
                    raise ledger.attempts.not_placed(error) from None
                last = self._after(error, lease, request, ledger, record)
                if last is not None:
                    yield last
                    return
                failed_on = tuple(dict.fromkeys((*failed_on, lease.replica.id)))
            finally:
                if lease is not None:
                    lease.release()

    def _seen(self, event: Event, ledger: StreamLedger, record: RequestRecord) -> Event:
        """Return what the client is to see of an event of the node."""
        self._check_drain()
        seen = ledger.take(event)
        if seen is None:
            return Ping()
        if ledger.tokens_sent:
            record.token()
        return seen

    def _after(
        self,
        error: CortexError,
        lease: Lease,
        request: GenerateRequest,
        ledger: StreamLedger,
        record: RequestRecord,
    ) -> Completed | None:
        """Return None to go on elsewhere, the last event if only that was missing, else raise."""
        self._tell_of(error, lease.replica.id)
        last = ledger.completed_without_saying()
        if last is not None:
            return last
        if not ledger.goes_on_after(error, self._clock()):
            raise ledger.attempts.as_told(error)
        if ledger.tokens_sent:
            record.continued()
        told = kv(
            request_id=request.request_id,
            replica=lease.replica.id,
            tokens_sent=ledger.completion_tokens,
            cause=error.message,
        )
        if has_no_room(error):
            log.debug("node has no room, the request waits", extra=told)
        else:
            log.warning("replica failed, the request goes on elsewhere", extra=told)
        return None
