"""`transformers serve` with continuous batching."""

from bench.peers.peer import Entry, Launch, Shape
from bench.peers.python_peer import PythonPeer
from bench.peers.weights import Weights
from tests.fakes.ports import free_ports


class TransformersServe(PythonPeer):
    """It sizes its cache by itself, and refuses fields it does not know."""

    name = "transformers"
    version = "5.23.0"
    entries = ("",)

    def prepare(self) -> None:
        """See `Peer.prepare`."""
        self._install([f"transformers[serving]=={self.version}", "accelerate", "torch==2.13.0"])

    def launch(self, weights: Weights, weight_format: str, shape: Shape, *, fresh: bool) -> Launch:
        """See `Peer.launch`."""
        del weight_format, shape, fresh
        checkpoint = str(weights.checkpoint())
        (port,) = free_ports(1)
        return Launch(
            argv=[
                *(str(self._binaries / "transformers"), "serve", checkpoint),
                *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu"),
                *("--dtype", "bfloat16", "--continuous-batching"),
                *("--attn-implementation", "sdpa"),
            ],
            env={"OMP_NUM_THREADS": str(self._threads), "HF_HUB_OFFLINE": "1"},
            entries=[Entry(f"http://127.0.0.1:{port}", checkpoint, extra={})],
        )
