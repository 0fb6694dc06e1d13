"""The tables of docs/benchmarks.md: a row for each server, medians with lowest and highest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.markdown import table
from bench.peers.results import START, Record

MILLI: Final = 0.001


@dataclass(frozen=True)
class Column:
    """One figure of a workload. `scale` turns it into the unit of the title."""

    workload: str
    figure: str
    title: str
    scale: float = 1.0
    decimals: int = 0


SPEED: Final = (
    Column("W1", "decode_tokens_per_s", "W1, tokens/s"),
    Column("W1", "ttft_ms", "W1 first token, ms"),
    Column("W2", "total_tokens_per_s", "W2, tokens/s"),
    Column("W2x64", "total_tokens_per_s", "W2x64, tokens/s"),
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
TABLES: Final = {"Speed": SPEED, "In company": COMPANY, "Start and memory": COST}


def report(records: Sequence[Record], circumstances: str) -> str:
    """Return the section in Markdown."""
    servers = _by_server(records)
    parts = [circumstances]
    for title, columns in TABLES.items():
        shown = [c for c in columns if any(cell(found, c) for found in servers.values())]
        rows = [[name, *(cell(found, c) for c in shown)] for name, found in servers.items()]
        if measured := [row for row in rows if any(row[1:])]:
            heads = ["server", *(c.title for c in shown)]
            parts.append(f"**{title}**\n\n{table(heads, measured)}")
    if gaps := _gaps(records):
        parts.append("\n".join(gaps))
    return "\n\n".join(parts)


def cell(found: Mapping[str, Record], column: Column) -> str:
    """Return a figure as the table shows it; a star where it does not count."""
    record = found.get(column.workload)
    if record is None or column.figure not in record.figures:
        return ""
    value = record.figures[column.figure]
    values = record.figures.get(f"{column.figure}_all") or [value]
    low, middle, high = (
        f"{number * column.scale:,.{column.decimals}f}"
        for number in (min(values), value, max(values))
    )
    star = "" if record.counts else "\\*"
    return f"{middle}{star}" if low == high else f"{middle}{star} ({low} to {high})"


def _by_server(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    """Return what holds for each server by workload."""
    servers: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.unavailable is None:
            servers.setdefault(record.key.server, {})[record.key.workload] = record
    return servers


def _gaps(records: Sequence[Record]) -> list[str]:
    """Return a line for each reason why something is not there."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for record in records:
        told = record.unavailable or record.figures.get("first_error")
        if told:
            reasons.setdefault((record.key.server, str(told)), []).append(record.key.workload)
    return [
        f"- {server}, {', '.join(workloads)}: {reason}"
        for (server, reason), workloads in reasons.items()
    ]
