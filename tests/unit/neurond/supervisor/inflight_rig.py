"""A table of requests in flight, over an actor that notes its commands."""

from collections.abc import Sequence

from cortex_core.canonical import SamplingParams
from cortex_core.errors import Overloaded
from cortex_core.ids import ModelId, RequestId
from neurond import protocol
from neurond.supervisor.inflight import InFlight
from neurond.supervisor.jobs import EngineJob
from neurond.supervisor.streams import TokenStream

MODEL = ModelId("file:m")


class Actor:
    """Notes commands; its data socket can be full."""

    def __init__(self) -> None:
        self.control: list[protocol.Command] = []
        self.data: list[protocol.Generate | protocol.Embed] = []
        self.images: list[tuple[RequestId, int]] = []
        self.images_full = False
        self.full = False
        self.broken = False

    def send_control(self, command: protocol.Command) -> None:
        self.control.append(command)

    def send_images(self, request_id: RequestId, fds: Sequence[int]) -> None:
        assert not any(command.request_id == request_id for command in self.data)
        if self.images_full:
            raise Overloaded("cannot pass on the images")
        self.images.append((request_id, len(fds)))

    def send_data(self, command: protocol.Command) -> None:
        if self.full:
            raise Overloaded("cannot send message: the peer's queue is full")
        if self.broken:
            raise OverflowError("can't serialize ints >= 2**64 or < -2**63")
        assert isinstance(command, protocol.Generate | protocol.Embed)
        self.data.append(command)


class Fixture:
    def __init__(self, area_bytes: int = 256, max_requests: int = 10) -> None:
        self.actor = Actor()
        self.area = bytearray(area_bytes)
        self.ended: list[ModelId] = []
        self.table = InFlight(
            self.actor,
            memoryview(self.area),
            max_requests=max_requests,
            on_end=self.ended.append,
        )

    def submit(self, prompt: list[int], n: int = 1) -> TokenStream:
        return self.table.submit(
            EngineJob(
                request_id=RequestId("r"),
                model_id=MODEL,
                prompt_token_ids=prompt,
                sampling=SamplingParams(),
                max_tokens=5,
                seed=1,
                n=n,
            )
        )
