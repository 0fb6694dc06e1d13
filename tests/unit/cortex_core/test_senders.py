"""Requests that name nobody are their sender's."""

from cortex_core.canonical import GenerateRequest, TextPrompt
from cortex_core.canonical_embedding import EmbedRequest
from cortex_core.ids import ModelId, RequestId
from cortex_core.senders import sent_by

REQUEST = GenerateRequest(RequestId("r"), ModelId("m"), TextPrompt("hi"))
ADDRESS = "192.0.2.7"


class Sent:
    """A request over HTTP."""

    def __init__(self, remote_addr: str = ADDRESS, **headers: str) -> None:
        self.remote_addr = remote_addr
        self._headers = headers

    def get_header(self, name: str) -> str | None:
        return self._headers.get(name.replace("-", "_"))


def principal(http: Sent) -> str:
    found = sent_by(http, REQUEST).principal
    assert found is not None
    return found


def test_a_principal_that_is_named_stays() -> None:
    request = EmbedRequest(RequestId("r"), ModelId("m"), (), principal="user-ada")
    assert sent_by(Sent(authorization="Bearer k"), request) is request


def test_senders_are_told_apart_by_address_and_key() -> None:
    senders = [
        Sent(),
        Sent("192.0.2.8"),
        Sent(authorization="Bearer ada"),
        Sent(authorization="Bearer bob"),
        Sent(x_api_key="ada"),
    ]
    assert len({principal(each) for each in senders}) == len(senders)
    assert principal(Sent(x_api_key="ada")) == principal(senders[-1])


def test_a_principal_does_not_tell_what_it_was_made_of() -> None:
    found = principal(Sent(authorization="Bearer secret"))
    assert "secret" not in found
    assert ADDRESS not in found
