"""Images go to the actor before the request that they belong to."""

from collections.abc import Iterator

import msgspec
import pytest

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo, Overloaded
from cortex_core.ids import RequestId
from cortex_core.ipc.segment import Segment
from neurond import protocol
from neurond.images.arrays import ArrayPlace
from neurond.images.held import HeldImages
from neurond.images.read_image import FEATURE_MARK, ReadImage
from neurond.supervisor import inflight
from neurond.supervisor.jobs import EngineJob
from tests.unit.neurond.supervisor.inflight_rig import MODEL, Fixture


def image_job(*images: ReadImage) -> EngineJob:
    return EngineJob(
        request_id=RequestId("r"),
        model_id=MODEL,
        prompt_token_ids=[1, 2, 3, 4],
        sampling=SamplingParams(),
        max_tokens=5,
        seed=1,
        images=images,
        placeholder_id=2,
    )


@pytest.fixture
def image() -> Iterator[ReadImage]:
    places = (ArrayPlace("pixel_values", "<f4", (2,), 0),)
    held = HeldImages(1 << 20, lambda: None)
    held.begin(held)
    read = ReadImage(
        b"k",
        f"<{FEATURE_MARK}>",
        places,
        Segment.create("neuron-image", 4096),
        held.hold(held, 4096),
    )
    yield read
    read.segment.close()


async def test_images_go_ahead_of_their_request(image: ReadImage) -> None:
    fixture = Fixture()
    fixture.table.submit(image_job(image, image))
    (command,) = fixture.actor.data
    assert isinstance(command, protocol.Generate)
    assert fixture.actor.images == [(command.request_id, 2)]
    assert command.images == (protocol.PromptImage(b"k", 1, image.places),) * 2
    assert command.placeholder_id == 2


async def test_ids_of_any_length_are_short_and_unique_towards_the_actor(image: ReadImage) -> None:
    fixture = Fixture()
    job = msgspec.structs.replace(
        image_job(image), request_id=RequestId("a" + "\N{GRINNING FACE}" * 5000)
    )
    fixture.table.submit(job)
    fixture.table.submit(job)
    first, second = (command.request_id for command in fixture.actor.data)
    assert first != second
    assert max(len(first.encode()), len(second.encode())) < 2048
    assert [request_id for request_id, _ in fixture.actor.images] == [first, second]


async def test_a_request_whose_images_cannot_be_sent_leaves_nothing(image: ReadImage) -> None:
    fixture = Fixture(area_bytes=16)
    fixture.actor.images_full = True
    with pytest.raises(Overloaded):
        fixture.table.submit(image_job(image))
    assert (fixture.actor.data, len(fixture.table)) == ([], 0)
    fixture.actor.images_full = False
    fixture.table.submit(image_job(image))


async def test_images_in_flight_have_a_bound(
    image: ReadImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "MAX_IMAGE_BYTES", 8191)
    fixture = Fixture()
    fixture.table.submit(image_job(image))
    with pytest.raises(Overloaded, match="have 4096 bytes, and those in flight have 4096 of 8191"):
        fixture.table.submit(image_job(image))
    fixture.submit([1])
    failed = protocol.RequestFailed(fixture.actor.data[0].request_id, ErrorInfo("timeout", "x"))
    fixture.table.request_failed(failed)
    fixture.table.submit(image_job(image))
