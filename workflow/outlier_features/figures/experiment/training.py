"""The figure of training runs: each metric of a series against the training step.

Takes the summary; models that are no step of a series are left out. Shares are percentages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from outlier_features.experiment.quantities import QUANTITIES, Quantity
from outlier_features.figures.catalogue import Figure
from outlier_features.figures.page import page, say
from outlier_features.figures.scales import below, round_numbers
from outlier_features.figures.style import FAINT, GREY, NAME, SHADE, TEXT, Look, series_looks
from outlier_features.figures.tables import Sweep
from outlier_features.metrics.intervals import GAPS

PLAIN, TWIN = "llm_int8", "llm_int8_rms"
DEFINITIONS = {PLAIN: "filled, solid line", TWIN: "hollow, dashed line"}
"""The definitions that are drawn, and how."""


@dataclass(frozen=True)
class Panel:
    """One metric over training steps."""

    column: str
    """The column of the summary; with `_low` and `_high` those of its interval, if it has one."""
    scale: Literal["linear", "log"]
    definitions: Sequence[str] = tuple(DEFINITIONS)
    """The definitions of which there is a line each; () for a metric that is the same under all of them."""
    counted: str = ""
    """Where this column is 0 there is nothing to take the metric of, and the mark stands on a shelf."""
    shelf: str = ""
    """What the shelf is called."""
    label: str = ""
    """What its axis is called; by default as everywhere."""

    @property
    def quantity(self) -> Quantity:
        """What the column is, in words."""
        return QUANTITIES[self.column]

    @property
    def ceiling(self) -> float | None:
        """The largest value there can be."""
        return 100.0 if self.quantity.unit == "%" else None


_NO_FEATURE = "no outlier\nfeature"
PANELS = (
    Panel("distinct_channels", "linear", label="outlier features\n(distinct channels)"),
    Panel("perplexity", "log", ()),
    Panel("mean_layer_pct", "linear", counted="outlier_count", shelf=_NO_FEATURE),
    Panel("mean_position_pct", "linear", counted="outlier_count", shelf=_NO_FEATURE),
    Panel("kurtosis_max", "log", (), label="kurtosis of the residual\nstream, largest of all blocks"),
    Panel(
        "massive_max_abs",
        "log",
        (),
        counted="massive_count",
        shelf="no massive\nactivation",
        label="largest |x| of the\nmassive activations",
    ),
)
LABEL = -0.195
"""Where the labels of the vertical axes end, in widths of a panel: left of all ticks and of the name of a shelf."""
LANE = 0.08
"""Share of the height of a panel that each line takes on its shelf, so that no mark hides another."""
SHELF = (0.21, 0.4)
"""The least share, which its name needs, and the largest that all lines together take."""
READING = (
    "A filled mark inside a hollow one: both definitions give the same. "
    f"Bars are 95 % intervals over sequences; kurtosis and massive activations have none, and {GAPS}. "
    "Step 0 is the model before training; between 0 and the first step after it the axis is linear."
)


@dataclass(frozen=True)
class Line:
    """One series in one panel."""

    series: str
    definition: str
    values: pd.DataFrame
    """A row per step: step, value, low, high (blank where unknown) and is_empty, for a mark on the shelf."""

    @property
    def is_known(self) -> "pd.Series[bool]":
        """Which steps have a mark."""
        return self.values["value"].notna() | self.values["is_empty"]


def training(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw every metric over the training steps of all series; nothing of the kind is published."""
    rows = sweep.summary.dropna(subset=["series", "step"])
    looks = series_looks(list(rows["series"].unique()))
    lines = {panel: _lines(rows, panel) for panel in PANELS}
    handles = _legend(looks, lines)
    width, height, stride = 4.75, 3.1, 4.2
    sheet = page(
        entry.title,
        [entry.caption, _criteria(rows)],
        [READING, *_gaps(lines)] if looks else ["No model of the experiment is a step of a training run."],
        width=13,
        body=3 * stride,
        legend_rows=-(-len(handles) // 2),
    )
    for i, panel in enumerate(PANELS):
        axes = sheet.axes(1.65 + i % 2 * (width + 1.55), 0.15 + i // 2 * stride, width, height)
        axes.set_ylabel(panel.label or panel.quantity.label)
        axes.yaxis.set_label_coords(LABEL, 0.5)
        _draw_panel(axes, panel, lines[panel], looks, rows["step"].to_numpy(float))
    sheet.legend(handles, 2)
    return sheet.figure


def _criteria(rows: pd.DataFrame) -> str:
    """Return what was asked, as far as the rows tell."""
    own = rows[rows["definition"].isin(DEFINITIONS)].drop_duplicates(["definition", "threshold"])
    units = {PLAIN: "", TWIN: " times the RMS of the tensor"}
    parts = [
        f"{name}: |x| ≥ {threshold:g}{units[name]}"
        for name, threshold in zip(own["definition"], own["threshold"], strict=True)
    ]
    parts += [f"{count:g} sequences" for count in sorted(rows["sequences"].dropna().unique())]
    return f"{'; '.join(parts)}." if parts else ""


def _lines(rows: pd.DataFrame, panel: Panel) -> list[Line]:
    """Return the lines of a panel; a step without row or value is blank."""
    return [
        Line(str(series), definition or PLAIN, _values(own, panel, definition))
        for series, own in rows.groupby("series", sort=False)
        for definition in panel.definitions or [""]
    ]


def _values(own: pd.DataFrame, panel: Panel, definition: str) -> pd.DataFrame:
    wanted = own[own["definition"] == definition] if definition else own
    steps = np.sort(own["step"].astype(int).unique())
    rows = wanted.drop_duplicates("step").set_index("step").reindex(steps).reset_index()
    names = {"value": panel.column, "low": f"{panel.column}_low", "high": f"{panel.column}_high"}
    columns = {name: rows.get(column, np.nan) for name, column in names.items()}
    is_empty = (rows[panel.counted] == 0).fillna(False) if panel.counted else False
    values = pd.DataFrame({"step": steps} | columns, index=rows.index).astype(float)
    return values.assign(is_empty=is_empty).astype({"is_empty": bool})


def _draw_panel(
    axes: Axes, panel: Panel, lines: Sequence[Line], looks: Mapping[str, Look], steps: NDArray[np.float64]
) -> None:
    if not any(line.is_known.any() for line in lines):
        say(axes, f"{panel.quantity.words}: not measured at any step")
        return
    _set_steps(axes, steps)
    needs_shelf = any(line.values["is_empty"].any() for line in lines)
    shelf = float(np.clip(len(lines) * LANE, *SHELF)) if needs_shelf else 0.0
    _set_values(axes, panel, pd.concat([line.values for line in lines]), shelf)
    lanes = (np.arange(len(lines), 0, -1) - 0.5) / len(lines) * shelf
    for line, lane in zip(lines, lanes, strict=True):
        _draw_line(axes, line, looks[line.series], float(lane))


def _draw_line(axes: Axes, line: Line, look: Look, lane: float) -> None:
    """Draw marks, intervals and what joins them; steps without value interrupt the line.

    Where a filled mark and a hollow one coincide, the filled one lies inside the other.
    """
    is_plain = line.definition == PLAIN
    mark: dict[str, Any] = {
        "marker": look.marker,
        "color": look.color,
        "markersize": 6.5 if is_plain else 9,
        "zorder": 5 if is_plain else 4,
        "markerfacecolor": look.color if is_plain else "white",
        "markeredgecolor": "white" if is_plain else look.color,
        "markeredgewidth": 0.7 if is_plain else 1.5,
    }
    found, on_shelf = line.values, line.values[line.values["is_empty"]]
    known = found.dropna(subset=["low", "high"])
    axes.vlines(known["step"], known["low"], known["high"], color=look.color, linewidth=2.2, alpha=0.6, zorder=3)
    axes.plot(found["step"], found["value"], linestyle="-" if is_plain else "--", clip_on=False, **mark)
    place = axes.get_xaxis_transform()
    axes.plot(on_shelf["step"], [lane] * len(on_shelf), transform=place, linestyle="none", **mark)


def _set_steps(axes: Axes, steps: NDArray[np.float64]) -> None:
    """Give a panel a logarithmic axis of steps, with room for step 0 where there is one."""
    after = steps[steps > 0]
    low, high = (after.min(), after.max()) if after.size else (1.0, 1.0)
    decades = 10.0 ** np.arange(0, 13)
    ticks = [tick for tick in decades if low <= tick <= high]
    if len(ticks) < 3:
        ticks = [tick for tick in np.outer(decades, [1, 2, 5]).ravel() if low <= tick <= high]
    if len(ticks) < 2:
        ticks = sorted(set(after))
    if (steps == 0).any():
        axes.set_xscale("symlog", linthresh=low, linscale=0.6)
        axes.set_xlim(-0.4 * low, 1.6 * high)
        ticks = [0.0, *ticks]
    else:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, 1.6 * high)
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _count(step: float) -> str:
    """Return a number of steps as people say it: 512, 143k, 1M."""
    for unit, suffix in ((1e6, "M"), (1e3, "k")):
        if step >= unit:
            return f"{step / unit:g}{suffix}"
    return f"{step:g}"


def _set_values(axes: Axes, panel: Panel, values: pd.DataFrame, shelf: float) -> None:
    """Give a panel an axis that holds all values and intervals, above a named shelf of that share of its height."""
    found = values[["value", "low", "high"]].to_numpy(float)
    found = found[np.isfinite(found)]
    if panel.scale == "log":
        low, high = (found.min() / 1.4, found.max() * 1.4) if found.size else (1.0, 10.0)
        ticks = round_numbers(low, high)
    else:
        low, high = 0.0, panel.ceiling or max(1.0, found.max(initial=0)) * 1.08
        ticks = np.asarray(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]).tick_values(low, high))
    axes.set_yscale(panel.scale)
    axes.set_ylim(below(low, high, panel.scale, shelf / (1 - shelf)), high)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high] if found.size else []))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    if shelf:
        axes.fill_between([0, 1], 0, shelf, transform=axes.transAxes, color=SHADE, linewidth=0, zorder=0)
        place: dict[str, Any] = {"transform": axes.transAxes, "size": NAME, "linespacing": 1.1}
        axes.text(-0.015, shelf / 2, panel.shelf, ha="right", va="center", **place)
    if not found.size:
        words = f"{panel.shelf.replace(chr(10), ' ')} at any step"
        axes.text(0.5, 0.55, words, transform=axes.transAxes, size=TEXT, ha="center", va="center")


def _legend(looks: Mapping[str, Look], lines: Mapping[Panel, Sequence[Line]]) -> list[Artist]:
    """Return an entry for every mark that is in the picture."""
    drawn = {
        line.definition for panel, each in lines.items() for line in each if panel.definitions and line.is_known.any()
    }
    entries = [Line2D([], [], label=look.label, color=look.color, marker=look.marker, ms=7) for look in looks.values()]
    for definition, words in DEFINITIONS.items():
        if definition in drawn:
            is_plain = definition == PLAIN
            mark: dict[str, Any] = {
                "markerfacecolor": GREY if is_plain else "white",
                "linestyle": "-" if is_plain else "--",
            }
            entries.append(Line2D([], [], label=f"{words}: {definition}", color=GREY, marker="o", ms=7, **mark))
    if any(line.values[["low", "high"]].notna().all(axis=1).any() for each in lines.values() for line in each):
        bar: dict[str, Any] = {"marker": "|", "ms": 14, "mew": 2.2, "linestyle": "none"}
        entries.append(Line2D([], [], label="95 % interval", color=GREY, **bar))
    return list(entries)


def _gaps(lines: Mapping[Panel, Sequence[Line]]) -> list[str]:
    """Say which steps have no mark in which panels, one sentence for those that lack the same."""
    found: dict[tuple[str, str], list[str]] = {}
    for panel, each in lines.items():
        for line in (line for line in each if any(other.is_known.any() for other in each)):
            steps = line.values["step"][~line.is_known]
            where = "any step" if len(steps) == len(line.values) else f"step {', '.join(f'{s:g}' for s in steps)}"
            name = f"{panel.quantity.words} ({line.definition})" if panel.definitions else panel.quantity.words
            if len(steps):
                found.setdefault((line.series, where), []).append(name)
    return [f"{series} has no value at {where} of: {', '.join(names)}." for (series, where), names in found.items()]
