"""What commands ask for, as engines take it: token ids and images are fetched where they lie."""

from array import array

from cortex_core.ipc.segment import Segment
from neurond.actor.images import ImageInbox
from neurond.engine.embedding import EmbeddingRequest
from neurond.engine.engine import EngineRequest
from neurond.protocol import Embed, Generate


class CommandReader:
    """Reads what commands refer to. Used by the loop's thread only; both stay their owner's.

    Args:
        prompt_area: ranges of it are the actor's until it has told of the request.
        images: has those of each request that was not read or dropped.
    """

    def __init__(self, prompt_area: Segment, images: ImageInbox) -> None:
        self._prompt_area = prompt_area
        self._images = images

    def generation(self, command: Generate) -> EngineRequest:
        """Return what is to be generated, without the form that it is held to.

        Raises:
            ProtocolError: its images did not come.
            InvalidRequest: the prompt has other placeholders than the images.
        """
        token_ids = self._token_ids(command.prompt_offset, command.num_prompt_tokens)
        images = self._images.take(command, token_ids) if command.images else None
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
            images=images,
        )

    def embedding(self, command: Embed) -> EmbeddingRequest:
        """Return what is to be embedded."""
        place = command.prompt_offset
        inputs = []
        for length in command.input_tokens:
            inputs.append(self._token_ids(place, length))
            place += 4 * length
        return EmbeddingRequest(
            command.request_id,
            command.stream,
            inputs,
            dimensions=command.dimensions,
            principal=command.principal,
        )

    def drop(self, command: Generate | Embed) -> None:
        """Give back what belongs to a command that was not read and will not be."""
        if isinstance(command, Generate):
            self._images.drop(command)

    def _token_ids(self, offset: int, count: int) -> "array[int]":
        """Copy token ids out of the prompt area."""
        token_ids = array("i")
        token_ids.frombytes(self._prompt_area.buf[offset : offset + 4 * count])
        return token_ids


def streams_of(command: Generate | Embed) -> range:
    """Return the streams that a command's answer comes by."""
    if isinstance(command, Embed):
        return range(command.stream, command.stream + 1)
    return range(command.first_stream, command.first_stream + command.n)
