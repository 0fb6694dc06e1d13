"""The tables of docs/benchmarks.md, for each model: a row for each server, medians and spreads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from bench.markdown import table
from bench.peers.aims import aims_table
from bench.peers.results import START, UNFINISHED, WINDOW_HOURS, Record, earliest_shown
from bench.serve.machine import FOREIGN_CORES_LIMIT
from bench.serve.workloads import has_chunks

MILLI: Final = 0.001


@dataclass(frozen=True)
class Column:
    """One figure of a workload. `scale` turns it into the unit of the title."""

    workload: str
    figure: str
    title: str
    scale: float = 1.0
    decimals: int = 0
    drawn: bool = True
    """Whether plots show it, too."""


SPEED: Final = (
    Column("W1", "decode_tokens_per_s", "W1, tokens/s"),
    Column("W1", "end_to_end_tokens_per_s", "W1 end to end, tokens/s", drawn=False),
    Column("W1", "ttft_ms", "W1 first token, ms"),
    Column("W2", "batch_decode_tokens_per_s", "W2, tokens/s", drawn=False),
    Column("W2", "total_tokens_per_s", "W2 end to end, tokens/s"),
    Column("W2x64", "batch_decode_tokens_per_s", "W2x64, tokens/s", drawn=False),
    Column("W2x64", "total_tokens_per_s", "W2x64 end to end, tokens/s"),
    Column("W3", "ttft_ms", "W3 first token, s", MILLI, 2),
    Column("W4", "ttft_first_ms", "W4 first, s", MILLI, 2),
    Column("W4", "ttft_rest_ms", "W4 others, ms"),
    Column("W5", "total_tokens_per_s", "W5, tokens/s"),
    Column("copy", "decode_tokens_per_s", "copy, tokens/s"),
    Column("prose", "decode_tokens_per_s", "prose, tokens/s"),
)
COMPANY: Final = (
    Column("busy", "quiet_decode_tokens_per_s", "W1 alone, tokens/s"),
    Column("busy", "busy_decode_tokens_per_s", "W1 beside a busy process"),
    Column("busy", "quiet_total_tokens_per_s", "W2 alone, tokens/s"),
    Column("busy", "busy_total_tokens_per_s", "W2 beside a busy process"),
    Column("W6", "itl_quiet_4000_p95_ms", "W6 p95 alone, ms"),
    Column("W6", "itl_beside_4000_p95_ms", "beside 4,000 tokens, ms"),
    Column("W6", "itl_beside_18000_p95_ms", "beside 18,000 tokens, ms"),
    Column("W6", "ttft_4000_ms", "their first token, s", MILLI, 1),
    Column("W6", "ttft_18000_ms", "and of 18,000, s", MILLI, 1),
)
MIXED: Final = (
    Column("mixed", "total_tokens_per_s", "tokens/s"),
    Column("mixed", "ttft_p50_ms", "first token p50, ms"),
    Column("mixed", "ttft_p95_ms", "first token p95, ms"),
    Column("mixed", "itl_p50_ms", "between tokens p50, ms"),
    Column("mixed", "itl_p95_ms", "between tokens p95, ms"),
    Column("mixed", "errors", "errors", drawn=False),
)
COST: Final = (
    Column(START, "start_first_s", "first start to token, s", decimals=2),
    Column(START, "start_again_s", "later start to token, s", decimals=2),
    Column(START, "load_again_s", "second load, s", decimals=2),
    Column("W1", "server_rss_mib", "RSS after W1, MiB"),
    Column("W1", "server_pss_mib", "PSS after W1, MiB"),
    Column("W2", "server_pss_mib", "PSS after W2, MiB"),
    Column("W5", "server_pss_mib", "PSS after W5, MiB"),
    Column("W2", "server_cpu_ms_per_token", "W2 CPU, ms a token", decimals=2),
)
TABLES: Final = {
    "Speed": SPEED,
    "Mixed traffic": MIXED,
    "In company": COMPANY,
    "Start and memory": COST,
}


@dataclass(frozen=True)
class Beside:
    """The records of one model that stand side by side, and those too old to stand there."""

    shown: Sequence[Record]
    too_old: Sequence[Record]


def by_model(records: Sequence[Record]) -> dict[str, Beside]:
    """Return what is shown of each model: what is not much older than the newest of its figures."""
    models: dict[str, list[Record]] = {}
    for record in records:
        models.setdefault(record.key.model, []).append(record)
    return {model: _beside(found) for model, found in models.items()}


def _beside(records: Sequence[Record]) -> Beside:
    earliest = earliest_shown(records)
    return Beside(
        [record for record in records if record.time >= earliest],
        [record for record in records if record.time < earliest and record.unavailable is None],
    )


def report(
    records: Sequence[Record], machine: str, pictures: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the section in Markdown.

    Args:
        machine: what all was measured on.
        pictures: links to plots, by model.
    """
    stars = "a star where a run does not count, for a reason that is told below"
    parts = [f"On {machine}. Lowest to highest in brackets; {stars}."]
    for model, beside in by_model(records).items():
        parts += [f"### `{model}`", _circumstances(beside.shown)]
        parts += [*_tables(beside.shown), _aims(beside.shown), *_remarks(beside)]
        parts += [
            f"![{PurePosixPath(link).stem}]({link})" for link in (pictures or {}).get(model, ())
        ]
    return "\n\n".join(part for part in parts if part)


def _circumstances(records: Sequence[Record]) -> str:
    """Return when the records were made, of what and by which commands, the first one first."""
    figures = sorted(
        (record for record in records if record.unavailable is None), key=lambda each: each.time
    )
    if not figures:
        return ""
    times = [record.time for record in figures]
    servers = dict.fromkeys(f"{record.key.peer} {record.key.version}" for record in figures)
    counts = {
        record.figures["repetitions"] for record in figures if "repetitions" in record.figures
    }
    parts = [
        f"{times[0]} to {times[-1]}" if times[0] != times[-1] else times[0],
        ", ".join(servers),
        f"medians of {' or '.join(map(str, sorted(counts)))}" if counts else "",
    ]
    commands = dict.fromkeys(f"`{record.command}`" for record in figures if record.command)
    told = f" By {', then '.join(commands)}." if commands else ""
    return f"{'; '.join(part for part in parts if part)}.{told}"


def _tables(records: Sequence[Record]) -> list[str]:
    servers = _by_server(records)
    parts = []
    for title, columns in TABLES.items():
        shown = [c for c in columns if any(cell(found, c) for found in servers.values())]
        rows = [[name, *(cell(found, c) for c in shown)] for name, found in servers.items()]
        if measured := [row for row in rows if any(row[1:])]:
            heads = ["server", *(c.title for c in shown)]
            parts.append(f"**{title}**\n\n{table(heads, measured)}")
    return parts


def _aims(records: Sequence[Record]) -> str:
    found = aims_table(records)
    return f"**Beside the project's aims**\n\n{found}" if found else ""


def cell(found: Mapping[str, Record], column: Column) -> str:
    """Return a figure as the table shows it; a star where it does not count."""
    record = found.get(column.workload)
    if record is None:
        return ""
    star = "" if record.counts else "\\*"
    if unfinished := record.figures.get(UNFINISHED):
        return f"{unfinished}{star}"
    if column.figure not in record.figures:
        return ""
    value = record.figures[column.figure]
    values = record.figures.get(f"{column.figure}_all") or [value]
    low, middle, high = (
        f"{number * column.scale:,.{column.decimals}f}"
        for number in (min(values), value, max(values))
    )
    return f"{middle}{star}" if low == high else f"{middle}{star} ({low} to {high})"


def _by_server(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    """Return what holds for each server by workload."""
    servers: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.unavailable is None:
            servers.setdefault(record.key.server, {})[record.key.workload] = record
    return servers


def _remarks(beside: Beside) -> list[str]:
    """Return lines that say why something is not there or does not count."""
    servers_of: dict[tuple[str, str], list[str]] = {}
    for record in beside.shown:
        for reason in reasons(record):
            servers_of.setdefault((record.key.server, reason), []).append(record.key.workload)
    lines = [
        f"- {server}, {', '.join(workloads)}: {reason}"
        for (server, reason), workloads in servers_of.items()
    ]
    old: dict[str, list[str]] = {}
    for record in beside.too_old:
        old.setdefault(record.key.server, []).append(f"{record.key.workload} ({record.time})")
    lines += [
        f"- {server}: left out, more than {WINDOW_HOURS} hours older: {', '.join(told)}"
        for server, told in old.items()
    ]
    return ["\n".join(lines)] if lines else []


def reasons(record: Record) -> list[str]:
    """Return why there are no figures, or why they do not count."""
    figures = record.figures
    error = record.unavailable or figures.get("first_error")
    found = [str(error)] if error else []
    if (foreign := figures.get("foreign_cores", 0.0)) > FOREIGN_CORES_LIMIT:
        found.append(f"other processes took {foreign:.2f} core")
    chunks = figures.get("chunks_per_token", 1.0)
    if not error and not has_chunks(record.key.workload, chunks):
        found.append(f"{chunks:.2f} chunks for a token")
    return found
