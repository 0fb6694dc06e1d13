"""Nodes that an operator has drained, where the next fleet actor finds them.

A file in the runtime folder. `cortex serve` removes it when it starts and when it ends, so it
lasts as long as one life of the gateway.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import InternalError
from cortex_core.ids import NodeName
from cortex_core.logs import kv

DRAINED_FILE: Final = "drained.json"

log = logging.getLogger(__name__)


class DrainedNodes:
    """The file with the names. One fleet actor at a time reads and writes it."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = runtime_dir / DRAINED_FILE

    def read(self) -> frozenset[NodeName]:
        """Return the names; none where the file is absent, or cannot be read, which is logged."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=frozenset[NodeName])
        except FileNotFoundError:
            return frozenset()
        except (OSError, *UNDECODABLE) as ex:
            log.exception("drained nodes forgotten", extra=kv(file=self._path, cause=ex))
            return frozenset()

    def write(self, names: Iterable[NodeName]) -> None:
        """Replace the names; a reader sees all of them or those before.

        Raises:
            InternalError: the file cannot be written.
        """
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(msgspec.json.encode(sorted(names)))
            new.replace(self._path)
        except OSError as ex:
            raise InternalError(
                f"cannot remember drained nodes in {self._path}: {ex.strerror}"
            ) from ex
