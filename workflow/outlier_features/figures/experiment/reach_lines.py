"""Layers and positions affected as two lines over the models, in the order of their size."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from outlier_features.experiment.published import arb8020
from outlier_features.experiment.table_of_2025 import DEFINITION
from outlier_features.figures.axes import ACTIVE, LAYERS, POSITIONS, SHELF, TOTAL, parameters
from outlier_features.figures.catalogue import Figure
from outlier_features.figures.experiment.reach import OF_SHARES
from outlier_features.figures.page import MARGIN, page, say
from outlier_features.figures.points import TOY_LABEL, Panel, Points, bar_handle, mark
from outlier_features.figures.style import GREY, INK, KINDS, NAME, SHADE, SHARES, TEXT, Look, Stroke
from outlier_features.figures.tables import Sweep

MEASURES = {"layers": LAYERS, "positions": POSITIONS}
"""What the lines show, by how they look in SHARES."""
ROW, LETTER, GAP = 0.42, 0.093, 0.35
"""Inches: height for each model, width for a letter of its name, and from one panel to the names of the next."""
MOST_ROWS = 80
"""Models that have a row."""
LONGEST = 36
"""Letters of a name; longer ones are shortened."""
NO_VALUE = -SHELF / 2
"""Where a model without outlier feature stands, as a share of the length of the axis."""


def reach_lines(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw a row per model, ordered by active and by total parameters, and a line for each measure."""
    panels = [Panel(DEFINITION, size, measure) for size in (ACTIVE, TOTAL) for measure in MEASURES.values()]
    points = Points(panels, sweep.summary, arb8020(sweep.published, OF_SHARES))
    everyone = {
        size: _order(pd.concat([points.by_panel[p] for p in panels if p.x == size])) for size in (ACTIVE, TOTAL)
    }
    order = {size: _with_rows(models.tail(MOST_ROWS)) for size, models in everyone.items()}
    count = max(map(len, everyone.values()))
    too_many = [f"Of {count} models the {MOST_ROWS} largest are shown."] if count > MOST_ROWS else []
    height = max(2.0, ROW * max(map(len, order.values())))
    handles = _legend(points)
    names = {size: [_name(row) for _, row in models.iterrows()] for size, models in order.items()}
    left = MARGIN + LETTER * max(map(len, [" " * 12, *itertools.chain(*names.values())]))
    width = (13 - MARGIN - 2 * left - GAP) / 2
    sheet = page(
        entry.title,
        [entry.caption, *points.criteria()],
        [*points.notes(), *too_many],
        width=13,
        body=height + 1.4 + 0.4 * bool(points.all["is_empty"].any()),
        legend_rows=-(-len(handles) // 3),
    )
    for i, (size, models) in enumerate(order.items()):
        axes = sheet.axes(left + i * (width + GAP + left), 0.35, width, height)
        axes.set_title(f"ordered by {size.name}", loc="left", size=TEXT, weight="bold")
        if models.empty:
            say(axes, points.why_empty(panels[0]))
            continue
        _set_rows(axes, models, names[size], points)
        for name, measure in MEASURES.items():
            own = points.by_panel[Panel(DEFINITION, size, measure)]
            rows = own.assign(row=_key(own).map(models["row"])).dropna(subset="row")
            _draw_line(axes, rows, SHARES[name], NO_VALUE * points.range(LAYERS)[1])
    sheet.legend(handles, 3)
    return sheet.figure


def _key(points: pd.DataFrame) -> "pd.Series[str]":
    """Return what a model is known by: its hub name, so that a measured and a published one are the same, or label."""
    return points["hub"].fillna(points["label"])


def _order(points: pd.DataFrame) -> pd.DataFrame:
    """Return label, kind and size (x) of each model by its key, smallest first; the measured size comes first."""
    models = points.assign(key=_key(points)).sort_values("is_published", kind="stable").drop_duplicates("key")
    return models.sort_values(["x", "label"]).set_index("key")


def _with_rows(models: pd.DataFrame) -> pd.DataFrame:
    return models.assign(row=np.arange(len(models)))


def _name(model: pd.Series) -> str:
    """Return what a row is called: the model and its size."""
    return f"{textwrap.shorten(model['label'], LONGEST, placeholder=' …')}  ({parameters(model['x'])})"


def _set_rows(axes: Axes, models: pd.DataFrame, names: Sequence[str], points: Points) -> None:
    """Give a panel a named row per model, smallest on top, and percentages from left to right."""
    has_empty = bool(points.all["is_empty"].any())
    low, high = points.range(LAYERS)
    ticks: Mapping[float, str] = LAYERS.ticks(low, high)
    if has_empty:
        ticks = {NO_VALUE * high: "no\noutlier\nfeature", **ticks}
        low = 2 * NO_VALUE * high
        axes.axvspan(low, 0, color=SHADE, zorder=0)
    axes.set(xlim=(low, high), ylim=(len(models) - 0.5, -0.5))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("layers and positions affected (%)")
    axes.set_yticks(models["row"], names)
    axes.tick_params(axis="y", length=0, labelsize=NAME)
    axes.grid(axis="x", color=SHADE, linewidth=0.8)
    for row in models[models["kind"] == "moe"]["row"]:
        axes.axhspan(row - 0.5, row + 0.5, color=KINDS["moe"].color, alpha=0.1, linewidth=0, zorder=0)
    for label, model in zip(axes.get_yticklabels(), models.itertuples(), strict=True):
        label.set_color(GREY if model.is_toy else INK)


def _draw_line(axes: Axes, points: pd.DataFrame, share: Stroke, no_value: float) -> None:
    """Draw one measure: its marks and intervals, and lines over the models of one kind that are no toys."""
    ordered = points.sort_values("row")
    for is_published, is_toy, (kind, look) in itertools.product((False, True), (False, True), KINDS.items()):
        is_own = (ordered["is_published"] == is_published) & (ordered["is_toy"] == is_toy) & (ordered["kind"] == kind)
        own = ordered[is_own]
        if own.empty:
            continue
        if not is_toy:
            line: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.6} if is_published else {"linewidth": 2.0}
            axes.plot(own["y"], own["row"], color=share.color, linestyle=share.style, zorder=2, **line)
        axes.hlines(own["row"], own["y_low"], own["y_high"], color=share.color, linewidth=5, alpha=0.35, zorder=3)
        looks = mark(Look("", share.color, look.marker), is_published, is_toy=is_toy)
        place: dict[str, Any] = {"clip_on": False, "zorder": 3.5 if is_toy else 4 if is_published else 5}
        axes.plot(
            own["y"], own["row"], **looks | {"markerfacecolor": "white" if is_published else share.color}, **place
        )
        empty = own[own["is_empty"]]
        looks = mark(Look("", GREY, look.marker), False, is_toy=is_toy)
        axes.plot([no_value] * len(empty), empty["row"], **looks, **place)


def _legend(points: Points) -> list[Artist]:
    """Return an entry for every mark that is in the picture."""
    found = points.all
    entries: list[Artist] = []
    if len(found):
        entries += [Line2D([], [], label=s.label, color=s.color, ls=s.style, linewidth=2) for s in SHARES.values()]
    if "dense" in set(found["kind"]):
        entries.append(Line2D([], [], label="circle: dense model", **mark(Look("", GREY, "o"), False)))
    if "moe" in set(found["kind"]):
        entries.append(Line2D([], [], label="diamond: mixture of experts", **mark(Look("", GREY, "D"), False)))
        entries.append(Patch(facecolor=KINDS["moe"].color, alpha=0.15, label="row of a mixture of experts"))
    if found["is_toy"].any():
        entries.append(Line2D([], [], label=TOY_LABEL, **mark(Look("", GREY, "o"), False, is_toy=True)))
    entries += points.origins()
    if found[["y_low", "y_high"]].notna().all(axis=1).any():
        entries.append(bar_handle(LAYERS.bar))
    return entries
