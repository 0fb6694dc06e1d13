"""What the project is to reach, beside the best of the others that stands in the same tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from bench.markdown import table
from bench.peers.results import START, Record

OURS: Final = "cortex"
HEADS: Final = (
    "work",
    "best of others",
    "ours at the node",
    "ratio",
    "ours through the gateway",
    "ratio",
    "due",
    "aim",
)


@dataclass(frozen=True)
class Aim:
    """A ratio of our best figure to the best of others or to another one of our own, or itself."""

    title: str
    workload: str
    figure: str
    due: float | None
    """The ratio that it has to reach; None where nothing is due."""
    aim: float | None
    scale: float = 1.0
    """Turns the figure into the unit of the title."""
    decimals: int = 0
    less_is_better: bool = False
    formats: Sequence[str] = ()
    """Only these count, of ours and of others'; all where none is named."""
    beside: str = ""
    """Name of the figure of ours that it is a ratio to, in place of others'."""
    without: str = ""
    """Format of ours whose same figure it is a ratio to, in place of others'."""
    unit: str = ""
    """Where it is no ratio: of the bounds, which the figure itself has to reach."""

    def value(self, record: Record) -> float | None:
        """Return the figure of a record that counts and has it."""
        fits = record.key.workload == self.workload and record.counts
        if not fits or (self.formats and record.key.weight_format not in self.formats):
            return None
        value = record.figures.get(self.figure)
        return None if value is None else float(value)

    def best(self, records: Sequence[Record]) -> tuple[float, Record] | None:
        """Return the best figure and whose it is."""
        found = [(value, each) for each in records if (value := self.value(each)) is not None]
        choose: Callable[..., tuple[float, Record]] = min if self.less_is_better else max
        return choose(found, key=lambda pair: pair[0]) if found else None


BYTE: Final = ("int8", "Q8_0")
DRAFTS: Final = ("int4-drafts",)
AIMS: Final = (
    Aim("W1, tokens/s", "W1", "decode_tokens_per_s", 2.0, 2.6),
    Aim("W1 in int8, tokens/s", "W1", "decode_tokens_per_s", 1.8, 2.3, formats=BYTE),
    Aim("W2 end to end, tokens/s", "W2", "total_tokens_per_s", 1.9, 2.4),
    Aim("W2x64 end to end, tokens/s", "W2x64", "total_tokens_per_s", 1.6, 2.2),
    Aim("W3 first token, s", "W3", "ttft_ms", 0.75, 0.5, 1e-3, 2, less_is_better=True),
    Aim("W4 others' first token, ms", "W4", "ttft_rest_ms", 0.5, 0.25, less_is_better=True),
    Aim("W5, tokens/s", "W5", "total_tokens_per_s", 1.6, 2.2),
    Aim("memory (PSS) after W5, MiB", "W5", "server_pss_mib", 1.0, 0.5, less_is_better=True),
    Aim("first start, s", START, "start_first_s", None, None, decimals=2, less_is_better=True),
    Aim("later start, s", START, "start_again_s", 0.7, 0.3, decimals=2, less_is_better=True),
    Aim(
        "second load, s",
        *(START, "load_again_s", 1.0, 0.2),
        decimals=2,
        less_is_better=True,
        unit="s",
    ),
    Aim(
        "W1 beside a busy process, of W1 alone, tokens/s",
        *("busy", "busy_decode_tokens_per_s", 0.45, None),
        beside="quiet_decode_tokens_per_s",
    ),
    Aim(
        "W2 beside a busy process, of W2 alone, tokens/s",
        *("busy", "busy_total_tokens_per_s", 0.45, None),
        beside="quiet_total_tokens_per_s",
    ),
    Aim(
        "copy with drafts, of that without, tokens/s",
        *("copy", "decode_tokens_per_s", 1.6, 2.5),
        formats=DRAFTS,
        without="int4",
    ),
    Aim(
        "prose with drafts, of that without, tokens/s",
        *("prose", "decode_tokens_per_s", 0.97, 1.0),
        formats=DRAFTS,
        without="int4",
    ),
    *(
        Aim(
            f"W6 p95 beside {tokens:,} tokens, ms",
            *("W6", f"itl_beside_{tokens}_p95_ms", 1.0, None),
            less_is_better=True,
        )
        for tokens in (4000, 18_000)
    ),
    *(
        Aim(
            f"W6 p95 beside {tokens:,} tokens, of that alone, ms",
            *("W6", f"itl_beside_{tokens}_p95_ms", None, 2.0),
            less_is_better=True,
            beside=f"itl_quiet_{tokens}_p95_ms",
        )
        for tokens in (4000, 18_000)
    ),
)


def aims_table(records: Sequence[Record]) -> str:
    """Return a row for each aim that has a figure of ours; nothing where there is none.

    Args:
        records: of one model, as they stand in its tables.
    """
    rows = [row for aim in AIMS if (row := _row(aim, records))]
    return table(HEADS, rows) if rows else ""


def _row(aim: Aim, records: Sequence[Record]) -> list[str]:
    others = [each for each in records if each.key.peer != OURS]
    theirs = None if aim.beside or aim.without else aim.best(others)
    cells: list[str] = []
    for entry in ("node", "gateway"):
        mine = [each for each in records if each.key.peer == OURS and each.key.entry == entry]
        base = replace(aim, formats=(aim.without,)).best(mine) if aim.without else theirs
        cells += _ours(aim, aim.best(mine), base)
    if not any(cells):
        return []
    sign = "≤" if aim.less_is_better else "≥"
    bounds = [
        "" if bound is None else f"{sign} {bound:g} {aim.unit}".strip()
        for bound in (aim.due, aim.aim)
    ]
    return [aim.title, _told(aim, theirs), *cells, *bounds]


def _ours(
    aim: Aim, found: tuple[float, Record] | None, other: tuple[float, Record] | None
) -> list[str]:
    """Return our figure and its ratio to the other one, if that is what has bounds."""
    if found is None:
        return ["", ""]
    if aim.unit:
        return [_told(aim, found), ""]
    value, record = found
    base = record.figures.get(aim.beside) if aim.beside else other and other[0]
    return [_told(aim, found), _rounded(value / base, aim) if base else ""]


def _rounded(ratio: float, aim: Aim) -> str:
    """Return two decimals, rounded against us: what is missed by little does not look reached."""
    way = ROUND_CEILING if aim.less_is_better else ROUND_FLOOR
    return str(Decimal(f"{ratio:.6f}").quantize(Decimal("0.01"), way))


def _told(aim: Aim, found: tuple[float, Record] | None) -> str:
    if found is None:
        return ""
    value, record = found
    name = record.key.weight_format
    if record.key.peer != OURS:
        name = f"{record.key.peer} {name}"
    return f"{value * aim.scale:,.{aim.decimals}f} ({name})"
