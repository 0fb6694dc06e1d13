"""Who sent a request, for fairness, where it does not say itself for whom it is."""

import hashlib
from typing import Protocol, TypeVar

import msgspec

from cortex_core.canonical import GenerateRequest
from cortex_core.canonical_embedding import EmbedRequest

RequestT = TypeVar("RequestT", GenerateRequest, EmbedRequest)


class HttpRequest(Protocol):
    """What is looked at of an HTTP request."""

    @property
    def remote_addr(self) -> str:
        """Address of the other end of the connection."""
        ...

    def get_header(self, name: str) -> str | None: ...


def sent_by(http: HttpRequest, request: RequestT) -> RequestT:
    """Return a request with a principal, which is its sender where it names none.

    Senders are told apart by their address and, where several share one, as behind a proxy, by the
    key that they send, which nobody checks. Neither stands in the principal as it is; addresses are
    few enough, though, to try them all.
    """
    if request.principal is not None:
        return request
    key = http.get_header("authorization") or http.get_header("x-api-key") or ""
    seen = f"{http.remote_addr}\n{key}"
    principal = "client-" + hashlib.sha256(seen.encode()).hexdigest()[:16]
    return msgspec.structs.replace(request, principal=principal)
