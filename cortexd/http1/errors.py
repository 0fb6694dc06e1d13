"""What can go wrong on a connection, before anybody knows which node it was."""


class ConnectionLost(Exception):
    """The peer closed, reset or broke the protocol; the text says which.

    Attributes:
        answered: at least one byte of the answer had come.
    """

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


class ConnectFailed(Exception):
    """No connection could be made: refused, unreachable, name unknown or too slow."""


class TooManyConnections(Exception):
    """Every connection that the pool may have to this host is in use."""


class BadAnswer(Exception):
    """The peer broke the protocol; the text says how."""
