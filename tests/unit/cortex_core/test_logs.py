"""One event is one line, whatever a client wrote into it."""

import io
import logging
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import ConfigError
from cortex_core.logs import LineFormatter, kv, set_up_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_lines_have_phrase_then_fields_with_the_request_first(stream: io.StringIO) -> None:
    set_up_logging("info", stream)
    log = logging.getLogger("neurond.supervisor")
    fields = kv(device="cpu", request_id="r1", why=None, ok=True, took_s=0.12345678, text="a b")
    log.warning("actor died", extra=fields)
    log.debug("not shown")
    assert stream.getvalue() == (
        "warning neurond.supervisor actor died request_id=r1 device=cpu ok=true "
        'took_s=0.123457 text="a b"\n'
    )


def test_set_up_again_replaces_the_handler(stream: io.StringIO) -> None:
    set_up_logging("error", io.StringIO())
    set_up_logging("info", stream)
    logging.getLogger("a").info("once")
    assert stream.getvalue() == "info a once\n"


def test_traceback_follows_its_line(stream: io.StringIO) -> None:
    set_up_logging("info", stream)
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("a").exception("it failed", extra=kv(step=3))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "error a it failed step=3"
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "RuntimeError: boom"


def test_warnings_of_the_interpreter_are_logged(stream: io.StringIO) -> None:
    set_up_logging("info", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings brought the plain hook back.
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", UserWarning, stacklevel=1)
    assert "warning py.warnings" in stream.getvalue()


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot log at level 'loud': expected one of debug"):
        set_up_logging("loud")


@given(phrase=st.text(), value=st.text())
def test_no_text_makes_a_second_line(phrase: str, value: str) -> None:
    record = logging.LogRecord("a", logging.INFO, "f", 1, "%s", (phrase,), None)
    record.__dict__.update(kv(value=value))
    assert "\n" not in LineFormatter().format(record)
    assert len(LineFormatter().format(record).splitlines()) == 1
