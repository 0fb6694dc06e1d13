"""Put the same work to other servers and to ours, one after another, each alone on this machine.

Installs each peer in an environment of its own, converts the weights it needs, starts it, measures
it and stops it. What was measured is kept, so that the same command goes on after an interruption;
what counts is not measured again. At the end the tables and plots are written.
"""

import argparse
import asyncio
import logging
import os
import platform
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from bench.markdown import write_section
from bench.named import some_of
from bench.peers.cache import VARIABLE, Cache, default_cache
from bench.peers.cortex import Cortex
from bench.peers.llama_cpp import LlamaCpp
from bench.peers.peer import Peer
from bench.peers.plan import ORDER
from bench.peers.report import report
from bench.peers.results import Record, Results
from bench.peers.session import Session
from bench.peers.transformers_serve import TransformersServe
from bench.peers.vllm import Vllm

PEERS: Final[Mapping[str, Callable[[Cache, int], Peer]]] = {
    "llama.cpp": LlamaCpp,
    "vllm": Vllm,
    "transformers": TransformersServe,
    "cortex": Cortex,
}
log = logging.getLogger(__name__)

PAGE: Final = Path("docs/benchmarks.md")
PLOTS: Final = Path("docs/plots")
SECTION: Final = "peers"


def main() -> int:
    """Measure what is missing and write the report."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = _arguments()
    cache = Cache(options.cache)
    results = Results(cache.results)
    threads = len(os.sched_getaffinity(0))
    session = Session(cache, results, options.repetitions, secrets.randbelow(1 << 30))
    peers = [PEERS[name](cache, threads) for name in options.peers]
    if not options.report_only:
        for peer in peers:
            asyncio.run(session.run(peer, options.workloads))
    versions = {peer.name: peer.version for peer in peers}
    records = [r for r in results.records() if versions.get(r.key.peer) == r.key.version]
    _write(records, _circumstances(records, versions, options))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", type=some_of(PEERS), default=",".join(PEERS))
    parser.add_argument("--workloads", type=some_of(ORDER), default=",".join(ORDER))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--cache",
        type=Path,
        default=default_cache().root,
        help=f"what is installed and measured; also by ${VARIABLE} (default: %(default)s)",
    )
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    return parser.parse_args()


def _write(records: Sequence[Record], circumstances: str) -> None:
    write_section(PAGE, SECTION, report(records, circumstances))
    try:
        from bench.peers.plots import draw
    except ImportError as ex:
        log.warning("no plots: %s; install the extra 'bench'", ex)
        return
    for path in draw(records, PLOTS):
        log.info("wrote %s", path)


def _circumstances(
    records: Sequence[Record], versions: dict[str, str], options: argparse.Namespace
) -> str:
    """Return what the tables are of: when, on what, how."""
    times = sorted(record.time for record in records) or [time.strftime("%Y-%m-%d %H:%M")]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    memory_gib = psutil.virtual_memory().total / 2**30
    command = shlex.join(["make", "bench-peers", *_flags(options)])
    return (
        f"Taken {times[0]} to {times[-1]} on {len(os.sched_getaffinity(0))} cores of "
        f"{_processor()}, {memory_gib:.0f} GiB, {platform.platform(terse=True)}, by `{command}`: "
        f"{named}. Medians of {options.repetitions} repetitions, lowest to highest in brackets; "
        "a star where the run does not count."
    )


def _flags(options: argparse.Namespace) -> list[str]:
    flags = [f"--repetitions {options.repetitions}"]
    if options.peers != list(PEERS):
        flags.append(f"--peers {','.join(options.peers)}")
    if options.workloads != list(ORDER):
        flags.append(f"--workloads {','.join(options.workloads)}")
    return [f"PEERS_FLAGS={' '.join(flags)}"]


def _processor() -> str:
    """Return the processor as the kernel names it, with what decides which kernels run."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    widest = next((f for f in ("avx512_vnni", "avx512f", "avx2") if f in flags), "no AVX2")
    return f"{fields.get('model name', platform.machine())} ({widest})"


if __name__ == "__main__":
    sys.exit(main())
