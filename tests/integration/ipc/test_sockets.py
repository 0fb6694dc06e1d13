"""Socket files have one owner at a time, and what is wrong with their paths is told."""

import contextlib
import socket
import stat

import pytest
import zmq

from cortex_core.errors import ConfigError, InternalError, NodeUnavailable
from cortex_core.ipc.socket_paths import make_runtime_dir
from cortex_core.ipc.sockets import (
    BoundSocket,
    ZmqContext,
    bind_socket,
    check_served,
    connect_socket,
)


def test_failed_bind_leaves_no_file(path) -> None:
    ended: ZmqContext = zmq.Context()
    ended.term()
    with pytest.raises(InternalError, match=f"cannot serve {path}"):
        bind_socket(ended, zmq.ROUTER, path, hwm_messages=1)
    assert not path.exists()


def test_socket_files_are_private(context, closing, path) -> None:
    closing(bind_socket(context, zmq.ROUTER, path, hwm_messages=1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_file_left_by_a_killed_owner_is_replaced(context, closing, path) -> None:
    dead = bind_socket(context, zmq.ROUTER, path, hwm_messages=1)
    dead.socket.close(linger=0)
    context.term()
    assert path.exists()
    with zmq.Context() as second:
        alive = bind_socket(second, zmq.ROUTER, path, hwm_messages=1)
        check_served(path)
        dead.close()
        assert path.exists()
        alive.close()
    assert not path.exists()


def test_path_that_another_process_serves_is_refused(context, closing, path) -> None:
    closing(bind_socket(context, zmq.ROUTER, path, hwm_messages=1))
    with pytest.raises(ConfigError, match="another process serves it"):
        bind_socket(context, zmq.ROUTER, path, hwm_messages=1)
    check_served(path)


def test_close_leaves_a_file_that_is_no_longer_ours(context, path) -> None:
    bound: BoundSocket = bind_socket(context, zmq.ROUTER, path, hwm_messages=1)
    path.unlink()
    path.write_text("somebody else's")
    bound.close()
    assert path.read_text() == "somebody else's"


def test_bad_paths_are_named(context, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"has \d+ bytes, the limit is 107; choose a shorter"):
        bind_socket(context, zmq.ROUTER, tmp_path / ("x" * 108), hwm_messages=1)
    with pytest.raises(ConfigError, match="the limit is 107"):
        connect_socket(context, zmq.DEALER, tmp_path / ("x" * 108), hwm_messages=1)
    with pytest.raises(ConfigError, match=r"cannot listen on .*gone/a.sock: No such file"):
        bind_socket(context, zmq.ROUTER, tmp_path / "gone" / "a.sock", hwm_messages=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make runtime folder"):
        make_runtime_dir(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="cannot listen on"):
        bind_socket(context, zmq.ROUTER, tmp_path / "file", hwm_messages=1)
    with pytest.raises(NodeUnavailable, match=r"is the daemon running\?"):
        check_served(tmp_path / "nobody.sock")


def test_owner_that_is_too_busy_to_accept_is_not_taken_for_dead(context, path) -> None:
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        busy.bind(str(path))
        busy.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        waiting.connect(str(path))
        with pytest.raises(ConfigError, match="another process serves it"):
            bind_socket(context, zmq.ROUTER, path, hwm_messages=1)
        assert path.exists()


def test_socket_of_another_kind_is_left_alone(context, path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(ConfigError, match="Address already in use"):
            bind_socket(context, zmq.ROUTER, path, hwm_messages=1)
        with pytest.raises(NodeUnavailable, match="wrong type for socket"):
            check_served(path)
        assert path.exists()
