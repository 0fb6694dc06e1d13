"""Signs of life for a client that waits, as comments of a server-sent event stream."""

from cortex_core.canonical import Loading, Ping
from cortex_core.dialects.sse import comment

PING_COMMENT = comment("ping")


def keepalive_comment(event: Ping | Loading) -> bytes:
    """Return a comment; one for `Loading` says the stage, percent and seconds to go."""
    if isinstance(event, Ping):
        return PING_COMMENT
    words = [f"loading stage={event.stage}"]
    if event.progress is not None:
        words.append(f"progress={event.progress:.0%}")
    if event.eta_s is not None:
        words.append(f"eta_s={event.eta_s:.0f}")
    return comment(" ".join(words))
