"""Put the same work to other servers and to ours, one after another, each alone on this machine.

Installs each peer in an environment of its own, converts the weights it needs, starts it, measures
it and stops it. What was measured is kept, so that the same command goes on after an interruption;
what counts is not measured again within six hours. At the end tables and plots are written of all
that is kept of these versions and this client, whichever command measured it, and at most six hours
apart.
"""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.hardware import hardware
from bench.markdown import write_section
from bench.named import positive, some_of
from bench.peers.cache import VARIABLE, Cache, default_cache
from bench.peers.cortex import Cortex
from bench.peers.llama_cpp import LlamaCpp
from bench.peers.peer import Peer
from bench.peers.plan import MODELS, ORDER, Plan
from bench.peers.plots import draw
from bench.peers.report import report
from bench.peers.results import Record, Results, client_digest, earliest_beside, now
from bench.peers.session import Session
from bench.peers.transformers_serve import TransformersServe
from bench.peers.vllm import Vllm

log = logging.getLogger(__name__)

PEERS: Final[Mapping[str, type[LlamaCpp | Vllm | TransformersServe | Cortex]]] = {
    "llama.cpp": LlamaCpp,
    "vllm": Vllm,
    "transformers": TransformersServe,
    "cortex": Cortex,
}
FORMATS: Final = tuple(
    dict.fromkeys(
        name
        for peer in PEERS.values()
        for model in MODELS.values()
        for name in peer.formats_of(model)
    )
)
CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "peers": tuple(PEERS),
    "models": tuple(MODELS),
    "workloads": ORDER,
    "formats": FORMATS,
}
"""What can be chosen from, by option; all of it where nothing is said."""

PAGE: Final = Path("docs/benchmarks.md")
PLOTS: Final = Path("docs/plots")
SECTION: Final = "peers"


def main() -> int:
    """Measure what is missing and write the report."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = arguments()
    cache = Cache(options.cache)
    results = Results(cache.results, since=earliest_beside(now()))
    client = client_digest()
    threads = len(os.sched_getaffinity(0))
    peers: dict[str, Peer] = {name: make(cache, threads) for name, make in PEERS.items()}
    if not options.report_only:
        seed = secrets.randbelow(1 << 30)
        session = Session(cache, results, options.repetitions, seed, command(options), client)
        asyncio.run(session.run([peers[name] for name in options.peers], plan_of(options)))
    versions = {peer.name: peer.version for peer in peers.values()}
    _write(of_today(results.records(), versions, client))
    return 0


def of_today(
    records: Sequence[Record], versions: Mapping[str, str], client: str
) -> Sequence[Record]:
    """Return those of these versions by peer and of this client; say how many another one made."""
    present = [each for each in records if versions.get(each.key.peer) == each.key.version]
    found = [each for each in present if each.key.client == client]
    if left_out := len(present) - len(found):
        log.warning(
            "left out %d of the records, which are kept: another client made them than bench/serve "
            "is now (%s)",
            left_out,
            client,
        )
    return found


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked options; what is wrong ends the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, known in CHOICES.items():
        parser.add_argument(
            f"--{option}",
            type=some_of(known),
            default=list(known),
            help=f"some of {','.join(known)} (default: all)",
        )
    parser.add_argument(
        "--repetitions",
        type=positive,
        default=5,
        help="of each measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=default_cache().root,
        help=f"what is installed and measured; also by ${VARIABLE} (default: %(default)s)",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="measure nothing, write what is there"
    )
    options = parser.parse_args(argv)
    formats_of = [PEERS[name].formats_of for name in options.peers]
    if not options.report_only and plan_of(options).is_empty(formats_of):
        asked = ", ".join(f"--{option} {','.join(getattr(options, option))}" for option in CHOICES)
        parser.error(
            f"nothing to measure by {asked}: no model is given such a workload, or no peer has "
            "such a format of it"
        )
    return options


def plan_of(options: argparse.Namespace) -> Plan:
    """Return what is asked for."""
    return Plan([MODELS[name] for name in options.models], options.workloads, options.formats)


def command(options: argparse.Namespace) -> str:
    """Return what measures the same again."""
    flags = [f"--repetitions {options.repetitions}"]
    for option, known in CHOICES.items():
        if (chosen := getattr(options, option)) != list(known):
            flags.append(f"--{option} {','.join(chosen)}")
    return f'make bench-peers PEERS_FLAGS="{" ".join(flags)}"'


def _write(records: Sequence[Record]) -> None:
    links = {
        model: [path.relative_to(PAGE.parent).as_posix() for path in paths]
        for model, paths in draw(records, PLOTS).items()
    }
    write_section(PAGE, SECTION, report(records, hardware(), links))


if __name__ == "__main__":
    sys.exit(main())
