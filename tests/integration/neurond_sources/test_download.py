"""Downloads over a real connection that breaks in every way."""

import threading
from pathlib import Path

import pytest

from cortex_core.errors import ModelLoadFailed, ModelNotFound
from neurond.sources.disk import HEADROOM_BYTES
from neurond.sources.download import MAX_ATTEMPTS, Downloader, RemoteFile
from tests.fakes.file_server import FileServer
from tests.fakes.gguf_made import sha256
from tests.fakes.waiting import WAIT_S

CONTENT = bytes(range(256)) * 8000


class Rig:
    def __init__(self, folder: Path, server: FileServer, *, idle_timeout_s: float = WAIT_S) -> None:
        server.files["/f"] = CONTENT
        self.folder = folder
        self.reported: list[int] = []
        self.pauses: list[float] = []
        self.downloader = Downloader(
            folder, self.reported.append, idle_timeout_s=idle_timeout_s, pause=self.pauses.append
        )
        self.url = f"{server.url}/f"

    @property
    def partial(self) -> Path:
        return self.folder / "f.partial"

    def file(self, **changes: object) -> RemoteFile:
        return RemoteFile("f", self.url, len(CONTENT), sha256(CONTENT))._replace(**changes)

    def fetch(self, **changes: object) -> Path:
        return self.downloader.fetch(self.file(**changes))


@pytest.fixture
def rig(tmp_path: Path, server: FileServer) -> Rig:
    return Rig(tmp_path, server)


def test_a_file_comes_whole_and_once(rig: Rig, server: FileServer) -> None:
    assert rig.fetch().read_bytes() == CONTENT
    assert not rig.partial.exists()
    rig.fetch()
    assert len(server.requests) == 1
    assert rig.reported[-1] == 2 * len(CONTENT)


def test_a_cut_connection_goes_on_from_where_it_was(rig: Rig, server: FileServer) -> None:
    server.cut_after, server.cuts_left = 500_000, 3
    assert rig.fetch().read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.requests] == [
        None,
        "bytes=500000-",
        "bytes=1000000-",
        "bytes=1500000-",
    ]


def test_bytes_of_an_earlier_process_are_used(rig: Rig, server: FileServer) -> None:
    rig.partial.write_bytes(CONTENT[:1000])
    assert rig.fetch().read_bytes() == CONTENT
    assert server.requests[0][1] == "bytes=1000-"


def test_a_server_without_ranges_starts_anew(rig: Rig, server: FileServer) -> None:
    server.ranges = False
    rig.partial.write_bytes(CONTENT[:1000])
    assert rig.fetch().read_bytes() == CONTENT


def test_damaged_bytes_of_an_earlier_try_are_fetched_again(rig: Rig) -> None:
    rig.partial.write_bytes(b"\xff" * 1000)
    assert rig.fetch().read_bytes() == CONTENT


def test_more_bytes_than_the_file_has_are_thrown_away(rig: Rig) -> None:
    rig.partial.write_bytes(CONTENT + b"more")
    assert rig.fetch().read_bytes() == CONTENT


def test_an_unknown_size_and_a_range_beyond_the_end_start_anew(rig: Rig) -> None:
    rig.partial.write_bytes(CONTENT + b"more")
    assert rig.fetch(size_bytes=None).read_bytes() == CONTENT


def test_a_wrong_sum_keeps_nothing(rig: Rig) -> None:
    with pytest.raises(ModelLoadFailed, match="the source announces"):
        rig.fetch(sha256="0" * 64)
    assert list(rig.folder.iterdir()) == []


def test_a_missing_file_is_not_found(rig: Rig, server: FileServer) -> None:
    with pytest.raises(ModelNotFound, match="answers 404"):
        rig.fetch(url=f"{server.url}/gone")


def test_a_refusal_is_not_tried_again(rig: Rig, server: FileServer) -> None:
    server.failures = [403]
    with pytest.raises(ModelLoadFailed, match="403"):
        rig.fetch()
    assert len(server.requests) == 1


def test_a_failing_server_is_tried_again_with_pauses(rig: Rig, server: FileServer) -> None:
    server.failures = [503, 500, 429]
    assert rig.fetch().read_bytes() == CONTENT
    assert rig.pauses == [0.5, 1.0, 2.0]


def test_a_server_that_stays_broken_ends_the_fetch_and_keeps_the_bytes(
    rig: Rig, server: FileServer
) -> None:
    rig.partial.write_bytes(CONTENT[:7])
    server.failures = [503] * 20
    with pytest.raises(ModelLoadFailed, match="7 bytes are kept, pull again"):
        rig.fetch()
    assert len(server.requests) == MAX_ATTEMPTS
    assert rig.partial.read_bytes() == CONTENT[:7]


def test_nobody_there_is_said(rig: Rig) -> None:
    with pytest.raises(ModelLoadFailed, match="refused"):
        rig.fetch(url="http://127.0.0.1:9/f")


def test_a_silent_server_is_given_up_after_the_idle_time(
    tmp_path: Path, server: FileServer
) -> None:
    server.stall = threading.Event()
    rig = Rig(tmp_path, server, idle_timeout_s=0.5)
    with pytest.raises(ModelLoadFailed, match="bytes are kept"):
        rig.fetch()
    assert rig.partial.stat().st_size > 0


def test_a_full_disk_is_said_and_what_came_is_kept(rig: Rig) -> None:
    # /dev/full takes no byte: every write to it fails as on a full disk.
    rig.partial.symlink_to("/dev/full")
    with pytest.raises(ModelLoadFailed, match=r"is full .*pull again to go on"):
        rig.fetch()
    assert rig.partial.is_symlink()


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(
    rig: Rig, server: FileServer
) -> None:
    with pytest.raises(ModelLoadFailed, match=r"it needs \d+ MiB more and .* has \d+ MiB free"):
        rig.fetch(size_bytes=1 << 60)
    assert server.requests == []
    assert HEADROOM_BYTES > 0


def test_a_token_stays_with_its_host(rig: Rig, server: FileServer) -> None:
    server.redirects["/moved"] = rig.url.replace("127.0.0.1", "localhost")
    assert rig.fetch(url=f"{server.url}/moved", token="secret").read_bytes() == CONTENT
    assert server.requests[0] == ("/moved", None, "Bearer secret")
    assert server.requests[1] == ("/f", None, None)


def test_credentials_in_an_address_are_sent_and_never_shown(rig: Rig, server: FileServer) -> None:
    url = server.url.replace("http://", "http://me:s%20cret@")
    rig.fetch(url=f"{url}/f")
    assert server.requests[0][2] == "Basic bWU6cyBjcmV0"
    with pytest.raises(ModelNotFound) as caught:
        rig.fetch(name="g", url=f"{url}/gone")
    assert "s%20cret" not in caught.value.message
