import msgspec
import pytest

from cortex_core.decoding import UNDECODABLE


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b'"\xff"'])
def test_json_that_is_not_what_was_asked_for(data):
    with pytest.raises(UNDECODABLE):
        msgspec.json.decode(data, type=str)


@pytest.mark.parametrize("data", [b"", b"\xa2x", b"\x91\x01", b"\xc1", b"\xa1\xff"])
def test_msgpack_that_is_not_what_was_asked_for(data):
    with pytest.raises(UNDECODABLE):
        msgspec.msgpack.decode(data, type=str)
