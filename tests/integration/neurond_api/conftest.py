"""A node that tests of one file share; those that end or change it start their own."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.neuron_process import NeuronProcess, add_model, neuron_process


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeuronProcess]:
    root: Path = tmp_path_factory.mktemp("node")
    for name, template in (("bare", None), ("bare-too", None), ("never-loaded", "{{ messages }}")):
        add_model(root / "state", name, template=template)
    with neuron_process(root) as started:
        started.load()
        yield started


@pytest.fixture(scope="module")
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
