"""Pictures of the tables: bars for medians, lines from the lowest to the highest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.peers.report import COMPANY, COST, SPEED, Column
from bench.peers.results import Record

PICTURES: Final[dict[str, tuple[Column, ...]]] = {
    "throughput": tuple(c for c in SPEED if c.figure.endswith("tokens_per_s")),
    "latency": tuple(c for c in SPEED if "ttft" in c.figure),
    "company": COMPANY,
    "cost": COST,
}
OURS: Final = "#c04000"
THEIRS: Final = "#708090"
ACROSS: Final = 3
PANEL_INCHES: Final = (4.2, 2.8)


def draw(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write a PNG for each of `PICTURES` that something was measured for."""
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, columns in PICTURES.items():
        panels = [(c, found) for c in columns if (found := _of(records, c))]
        if panels:
            paths.append(folder / f"{name}.png")
            _picture(panels).savefig(paths[-1], dpi=110)
    return paths


def _of(records: Sequence[Record], column: Column) -> list[Record]:
    return [r for r in records if r.key.workload == column.workload and column.figure in r.figures]


def _picture(panels: Sequence[tuple[Column, list[Record]]]) -> Figure:
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure((PANEL_INCHES[0] * across, PANEL_INCHES[1] * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flat
    for place, (column, found) in zip(axes, panels, strict=False):
        _panel(place, column, found)
    for place in list(figure.axes)[len(panels) :]:
        place.set_visible(False)
    return figure


def _panel(axes: Axes, column: Column, records: Sequence[Record]) -> None:
    names = [record.key.server for record in records]
    values = [record.figures[column.figure] * column.scale for record in records]
    spans = [record.figures.get(f"{column.figure}_all") or [] for record in records]
    low = [
        max(0.0, value - min(span, default=0.0) * column.scale) if span else 0.0
        for value, span in zip(values, spans, strict=True)
    ]
    high = [
        max(0.0, max(span) * column.scale - value) if span else 0.0
        for value, span in zip(values, spans, strict=True)
    ]
    colours = [OURS if record.key.peer == "cortex" else THEIRS for record in records]
    axes.barh(names, values, xerr=[low, high], color=colours, height=0.7)
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set_title(column.title, fontsize=9)
