"""What a node shows of itself: HTTP API, metrics and admin socket, wired to its supervisor."""

import socket
from pathlib import Path

import zmq

from cortex_core.ipc.admin import AdminServer
from neurond.admin.verbs import admin_handlers
from neurond.api import create_app
from neurond.config import ADMIN_SOCKET, NeuronConfig
from neurond.embedding import Embedding
from neurond.generation import Generation
from neurond.metrics import GenerationMetrics, NodeCollector, make_registry
from neurond.node import Node
from neurond.profiles import Profiles
from neurond.server import HttpServer
from neurond.sources.library import Library
from neurond.supervisor.supervisor import Supervisor
from neurond.text.format_checker import FormatChecker
from neurond.text.pool import TextPool
from neurond.text.texts import ModelTexts


class Front:
    """Serves from its construction to `close`, on the daemon's loop.

    Attributes:
        node: what API and admin socket are made for.
    """

    def __init__(
        self,
        config: NeuronConfig,
        supervisor: Supervisor,
        library: Library,
        profiles: Profiles,
        runtime_dir: Path,
        bound: socket.socket,
    ) -> None:
        """Take over `bound`, which listens, and bind the admin socket in `runtime_dir`."""
        self._pool = TextPool(config.limits.text_threads)
        texts = ModelTexts(library, profiles.of, self._pool)
        registry = make_registry()
        self._formats = FormatChecker()
        metrics = GenerationMetrics(registry)
        generation = Generation(supervisor, texts, self._pool, self._formats, metrics)
        embedding = Embedding(supervisor, texts, self._pool, metrics)
        registry.register(NodeCollector(supervisor.health, supervisor.models))
        self.node = Node(config, supervisor, profiles, generation, embedding)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            handlers = admin_handlers(self.node, supervisor, config.drain_timeout_s)
            self._admin = AdminServer(runtime_dir / ADMIN_SOCKET, handlers, context=self._context)
        except BaseException:
            self._context.destroy(linger=0)
            self._pool.close()
            raise
        self._server = HttpServer(create_app(self.node, registry), bound)
        self._server.start()
        self._closed = False

    async def close(self) -> None:
        """Let those finish who are still there, then leave no socket. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._server.close()
        await self._admin.close()
        await self._formats.close()
        self._pool.close()
        self._context.destroy(linger=0)
