"""A node that tests of one file share; those that end or change it start their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.neuron_process import NeuronProcess, add_model, neuron_process
from tests.fakes.ports import free_ports


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
    (port,) = free_ports(1)
    return port
