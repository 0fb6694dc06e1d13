"""Tables of what pytest-benchmark measures: the CPU kernels one by one, and the engine as a whole.

    python -m bench.suites kernels|engine [--only EXPRESSION] [--write]

`kernels` are those of `bench/test_kernels.py` and `bench/test_row_ops.py`, beside the ceilings that
this machine has; `engine` is `bench/test_host_engine.py`: tokens a second by streams, context and
formats of weights, keys and values. --write puts the tables into docs/benchmarks.md, unless other
processes took more than 0.15 core meanwhile.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.circumstances import circumstances, write_clean
from bench.markdown import table
from bench.serve.machine import CpuMeter

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
LIMIT_S: Final = 3600.0
"""A whole suite takes a quarter of it on two cores."""
TEST_LIMIT_S: Final = 900
"""The longest: to bring 64 sequences of 2,000 tokens past their prompts."""
RATES: Final = {"gb_per_s": "GB/s", "gmac_per_s": "GMAC/s"}


class Benchmark(msgspec.Struct):
    """What pytest-benchmark writes of one, as far as tables need it."""

    name: str
    params: dict[str, Any] | None
    extra_info: dict[str, Any]

    @property
    def test(self) -> str:
        """The function's name, without parameters."""
        return self.name.partition("[")[0]


class Document(msgspec.Struct):
    benchmarks: list[Benchmark]


@dataclass(frozen=True)
class Suite:
    files: Sequence[str]
    tables: Callable[[Sequence[Benchmark]], str]


def kernel_tables(found: Sequence[Benchmark]) -> str:
    """Return a table for each kernel: its parameters, time, rate and the ceiling of that."""
    by_test: dict[str, list[Benchmark]] = {}
    for each in found:
        by_test.setdefault(each.test, []).append(each)
    parts = []
    for test, measured in by_test.items():
        names = list(measured[0].params or {})
        heads = [*names, "µs", "rate", "ceiling", "share"]
        rows = [[*(_shown((m.params or {})[n]) for n in names), *_beside(m)] for m in measured]
        title = test.removeprefix("test_").replace("_", " ").capitalize()
        parts.append(f"**{title}**\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def _beside(measured: Benchmark) -> list[str]:
    info = measured.extra_info
    (name,) = RATES.keys() & info.keys()
    return [
        f"{info['us']:,.1f}",
        f"{info[name]:,.0f} {RATES[name]}",
        f"{info['ceiling']:,.0f}",
        f"{info['share']:.0%}",
    ]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def engine_table(found: Sequence[Benchmark]) -> str:
    """Return tokens a second, a row for each work and a column for each format."""
    rows: dict[str, dict[str, str]] = {}
    for each in found:
        params = each.params or {}
        rate = f"{each.extra_info['tokens_per_s']:,.0f}"
        rows.setdefault(_work(params), {})[params["serving"]] = rate
    formats = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[work, *(row.get(name, "") for name in formats)] for work, row in rows.items()]
    return table(["work", *formats], cells)


def _work(params: Mapping[str, Any]) -> str:
    if "context" not in params:
        return f"a prompt of {params['prompt']:,}"
    return f"{params['num_sequences']} x {params['context']:,}"


SUITES: Final[Mapping[str, Suite]] = {
    "kernels": Suite(("bench/test_kernels.py", "bench/test_row_ops.py"), kernel_tables),
    "engine": Suite(("bench/test_host_engine.py",), engine_table),
}
"""By the name of the section as well."""


def main() -> None:
    """Measure, print the tables, and write them where that is asked for."""
    options = arguments()
    suite = SUITES[options.suite]
    meter = CpuMeter([])
    found = measured(suite.files, options.only)
    used = meter.stop()
    text = f"{circumstances(_command(options), used=used)}\n\n{suite.tables(found)}"
    print(text)
    if options.write:
        write_clean(PAGE, options.suite, text, used)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.suites",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--only", default="", help="those that pytest's -k chooses by this")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {PAGE.name}")
    return parser.parse_args(argv)


def _command(options: argparse.Namespace) -> str:
    only = f" --only '{options.only}'" if options.only else ""
    return f"python -m bench.suites {options.suite}{only}" + (" --write" if options.write else "")


def measured(files: Sequence[str], only: str) -> list[Benchmark]:
    """Run benchmarks in a process of their own, which names each as it goes, and return them."""
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "benchmarks.json"
        command = [
            *(sys.executable, "-m", "pytest", *files, "--benchmark-only", "-v"),
            *(f"--benchmark-json={document}", "--benchmark-quiet", "-p", "no:randomly"),
            *("--timeout", str(TEST_LIMIT_S), "-o", "faulthandler_timeout=0", "-k", only),
        ]
        # Not those of a pytest that this may run under, such as the number of its worker.
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        try:
            # To stderr: what is printed here can go to a file as it is.
            done = subprocess.run(
                command, cwd=ROOT, env=env, stdout=sys.stderr, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"cannot measure: not done after {LIMIT_S:.0f} s; choose some by --only")
        if done.returncode:
            sys.exit(f"cannot measure: pytest ended with status {done.returncode}, see above")
        found = msgspec.json.decode(document.read_bytes(), type=Document).benchmarks
    if not found:
        sys.exit("cannot measure: all were skipped, see above")
    return found


if __name__ == "__main__":
    main()
