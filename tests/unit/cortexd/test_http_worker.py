"""What gunicorn has to say takes the way of every other line."""

import logging
from collections.abc import Iterator

import pytest
from gunicorn.config import Config

from cortexd.http_worker import HouseLogger


@pytest.fixture
def gunicorn_log() -> Iterator[logging.Logger]:
    log = logging.getLogger("gunicorn.error")
    before = log.handlers[:], log.propagate, log.level
    yield log
    log.handlers[:], log.propagate = before[:2]
    log.setLevel(before[2])


def test_gunicorn_speaks_through_the_root_logger(
    gunicorn_log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    HouseLogger(Config()).error("Worker (pid:%s) was sent SIGKILL!", 7)

    assert gunicorn_log.handlers == []
    assert caplog.messages == ["Worker (pid:7) was sent SIGKILL!"]
