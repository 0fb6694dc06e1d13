"""What an error tells a client about trying again, in the headers that both official SDKs obey."""

import math
from typing import Final

from cortex_core.errors import ErrorInfo

MAX_RETRY_AFTER_S: Final = 120
"""openai-python does not retry at all when it is told to wait for longer."""

_RETRIED_BY_CLIENTS = (408, 409, 429)


def retry_headers(error: ErrorInfo, status: int) -> dict[str, str]:
    """Return Retry-After where a retry can help, and a plain no where clients would try in vain."""
    if error.retry_after_s is not None:
        wait_s = min(max(1, math.ceil(error.retry_after_s)), MAX_RETRY_AFTER_S)
        return {"retry-after": str(wait_s)}
    if status >= 500 or status in _RETRIED_BY_CLIENTS:
        return {"x-should-retry": "false"}
    return {}
