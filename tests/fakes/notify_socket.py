"""systemd's end of the notify protocol."""

import socket
import threading
from pathlib import Path


class NotifySocket:
    """Hears what services say until it is closed.

    It reads all the time, as systemd does: the kernel keeps ten datagrams for a socket, and drops
    what a service sends beyond them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def has(self, text: str) -> bool:
        """Whether a message so far holds `text`."""
        return any(text in message for message in self.messages)

    def close(self) -> None:
        """Hear out what was sent before, and stop listening. A second time it does nothing."""
        if self._reader.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.sendto(b"", str(self.path))
            self._reader.join()
            self._socket.close()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self.messages.append(message.decode())
