"""Tables of what pytest-benchmark found."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import suites
from bench.serve.machine import CpuUse
from bench.suites import Benchmark, engine_table, kernel_tables, measured

MADE = """
import pytest

@pytest.mark.parametrize("rows", [1, 16])
def test_norm(benchmark, rows):
    benchmark.pedantic(sum, args=([rows],), rounds=2)
    benchmark.extra_info["us"] = 1.5
"""


def kernel(name: str, share: float, **params: object) -> Benchmark:
    info = {"us": 1234.56, "ceiling": 50.0, "share": share, "gb_per_s": 25.4}
    return Benchmark(name, params, info)


def test_each_kernel_has_a_table_with_its_ceilings() -> None:
    product = Benchmark(
        "test_product[bf16-512]",
        {"matrices": "bf16", "rows": 512},
        {"us": 10.0, "gmac_per_s": 1200.0, "ceiling": 1829.9, "share": 0.656},
    )
    found = [
        product,
        kernel("test_norm[16]", 0.5, rows=16),
        kernel("test_norm[1024]", 1, rows=1024),
    ]
    assert kernel_tables(found).splitlines() == [
        "**Product**",
        "",
        "| matrices | rows | µs | rate | ceiling | share |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| bf16 | 512 | 10.0 | 1,200 GMAC/s | 1,830 | 66% |",
        "",
        "**Norm**",
        "",
        "| rows | µs | rate | ceiling | share |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| 16 | 1,234.6 | 25 GB/s | 50 | 50% |",
        "| 1,024 | 1,234.6 | 25 GB/s | 50 | 100% |",
    ]


def test_the_engine_has_a_column_for_each_format() -> None:
    def decode(serving: str, rate: float) -> Benchmark:
        params = {"serving": serving, "num_sequences": 16, "context": 2000}
        return Benchmark("test_decode[x]", params, {"tokens_per_s": rate})

    prompt = Benchmark("test_prefill[x]", {"serving": "int4", "prompt": 128}, {"tokens_per_s": 99})
    assert engine_table([decode("bf16", 344.4), decode("int4", 1401.0), prompt]).splitlines() == [
        "| work | bf16 | int4 |",
        "| --- | ---: | ---: |",
        "| 16 x 2,000 | 344 | 1,401 |",
        "| a prompt of 128 |  | 99 |",
    ]


def test_benchmarks_are_run_and_read(tmp_path: Path) -> None:
    made = tmp_path / "test_made.py"
    made.write_text(MADE)
    (found,) = measured([str(made)], "16")
    assert (found.test, found.params, found.extra_info) == ("test_norm", {"rows": 16}, {"us": 1.5})


def test_a_benchmark_that_fails_is_told(tmp_path: Path) -> None:
    made = tmp_path / "test_made.py"
    made.write_text("def test_it(benchmark):\n    raise ValueError\n")
    with pytest.raises(SystemExit, match="pytest ended with status 1, see above"):
        measured([str(made)], "")


def test_one_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Sequence[str], *, timeout: float, **_: object) -> None:
        assert command[0] == sys.executable
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(suites.subprocess, "run", run)
    with pytest.raises(SystemExit, match="not done after 3600 s; choose some by --only"):
        measured(["x"], "")


@pytest.mark.parametrize("foreign_cores", [0.05, 0.5])
def test_tables_are_written_only_of_a_machine_that_was_quiet(
    foreign_cores: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meter:
        def __init__(self, _pids: Sequence[int]) -> None:
            pass

        def stop(self) -> CpuUse:
            return CpuUse(0.0, 1.0, foreign_cores, 0.0)

    page = tmp_path / "page.md"
    page.write_text("<!-- kernels: begin --><!-- kernels: end -->")
    monkeypatch.setattr(suites, "PAGE", page)
    monkeypatch.setattr(suites, "CpuMeter", Meter)
    monkeypatch.setattr(suites, "measured", lambda *_: [kernel("test_norm[16]", 0.5, rows=16)])
    monkeypatch.setattr(sys, "argv", ["bench.suites", "kernels", "--write"])
    if foreign_cores > 0.15:
        with pytest.raises(SystemExit, match=r"other processes took 0\.50 core"):
            suites.main()
    else:
        suites.main()
    written = "other processes took 0.05 core. By `python -m bench.suites kernels --write`."
    assert (written in page.read_text()) == (foreign_cores < 0.15)
