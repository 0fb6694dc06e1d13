"""Endpoints taken apart, request heads put together."""

import pytest

from cortex_core.errors import ConfigError
from cortexd.http1.message import Origin, encode_request, parse_endpoint


@pytest.mark.parametrize(
    ("endpoint", "origin"),
    [
        ("http://beast.internal:13131", Origin("beast.internal", 13131)),
        ("http://beast.internal/", Origin("beast.internal", 80)),
        ("https://beast/node/1/", Origin("beast", 443, tls=True, base_path="/node/1")),
        ("http://[::1]:9", Origin("::1", 9)),
    ],
)
def test_endpoint_is_taken_apart(endpoint: str, origin: Origin) -> None:
    assert parse_endpoint(endpoint) == origin


@pytest.mark.parametrize(
    "endpoint", ["beast:13131", "ftp://beast", "http://", "http://a:99999", "http://[::1"]
)
def test_wrong_endpoint_is_named(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="cannot use endpoint"):
        parse_endpoint(endpoint)


def test_head_carries_length_and_authority() -> None:
    head = encode_request(Origin("::1", 9), "POST", "/generate", b"12345", {"x-request-id": "r"})
    assert head == (
        b"POST /generate HTTP/1.1\r\nhost: [::1]:9\r\nx-request-id: r\r\ncontent-length: 5\r\n\r\n"
    )
