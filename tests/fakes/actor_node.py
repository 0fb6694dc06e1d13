"""A real supervisor with one real actor process, over the counting backend of `fake_engine`."""

from pathlib import Path

import psutil

from cortex_core.canonical import SamplingParams
from cortex_core.errors import Timeout
from cortex_core.ids import ModelId, RequestId
from cortex_core.neuron_api import LoadProgress, LoadRequest, ModelProfile
from neurond.devices import CPU, Devices
from neurond.stream_items import ChoiceFinished, StreamItem, Token
from neurond.supervisor.jobs import EngineJob
from neurond.supervisor.settings import SupervisorSettings
from neurond.supervisor.streams import TokenStream
from neurond.supervisor.supervisor import Supervisor
from tests.fakes.fake_library import FolderLibrary
from tests.fakes.waiting import WAIT_S, wait_until_async

READY_TIMEOUT_S = 60.0
PACED = "tests.fakes.fake_engine:PacedBackend"


class Node:
    """A supervisor under test, and the shortest way to use it."""

    def __init__(self, root: Path, devices: Devices | None = None, **settings: object) -> None:
        runtime_dir = root / "run"
        models = root / "models"
        models.mkdir(parents=True, exist_ok=True)
        self.runtime_dir = runtime_dir
        self.profiles: dict[ModelId, ModelProfile] = {}
        self.library = FolderLibrary(models)
        defaults: dict[str, object] = {
            "backend": "tests.fakes.fake_engine:CountingBackend",
            "threads": 1,
            "watch_interval_s": 0.05,
            "idle_deadline_s": 30.0,
        }
        self.supervisor = Supervisor(
            SupervisorSettings(runtime_dir=runtime_dir, **(defaults | settings)),
            self.library,
            devices or Devices.discover([CPU]),
            lambda model_id: self.profiles.get(model_id, ModelProfile()),
        )

    async def start(self) -> None:
        await self.supervisor.start()
        assert await self.devices_ready(READY_TIMEOUT_S)

    async def devices_ready(self, timeout_s: float) -> bool:
        """Wait until no device is starting, `timeout_s` at most; whether all are ready then."""

        def states() -> set[str]:
            return {device.state for device in self.supervisor.health().devices}

        await wait_until_async(lambda: "starting" not in states(), timeout_s=timeout_s)
        return states() == {"ready"}

    async def load(self, model_id: ModelId) -> None:
        await self.supervisor.load(LoadRequest(model_id), ignore_progress)

    async def loaded(self, name: str = "counting") -> ModelId:
        model_id = self.library.add(name)
        await self.load(model_id)
        return model_id

    def submit(self, model_id: ModelId, prompt: list[int], **changes: object) -> TokenStream:
        return self.supervisor.submit(job(model_id, prompt, **changes))

    def in_flight(self, model_id: ModelId) -> int:
        view = self.supervisor.model(model_id)
        return view.running + view.waiting

    @property
    def actor_pid(self) -> int:
        children = psutil.Process().children()
        (actor,) = [child for child in children if child.name().startswith("neuron:")]
        return actor.pid

    @property
    def restarts(self) -> int:
        return self.supervisor.health().devices[0].restarts


async def until_stuck(node: Node) -> None:
    """Return when the actor's loop has not answered for half a second."""
    while True:
        try:
            await node.supervisor.ping(CPU, 0.5)
        except Timeout:
            return


def job(model_id: ModelId, prompt: list[int], **changes: object) -> EngineJob:
    values: dict[str, object] = {
        "request_id": RequestId("r"),
        "model_id": model_id,
        "prompt_token_ids": prompt,
        "sampling": SamplingParams(),
        "max_tokens": 8,
        "seed": 1,
    }
    return EngineJob(**(values | changes))


def ignore_progress(_progress: LoadProgress) -> None:
    pass


def tokens_of(items: list[StreamItem], index: int = 0) -> list[int]:
    return [item.token_id for item in items if isinstance(item, Token) and item.index == index]


def finishes_of(items: list[StreamItem]) -> dict[int, str]:
    return {item.index: item.reason for item in items if isinstance(item, ChoiceFinished)}


async def collect(stream: TokenStream) -> list[StreamItem]:
    items: list[StreamItem] = []
    await collect_into(items, stream)
    return items


async def collect_into(items: list[StreamItem], stream: TokenStream) -> None:
    """Take all that comes; what came before an error is among `items` then."""
    while not stream.ended:
        items += await stream.take(WAIT_S)


class Host:
    """What this process held of its host at a time: descriptors and children.

    Files in /dev/shm are no part of it: other processes make and remove theirs meanwhile, and the
    segments of this project have no name there.
    """

    def __init__(self) -> None:
        self._held = _held()

    def added(self) -> list[str]:
        """Return what is held now and was not then."""
        return sorted(_held() - self._held)


def _held() -> set[str]:
    children = {f"child {child.pid}" for child in psutil.Process().children(recursive=True)}
    return children | {f"descriptor {path.name}" for path in Path("/proc/self/fd").iterdir()}
