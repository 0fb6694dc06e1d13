"""From the events of an embedding request to its whole answer."""

from collections.abc import AsyncIterable

from cortex_core.canonical import Completed, Failed
from cortex_core.canonical_embedding import EmbedAnswer, Embedded, EmbedEvent
from cortex_core.errors import ProtocolError, error_from_info


async def collect_embeddings(events: AsyncIterable[EmbedEvent], num_inputs: int) -> EmbedAnswer:
    """Return the answer once the last event has come; whoever made `events` closes them.

    Raises:
        CortexError: the events ended with `Failed`, and this is that error.
        ProtocolError: an input has no vector, or an unknown one has.
    """
    vectors: dict[int, bytes] = {}
    async for event in events:
        match event:
            case Embedded(index, vector):
                vectors[index] = vector
            case Failed(error):
                raise error_from_info(error)
            case Completed(usage):
                if vectors.keys() != set(range(num_inputs)):
                    raise ProtocolError(
                        f"cannot read the vectors: {len(vectors)} came for {num_inputs} inputs"
                    )
                return EmbedAnswer(tuple(vectors[i] for i in range(num_inputs)), usage)
    raise ProtocolError("cannot read the vectors: they ended without a last event")
