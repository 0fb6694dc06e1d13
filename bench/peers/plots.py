"""Pictures of the tables: bars for medians, lines from the lowest to the highest.

A star at a server's name where its run does not count.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.peers.report import COMPANY, COST, MIXED, SPEED, Column, by_model
from bench.peers.results import Record, file_name

PICTURES: Final[Mapping[str, Sequence[Column]]] = {
    "throughput": tuple(c for c in SPEED if c.figure.endswith("tokens_per_s") and c.drawn),
    "latency": tuple(c for c in SPEED if "ttft" in c.figure),
    "mixed": tuple(c for c in MIXED if c.drawn),
    "company": COMPANY,
    "cost": COST,
}
OURS: Final = "#c04000"
THEIRS: Final = "#708090"
ACROSS: Final = 3
PANEL_INCHES: Final = (4.2, 2.8)


def draw(records: Sequence[Record], folder: Path) -> dict[str, list[Path]]:
    """Write a PNG for each model and each of `PICTURES` that something was measured for.

    Returns:
        What was written, by model.
    """
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, list[Path]] = {}
    for model, beside in by_model(records).items():
        for name, columns in PICTURES.items():
            panels = [(c, found) for c in columns if (found := _of(beside.shown, c))]
            if panels:
                path = folder / f"{name}-{file_name(model)}.png"
                _picture(panels).savefig(path, dpi=110)
                paths.setdefault(model, []).append(path)
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
    names = [record.key.server + ("" if record.counts else " *") for record in records]
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
