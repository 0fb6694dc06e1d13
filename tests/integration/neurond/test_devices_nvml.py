"""Discovery through the real NVML binding, over a library compiled for the test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neurond.devices import VISIBLE_VARIABLE

REPOSITORY = Path(__file__).parents[3]
SCRIPT = """
import json
from neurond import devices as found_here
from neurond.devices import Devices
found_here.torch_has_cuda = lambda: True
devices = Devices.discover()
names = ("total_bytes", "used_bytes", "free_bytes", "utilization_pct", "temp_c")
print(json.dumps({
    "found": [(d.id, d.name, d.kind, d.compute_capability, d.vram_total_mb) for d in devices.found],
    "versions": [devices.cuda_version, devices.driver_version, devices.cuda_unavailable_reason],
    "sample": [getattr(devices.measure(devices.found[0]), name) for name in names],
    "shared": [devices.measure(devices.found[1]).total_bytes > 0,
               devices.measure(devices.found[1]).utilization_pct],
    "uuids": [d.uuid for d in devices.found],
    "instance": [getattr(devices.measure(devices.found[3]), name) for name in names],
}))
"""
GIB = 2**30


@pytest.fixture
def nvml_folder(tmp_path: Path) -> Path:
    compiler = shutil.which("gcc")
    assert compiler is not None, "the tests need gcc, as the installation does"
    source = REPOSITORY / "tests" / "fakes" / "nvml_stub.c"
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return tmp_path


def test_devices_are_found_and_measured(nvml_folder: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != VISIBLE_VARIABLE}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=REPOSITORY,
        env=environment | {"LD_LIBRARY_PATH": str(nvml_folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    told = json.loads(run.stdout)

    assert told["found"][0] == ["cuda-0", "NVIDIA H100", "cuda", "9.0", 80 * 1024]
    assert told["found"][1][:4] == ["cuda-1", "NVIDIA GB10", "cuda", "12.1"]
    assert told["found"][3] == ["cuda-2-1", "NVIDIA A100 MIG 3g.20gb", "cuda", "8.0", 20 * 1024]
    assert told["uuids"] == ["GPU-aa", None, "MIG-c0", "MIG-c1"]
    assert told["instance"] == [20 * GIB, GIB, 19 * GIB, None, 55]
    assert told["versions"] == ["13.1", "590.44", None]
    assert told["sample"] == [80 * GIB, 10 * GIB, 70 * GIB, 37, 55]
    assert told["shared"] == [True, None]
