"""Where an actor gets the images of requests from: descriptors of segments, over a socket pair.

The supervisor sends those of a request in one message with the request's id, before the command
that goes over the data socket. Images of a request that the actor does not compute are dropped with
its command. A command that could not be sent leaves its message; that is dropped when the next one
is fetched.
"""

import contextlib
import os
import socket
from array import array
from typing import Final

from cortex_core.errors import ProtocolError
from cortex_core.ids import RequestId
from neurond.engine.images import ImagePrompt, place_images
from neurond.images.arrays import map_arrays
from neurond.images.limits import MAX_FDS
from neurond.protocol import Generate

_MAX_ID_BYTES: Final = 4096


class ImageInbox:
    """The actor's end of the socket pair; takes `fd` over. Used by the loop's thread only."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)

    def take(self, command: Generate, token_ids: "array[int]") -> ImagePrompt:
        """Return the images of a request, whose prompt has `token_ids`.

        Raises:
            ProtocolError: they did not come.
            InvalidRequest: the prompt has other placeholders than the images.
        """
        fds = self._take_fds(command.request_id, len(command.images))
        waiting = iter(fds)
        try:
            inputs = [
                map_arrays(fd, image.places)
                for image, fd in zip(command.images, waiting, strict=True)
            ]
        except BaseException:
            for fd in waiting:
                os.close(fd)
            raise
        assert command.placeholder_id is not None, "images come with their placeholder"
        num_prompt_tokens = len(token_ids) - command.num_replayed_tokens
        return place_images(
            token_ids[:num_prompt_tokens],
            command.placeholder_id,
            [
                (image.key, image.num_tokens, mapped)
                for image, mapped in zip(command.images, inputs, strict=True)
            ],
        )

    def drop(self, command: Generate) -> None:
        """Give back the images of a request that is not computed; they have not been taken."""
        if not command.images:
            return
        with contextlib.suppress(ProtocolError):  # there are none, which is as well
            for fd in self._take_fds(command.request_id, len(command.images)):
                os.close(fd)

    def close(self) -> None:
        """Take nothing more."""
        self._socket.close()

    def _take_fds(self, request_id: RequestId, count: int) -> list[int]:
        while True:
            try:
                message, fds, _, _ = socket.recv_fds(self._socket, _MAX_ID_BYTES, MAX_FDS)
            except OSError as ex:
                raise ProtocolError(f"cannot take the images of {request_id}: {ex}") from ex
            if message.decode() == request_id and len(fds) == count:
                return fds
            for fd in fds:
                os.close(fd)
            if not message or message.decode() == request_id:
                raise ProtocolError(f"cannot take the images of {request_id}: they did not come")
