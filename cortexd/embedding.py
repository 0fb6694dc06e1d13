"""One embedding request from model name to answer.

As `cortexd.gateway` does for generation, with less to keep: the client gets nothing before the
whole answer is there, so a request whose replica breaks is simply asked again elsewhere.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import msgspec

from cortex_core.canonical import Usage
from cortex_core.canonical_embedding import EmbedAnswer, EmbedEvent, EmbedRequest
from cortex_core.embedding_answer import collect_embeddings
from cortex_core.errors import CortexError, InternalError
from cortex_core.ids import ReplicaId
from cortex_core.logs import kv
from cortexd.continuation import Attempts, has_no_room
from cortexd.fleet.client import Lease
from cortexd.request_gateway import RequestGateway
from cortexd.request_record import Outcome, RequestRecord

log = logging.getLogger(__name__)


class EmbeddingNodes(Protocol):
    """What is asked of `cortexd.neuron_client.NeuronClient`."""

    def embed(self, endpoint: str, request: EmbedRequest) -> AsyncGenerator[EmbedEvent, None]: ...


class EmbeddingGateway(RequestGateway[EmbeddingNodes]):
    """Makes vectors; serves requests on one worker's event loop."""

    def prepare(self, request: EmbedRequest) -> EmbedRequest:
        """Return the request with its model found.

        Raises:
            ModelNotFound: nothing has the name that the client gave.
            InvalidRequest: the model gives no embeddings.
            ShuttingDown: no new work is taken.
        """
        model = self._find_model(request.model, "embeddings")
        return msgspec.structs.replace(request, model=model)

    async def embed(self, request: EmbedRequest, path: str) -> EmbedAnswer:
        """Return the vectors of a prepared request; loads the model and waits as generation does.

        How it ended is logged, with the `path` that it came in by. Cancelling gives up the place in
        the queue, or the node's work, at once.

        Raises:
            CortexError: what no replica could do better.
        """
        record = self._record(request.request_id, request.model, path)
        outcome: Outcome = "cancelled"
        used = Usage(0, 0)
        try:
            answer = await self._attempts(request, record)
        except CortexError as error:
            outcome = error
            raise
        except Exception as error:
            outcome = InternalError("cannot serve the request: internal error")
            outcome.__cause__ = error
            raise outcome from error
        else:
            outcome, used = "completed", answer.usage
            return answer
        finally:
            record.end(used, outcome)

    async def _attempts(self, request: EmbedRequest, record: RequestRecord) -> EmbedAnswer:
        failed_on: tuple[ReplicaId, ...] = ()
        attempts = Attempts()
        while True:
            try:
                lease = await self._placed(request, failed_on, attempts.waited_s)
            except CortexError as error:
                raise attempts.not_placed(error) from None
            record.node = lease.replica.node
            try:
                return await self._ask(lease, request)
            except CortexError as error:
                self._after(error, lease, request, attempts)
                failed_on = tuple(dict.fromkeys((*failed_on, lease.replica.id)))
            finally:
                lease.release()

    async def _placed(
        self, request: EmbedRequest, failed_on: tuple[ReplicaId, ...], waited_s: float
    ) -> Lease:
        placing = self._place(
            request.model,
            request.request_id,
            principal=request.principal,
            failed_on=failed_on,
            waited_s=waited_s,
        )
        lease: Lease | None = None
        try:
            async with aclosing(placing) as steps:
                async for step in steps:
                    if isinstance(step, Lease):
                        lease = step
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        assert lease is not None
        return lease

    async def _ask(self, lease: Lease, request: EmbedRequest) -> EmbedAnswer:
        stream = self._nodes.embed(lease.replica.endpoint, request)
        async with aclosing(stream), aclosing(self._until_drained(stream)) as events:
            return await collect_embeddings(events, len(request.inputs))

    async def _until_drained(
        self, stream: AsyncGenerator[EmbedEvent, None]
    ) -> AsyncGenerator[EmbedEvent, None]:
        async for event in stream:
            self._check_drain()
            yield event

    def _after(
        self, error: CortexError, lease: Lease, request: EmbedRequest, attempts: Attempts
    ) -> None:
        """Return to go on elsewhere, else raise."""
        self._tell_of(error, lease.replica.id)
        if not attempts.failed(error, self._clock()):
            raise attempts.as_told(error)
        told = kv(request_id=request.request_id, replica=lease.replica.id, cause=error.message)
        if has_no_room(error):
            log.debug("node has no room, the request waits", extra=told)
        else:
            log.warning("replica failed, the request goes on elsewhere", extra=told)
