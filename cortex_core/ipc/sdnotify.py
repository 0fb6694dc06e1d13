"""Tells systemd how the service is doing: the sd_notify protocol, one datagram for each message.

Without `NOTIFY_SOCKET` in the environment every call does nothing. A message that cannot be sent is
logged once and otherwise ignored: a service must not fail because its manager does not listen.
"""

import logging
import os
import socket
from collections.abc import Mapping

from cortex_core.logs import kv

_log = logging.getLogger(__name__)

NOTIFY_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What to take out of the environment of children that must not speak for the service."""


class Notifier:
    """Speaks for this process. Any thread; sending never blocks.

    Attributes:
        watchdog_interval_s: seconds between two calls of `watchdog`, half of what systemd
            allows; None when it does not watch.
    """

    def __init__(self, address: str | None, watchdog_interval_s: float | None = None) -> None:
        """`address` is a path, or a name in the abstract namespace with '@' in front."""
        # An abstract name begins with a zero byte on the wire.
        self._address = "\0" + address[1:] if address and address[0] == "@" else address
        self.watchdog_interval_s = watchdog_interval_s
        self._complained = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Notifier":
        """Read what systemd has put into the environment."""
        address = environ.get("NOTIFY_SOCKET") or None
        return cls(address, _watchdog_interval_s(environ) if address else None)

    def ready(self) -> None:
        """The service has started."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show `text`, one line, in `systemctl status`."""
        self._send(f"STATUS={' '.join(text.splitlines())}")

    def stopping(self) -> None:
        """The service is on its way out."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The service is alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as client:
                client.sendto(message.encode(), self._address)
        except OSError as ex:
            if not self._complained:
                self._complained = True
                _log.warning("cannot notify systemd", extra=kv(cause=ex))


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    watched_pid = environ.get("WATCHDOG_PID")
    if watched_pid is not None and watched_pid != str(os.getpid()):
        return None
    try:
        allowed_us = int(environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return allowed_us / 2e6 if allowed_us > 0 else None
