"""A fake neuron on a loop of its own, for tests that are not coroutines."""

import asyncio
import threading
from typing import Self

from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.waiting import WAIT_S


class NeuronThread:
    """Runs `neuron` until it is left."""

    def __init__(self, neuron: FakeNeuron) -> None:
        self.neuron = neuron
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="fake-neuron", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with self.neuron:
            self._ready.set()
            await self._stop.wait()
