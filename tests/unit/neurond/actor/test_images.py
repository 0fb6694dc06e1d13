"""Images between supervisor and actor: segments by descriptor, in the order of their requests."""

import contextlib
import fcntl
import os
import socket
import struct
import termios
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cortex_core.canonical import SamplingParams
from cortex_core.errors import InvalidRequest, ProtocolError
from cortex_core.ids import ModelId, RequestId
from neurond import protocol
from neurond.actor.images import ImageInbox
from neurond.images.arrays import ArrayPlace, StoredArrays, map_arrays, store_arrays

PAD = 9
IDS = array("i", [1, PAD, PAD, 2, PAD])


def arrays(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        "pixel_values": rng.random((3, 5), dtype=np.float32),
        "image_grid_thw": np.array([[1, number, 2]]),
    }


class Wire:
    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.inbox = ImageInbox(theirs.detach())

    def send(self, request_id: str, *stored: StoredArrays) -> None:
        fds = [one.segment.fd for one in stored]
        socket.send_fds(self.ours, [request_id.encode()], fds)
        for one in stored:
            one.segment.close()

    def is_waiting(self) -> bool:
        """Whether something was sent and not yet fetched."""
        return bool(struct.unpack("i", fcntl.ioctl(self.ours, termios.TIOCOUTQ, bytes(4)))[0])


def is_open(memory: os.stat_result) -> bool:
    """Tell whether this process has a descriptor of a file."""
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.path.samestat(fd.stat(), memory):
                return True
    return False


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.ours.close()
    made.inbox.close()


def command(request_id: str, *stored: StoredArrays, counts: tuple[int, ...]) -> protocol.Generate:
    return protocol.Generate(
        request_id=RequestId(request_id),
        model_id=ModelId("m"),
        first_stream=1,
        n=1,
        prompt_offset=0,
        num_prompt_tokens=len(IDS),
        num_replayed_tokens=0,
        sampling=SamplingParams(),
        max_tokens=1,
        seed=1,
        eos_token_ids=(),
        images=tuple(
            protocol.PromptImage(bytes([number]), count, one.places)
            for number, (one, count) in enumerate(zip(stored, counts, strict=True))
        ),
        placeholder_id=PAD,
    )


def test_arrays_arrive_with_their_places(wire: Wire) -> None:
    stored = [store_arrays(arrays(number)) for number in (1, 2)]
    asked = command("r", *stored, counts=(2, 1))
    wire.send("r", *stored)
    taken = wire.inbox.take(asked, IDS)
    assert [image.places.tolist() for image in taken.images] == [[1, 2], [4]]
    for number, image in enumerate(taken.images, 1):
        for name, values in arrays(number).items():
            np.testing.assert_array_equal(image.inputs[name], values)
    del taken, image
    assert "neuron-image" not in Path("/proc/self/maps").read_text()


def test_what_a_request_left_is_passed_over(wire: Wire) -> None:
    left, stored = store_arrays(arrays(1)), store_arrays(arrays(2))
    asked = command("r2", stored, counts=(3,))
    wire.send("r1", left)
    wire.send("r2", stored)
    (image,) = wire.inbox.take(asked, IDS).images
    assert image.inputs["image_grid_thw"][0, 1] == 2


def test_images_of_a_request_that_is_not_computed_are_given_back(wire: Wire) -> None:
    left, stored = store_arrays(arrays(1)), store_arrays(arrays(2))
    dropped, asked = command("r1", left, counts=(3,)), command("r2", stored, counts=(3,))
    memory = os.fstat(left.segment.fd)
    wire.send("r1", left)
    assert wire.is_waiting()
    wire.inbox.drop(dropped)
    assert not wire.is_waiting()
    assert not is_open(memory)
    wire.send("r2", stored)
    wire.inbox.drop(msgspec.structs.replace(dropped, images=()))
    (image,) = wire.inbox.take(asked, IDS).images
    assert image.inputs["image_grid_thw"][0, 1] == 2


def test_images_behind_one_that_cannot_be_mapped_are_given_back(wire: Wire) -> None:
    stored = [store_arrays(arrays(number)) for number in (1, 2)]
    asked = command("r", *stored, counts=(2, 1))
    beyond = msgspec.structs.replace(
        asked.images[0], places=(ArrayPlace("a", "<f4", (100_000,), 0),)
    )
    asked = msgspec.structs.replace(asked, images=(beyond, asked.images[1]))
    memory = [os.fstat(one.segment.fd) for one in stored]
    wire.send("r", *stored)
    with pytest.raises(ProtocolError, match="cannot map an image"):
        wire.inbox.take(asked, IDS)
    assert not any(is_open(each) for each in memory)


def test_images_that_did_not_come(wire: Wire) -> None:
    stored = store_arrays(arrays(1))
    asked = command("r", stored, counts=(3,))
    stored.segment.close()
    with pytest.raises(ProtocolError, match="cannot take the images of r"):
        wire.inbox.take(asked, IDS)


def test_a_prompt_that_does_not_fit_its_images(wire: Wire) -> None:
    stored = store_arrays(arrays(1))
    asked = command("r", stored, counts=(2,))
    wire.send("r", stored)
    with pytest.raises(InvalidRequest, match="3 placeholder tokens"):
        wire.inbox.take(asked, IDS)


def test_replayed_output_is_no_placeholder(wire: Wire) -> None:
    stored = store_arrays(arrays(1))
    asked = command("r", stored, counts=(2,))
    asked = msgspec.structs.replace(asked, num_replayed_tokens=1)
    wire.send("r", stored)
    (image,) = wire.inbox.take(asked, IDS).images
    assert image.places.tolist() == [1, 2]


def test_arrays_beyond_their_segment() -> None:
    stored = store_arrays({"a": np.zeros(4, np.float32)})
    with pytest.raises(ProtocolError, match="cannot map an image"):
        map_arrays(stored.segment.fd, [ArrayPlace("a", "<f4", (100_000,), 0)])
