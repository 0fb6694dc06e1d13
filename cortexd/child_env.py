"""What the parent process hands to its children: descriptors, folders, the configuration's path."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import ConfigError

FLEET_SOCKET: Final = "fleet.sock"
"""The fleet actor listens here for HTTP workers; in the runtime folder."""
ADMIN_SOCKET: Final = "admin.sock"
"""The fleet actor listens here for operators; in the runtime folder."""
CONFIG_STATUS: Final = 78
"""Exit status of a child that would end the same way again; EX_CONFIG of sysexits.h."""

_PREFIX: Final = "CORTEXD_"
_PROMETHEUS: Final = "PROMETHEUS_MULTIPROC_DIR"


class ChildEnvironment(msgspec.Struct, frozen=True):
    """Travels as environment variables; descriptors are inherited under the same number."""

    config: Path
    runtime_dir: Path
    metrics_dir: Path
    snapshot_fd: int
    in_flight_fd: int
    liveness_fd: int
    death_fd: int
    parent_pid: int
    listen_fd: int
    started_at: int
    """When the parent started, in seconds since 1970."""

    @property
    def fleet_socket(self) -> Path:
        return self.runtime_dir / FLEET_SOCKET

    def to_environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` with this in it, and without what is meant for the parent alone."""
        own = {
            f"{_PREFIX}{field.upper()}": str(getattr(self, field))
            for field in self.__struct_fields__
            if field != "metrics_dir"
        }
        kept = {key: value for key, value in base.items() if key != "NOTIFY_SOCKET"}
        return kept | own | {_PROMETHEUS: str(self.metrics_dir)}

    def descriptors(self) -> tuple[int, ...]:
        """Return what a child must be let inherit."""
        return (
            self.snapshot_fd,
            self.in_flight_fd,
            self.liveness_fd,
            self.death_fd,
            self.listen_fd,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ChildEnvironment":
        """Read it in a child.

        Raises:
            ConfigError: this process was not started by `cortex serve`.
        """
        found = {
            field: environment.get(_PROMETHEUS if field == "metrics_dir" else _name(field))
            for field in cls.__struct_fields__
        }
        missing = [_name(field) for field, value in found.items() if value is None]
        if missing:
            raise ConfigError(
                f"cannot start: {missing[0]} is not set; this program is started by 'cortex serve'"
            )
        return msgspec.convert(found, cls, strict=False, dec_hook=_path)


def _name(field: str) -> str:
    return f"{_PREFIX}{field.upper()}"


def _path(_type: type, value: object) -> Path:
    return Path(str(value))
