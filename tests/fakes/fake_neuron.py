"""A neuron over real HTTP whose memory, loads and streams do what the test says.

Runs on the test's own loop. Nothing in it takes time by itself: loads and streams wait for gates
that are open unless the test closes them.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import msgspec

from cortex_core.canonical import (
    Completed,
    CountTokensResponse,
    Event,
    Finished,
    GenerateRequest,
    Ping,
    Started,
    TextDelta,
    Usage,
)
from cortex_core.canonical_embedding import Embedded, EmbedRequest
from cortex_core.errors import (
    Conflict,
    CortexError,
    ModelNotFound,
    ModelNotLoaded,
    NotFound,
    OutOfMemory,
)
from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import (
    Activation,
    DeviceHealth,
    DeviceInfo,
    Discovery,
    Endpoint,
    Health,
    LoadProgress,
    LoadRequest,
    LoadResponse,
    ModelsResponse,
    ModelState,
    NodeModel,
    RestartRequest,
    RestartResponse,
    UnloadRequest,
    UnloadResponse,
)
from tests.fakes.scripted_http import ScriptedConnection, ScriptedServer

Script = Callable[[GenerateRequest], AsyncIterator[Event]]


def open_gate() -> asyncio.Event:
    """Return a gate that lets through; `clear` closes it, `set` opens it again."""
    gate = asyncio.Event()
    gate.set()
    return gate


class FakeNeuron:
    """One node. `files` maps the models it has on disk to what they take of a device, in MB.

    Attributes:
        load_gate, generate_gate: close them to hold loads, or streams after `Started`.
        load_errors: raised by the next loads, first one first.
        embedded, breaks_off: embedding requests that began; whether they end before their end.
        silent: accept connections and answer nothing.
        script: makes a stream's events; None is one word and done.
        loads, unloads, restarts: model ids, devices, in the order in which they were asked for.
        generated, cancelled: requests that began, and those whose client went away.
    """

    def __init__(
        self, files: dict[str, int], *, vram_mb: int = 24_000, devices: int = 1, name: str = "fake"
    ) -> None:
        self.name = name
        self.boot_id = "boot-0"
        self.state_version = 1
        self.draining = False
        self.silent = False
        self.load_gate, self.generate_gate = open_gate(), open_gate()
        self.load_errors: list[CortexError] = []
        self.script: Script | None = None
        self.loads: list[str] = []
        self.load_requests: list[LoadRequest] = []
        self.unloads: list[str] = []
        self.restarts: list[DeviceName] = []
        self.generated: list[GenerateRequest] = []
        self.cancelled: list[str] = []
        self.embedded: list[EmbedRequest] = []
        self.breaks_off = False
        self.polls = 0
        self._files = {ModelId(model): size for model, size in files.items()}
        self._vram_mb = vram_mb
        self._devices = [DeviceName(f"cuda-{n}") for n in range(devices)]
        self._memory: dict[ModelId, NodeModel] = {}
        self._server = ScriptedServer(self._serve)

    @property
    def endpoint(self) -> str:
        return self._server.endpoint

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(*exc)

    def put(self, model: str, status: ModelState = "ready", **fields: Any) -> None:
        """Put a model into memory, or change what is said of it there."""
        held = self._files[ModelId(model)] if status in ("ready", "draining") else 0
        device = self._roomiest()
        known = self._memory.get(ModelId(model))
        devices = known.devices if known else [device]
        self._memory[ModelId(model)] = NodeModel(
            id=ModelId(model),
            harness="torch",
            status=status,
            devices=devices,
            vram_used_mb=held,
            size_mb=self._files[ModelId(model)],
            weights_id=f"weights-of-{model}",
            **fields,
        )
        self.state_version += 1

    def progress(self, model: str, progress: LoadProgress) -> None:
        """Say how far a load that is held has come."""
        self._memory[ModelId(model)] = msgspec.structs.replace(
            self._memory[ModelId(model)], loading=progress
        )

    def use(self, model: str, running: int) -> None:
        """Run so many requests of somebody else on a model in memory."""
        self._memory[ModelId(model)] = msgspec.structs.replace(
            self._memory[ModelId(model)], running=running
        )

    def restart(self) -> None:
        """Come back as a new process with empty memory."""
        self.boot_id = f"boot-{int(self.boot_id[5:]) + 1}"
        self.state_version = 1
        self._memory.clear()

    def status_of(self, model: str) -> ModelState:
        held = self._memory.get(ModelId(model))
        return held.status if held else "unloaded"

    def used_mb(self, device: DeviceName) -> int:
        return sum(m.vram_used_mb for m in self._memory.values() if device in m.devices)

    def _roomiest(self) -> DeviceName:
        return min(self._devices, key=self.used_mb)

    async def _serve(self, connection: ScriptedConnection) -> None:
        while True:
            line, body = await connection.request()
            method, path, _ = line.split()
            if self.silent:
                await connection.closed_by_peer()
                return
            try:
                if path == "/generate":
                    await self._generate(connection, body)
                    continue
                if path == "/embed":
                    await self._embed(connection, body)
                    continue
                answer = await self._answer(method, path, body)
            except CortexError as ex:
                payload = msgspec.json.encode({"error": ex.info()})
                await connection.send_json(payload, status=ex.status)
                continue
            status = 503 if path == "/health" and self.draining else 200
            await connection.send_json(msgspec.json.encode(answer), status=status)

    async def _answer(self, method: str, path: str, body: bytes) -> msgspec.Struct:
        match method, path.strip("/").split("/"):
            case "GET", ["discovery"]:
                self.polls += 1
                return self._discovery()
            case "GET", ["health"]:
                return self._health()
            case "GET", ["models"]:
                return ModelsResponse(self.state_version, self._models())
            case "POST", ["models", "load"]:
                return await self._load(msgspec.json.decode(body, type=LoadRequest))
            case "POST", ["models", "unload"]:
                return self._unload(msgspec.json.decode(body, type=UnloadRequest))
            case "POST", ["devices", device, "restart"]:
                return self._restart(
                    DeviceName(device), msgspec.json.decode(body, type=RestartRequest)
                )
            case "POST", ["models", _, "count_tokens"]:
                return CountTokensResponse(prompt_tokens=7)
            case "GET", ["models", _, "endpoint"]:
                return Endpoint(url=f"{self.endpoint}/v1")
        raise NotFound(f"cannot find {method} {path}")

    def _discovery(self) -> Discovery:
        return Discovery(
            hostname=f"{self.name}.test",
            os="Linux",
            kernel="6.1",
            devices=[
                DeviceInfo(n, f"GPU {n}", self._vram_mb, device, kind="cuda")
                for n, device in enumerate(self._devices)
            ],
            harnesses=["torch"],
            version="0",
            boot_id=self.boot_id,
        )

    def _health(self) -> Health:
        devices = [
            DeviceHealth(
                n, device, "ready", self.used_mb(device), self._vram_mb - self.used_mb(device)
            )
            for n, device in enumerate(self._devices)
        ]
        return Health(1.0, self.state_version, self.draining, devices, Activation("done"))

    def _models(self) -> list[NodeModel]:
        on_disk = [
            NodeModel(id=model, harness="torch", status="unloaded", size_mb=size)
            for model, size in self._files.items()
            if model not in self._memory
        ]
        return [*self._memory.values(), *on_disk]

    async def _load(self, request: LoadRequest) -> LoadResponse:
        model = request.model_id
        self._check_version(request.state_version)
        self.loads.append(model)
        self.load_requests.append(request)
        if model not in self._files:
            raise ModelNotFound(f"cannot load {model}: no such file")
        self.put(model, "loading", loading=LoadProgress("loading", 0.0))
        device = request.devices[0] if request.devices else self._roomiest()
        await self.load_gate.wait()
        try:
            if self.load_errors:
                raise self.load_errors.pop(0)
            free_mb = self._vram_mb - self.used_mb(device)
            if free_mb < self._files[model]:
                raise OutOfMemory(f"cannot load {model}: it needs {self._files[model]} MB")
        except CortexError:
            self._memory.pop(model, None)
            self.state_version += 1
            raise
        self._memory[model] = msgspec.structs.replace(self._memory[model], devices=[device])
        self.put(model, "ready")
        return LoadResponse(self._memory[model], False, self.state_version)

    def _unload(self, request: UnloadRequest) -> UnloadResponse:
        self._check_version(request.state_version)
        held = self._memory.get(request.model_id)
        if request.only_idle and held is not None and held.running:
            raise Conflict(f"cannot unload {request.model_id}: requests run on it")
        self.unloads.append(request.model_id)
        if self._memory.pop(request.model_id, None) is None:
            raise ModelNotLoaded(f"cannot unload {request.model_id}: it is not loaded")
        self.state_version += 1
        return UnloadResponse(request.model_id, self.state_version)

    def _restart(self, device: DeviceName, request: RestartRequest) -> RestartResponse:
        """Take no time: what was loaded is there again when the answer comes."""
        self._check_version(request.state_version)
        self.restarts.append(device)
        self.state_version += 1
        return RestartResponse(device, self.state_version)

    def _check_version(self, decided_on: int | None) -> None:
        if decided_on is not None and decided_on != self.state_version:
            raise Conflict(f"cannot do it: state {decided_on} was {self.state_version} by now")

    async def _generate(self, connection: ScriptedConnection, body: bytes) -> None:
        request = msgspec.json.decode(body, type=GenerateRequest)
        if self.status_of(request.model) != "ready":
            raise ModelNotLoaded(f"cannot generate: {request.model} is not loaded")
        self.generated.append(request)
        await connection.begin_stream()
        gone = asyncio.create_task(connection.closed_by_peer())
        stream = asyncio.create_task(self._stream(connection, request))
        try:
            await asyncio.wait((gone, stream), return_when=asyncio.FIRST_COMPLETED)
            if not stream.done():
                self.cancelled.append(request.request_id)
                raise ConnectionAbortedError
            await stream
        finally:
            for task in (gone, stream):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await task

    async def _embed(self, connection: ScriptedConnection, body: bytes) -> None:
        """Answer with vectors of an input's number and 1; break off once if told to."""
        request = msgspec.json.decode(body, type=EmbedRequest)
        if self.status_of(request.model) != "ready":
            raise ModelNotLoaded(f"cannot embed: {request.model} is not loaded")
        self.embedded.append(request)
        await connection.begin_stream()
        for index in range(len(request.inputs)):
            event = Embedded(index, struct.pack("<2f", index, 1.0))
            await connection.chunk(msgspec.json.encode(event) + b"\n")
        if self.breaks_off:
            raise ConnectionAbortedError
        done = Completed(Usage(prompt_tokens=len(request.inputs), completion_tokens=0))
        await connection.chunk(msgspec.json.encode(done) + b"\n")
        await connection.send(b"0\r\n\r\n")

    async def _stream(self, connection: ScriptedConnection, request: GenerateRequest) -> None:
        async for event in (self.script or self._one_word)(request):
            await connection.chunk(msgspec.json.encode(event) + b"\n")
        await connection.send(b"0\r\n\r\n")

    async def _one_word(self, request: GenerateRequest) -> AsyncIterator[Event]:
        yield Started(
            request.request_id, request.model, prompt_tokens=3, prompt_token_ids=(1, 2, 3)
        )
        while not self.generate_gate.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.generate_gate.wait(), 0.5)
            yield Ping()
        yield TextDelta(index=0, text="hello", seq=0, token_ids=(4,))
        yield Finished(index=0, reason="stop", seq=1)
        yield Completed(Usage(prompt_tokens=3, completion_tokens=1))
