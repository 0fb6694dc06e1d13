"""Addresses are read as they are written; anything else is refused by its key."""

import pytest

from cortex_core.config import Address, parse_address
from cortex_core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:31313", Address("0.0.0.0", 31313)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_addresses_are_read_and_written_alike(text: str, address: Address) -> None:
    assert parse_address(text, key="gateway.listen") == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("listen", "reached"),
    [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("beast:1", "beast:1")],
)
def test_every_address_of_a_host_is_reached_from_it(listen: str, reached: str) -> None:
    assert str(parse_address(listen, key="gateway.listen").from_here()) == reached


@pytest.mark.parametrize(
    "text", ["", ":", "host", ":80", "host:", "host:65536", "host:-1", "host:x", "::1:80", "h:²"]
)
def test_anything_else_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot read gateway\.listen: expected") as ex:
        parse_address(text, key="gateway.listen")
    assert ex.value.param == "gateway.listen"
