"""How far outlier features reach, against the size of the model. Shares are percentages; parameters are counts."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from outlier_features.catalogue import Figure
from outlier_features.figure_style import (
    FAINT,
    GREY,
    INK,
    KINDS,
    MARKER_SIZE,
    NAME,
    PARAMETER_TICKS,
    SHADE,
    SMALL_NAME,
    Look,
    Name,
    Segment,
    page,
    write_names,
)
from outlier_features.figure_tables import Sweep

MEASURES = {"mean_layer_pct": "layers affected (%)", "mean_position_pct": "positions affected (%)"}
SIZES = {"total_params": "total parameters", "active_params": "active parameters"}
INTERVAL_ENDS = [f"{measure}_{end}" for measure in MEASURES for end in ("low", "high")]
PHASE_SHIFT = 6.7e9
"""Parameters at which Dettmers et al. (2022) saw outlier features reach all layers of dense models."""
SHELF = -20.0
"""Lower end, in percent, of the strip below zero where models without any outlier feature stand: they have no mean."""
LANES = {"dense": -6.0, "moe": -14.0}
"""Where on the strip each kind stands, so that a dense model never hides a mixture of experts of its active size."""
PUBLISHED_FAULTS = (
    "Published points: arb8020, 2025, 16 sequences x 2048 tokens. The outlier counts there are sums over sequences "
    "(one channel counts up to 16 times) and are not drawn; the shares are means over that same list. There too every "
    "norm output is its own layer and positions are a union over layers. OLMoE is given twice (also as 28.0 % and "
    "14.3 %)."
)


def moe_vs_dense(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw layers and positions affected against total and active parameters, measured and published."""
    return _reach(entry, "arb8020", sweep.summary, sweep.published["arb8020_2025"])


def moe_vs_dense_rms(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw the same under the scale-free twin, for which nothing is published."""
    return _reach(entry, "arb8020_rms", sweep.summary, sweep.published["arb8020_2025"].head(0))


def _reach(entry: Figure, definition: str, summary: pd.DataFrame, published: pd.DataFrame) -> Drawing:
    summary, series_notes = _last_steps(summary)
    measured = _measured(summary, definition)
    points = _points(measured, published)
    notes = _missing(summary, measured, definition) + series_notes + [PUBLISHED_FAULTS] * (not published.empty)
    handles = _reach_legend(points)
    width, height, stride, columns = 5.15, 4.2, 5.1, 3
    sheet = page(
        entry.title,
        [entry.caption, _criterion(measured, definition)],
        notes,
        width=13,
        body=2 * stride + 0.2,
        legend_rows=-(-len(handles) // columns),
    )
    for row, (measure, y_label) in enumerate(MEASURES.items()):
        for column, (size, x_label) in enumerate(SIZES.items()):
            axes = sheet.axes(1.3 + column * (width + 1.1), 0.25 + row * stride, width, height)
            axes.set(xlabel=x_label, ylabel=y_label if column == 0 else "")
            _set_scales(axes, points)
            _draw_points(axes, points.assign(x=points[size], y=points[measure]), measure)
    sheet.legend(handles, columns)
    return sheet.figure


def _last_steps(summary: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a summary with only the last step of each series, and a sentence for every series that has more."""
    is_shown, notes = summary["series"].isna(), []
    for name, rows in summary.groupby("series", sort=False):
        last, count = rows["step"].max(), rows["step"].nunique()
        is_shown |= (summary["series"] == name) & (summary["step"] == last)
        if count > 1:
            notes.append(f"Of the training run {name} only the last of {count} steps is shown ({last}).")
    return summary[is_shown], notes


def _measured(summary: pd.DataFrame, definition: str) -> pd.DataFrame:
    """Return the rows of a definition, and which have a place: sizes, and shares or the knowledge of having none."""
    rows = summary[summary["definition"] == definition]
    is_empty = rows["outlier_count"] == 0
    has_value = rows[list(MEASURES)].notna().all(axis=1) | is_empty
    return rows.assign(is_empty=is_empty, is_placed=rows[list(SIZES)].notna().all(axis=1) & has_value)


def _points(measured: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return one row per mark: label, kind, hub, sizes, shares, intervals; published ones in the summary's columns.

    Models without outlier feature (`is_empty`) stand on the shelf. `is_joined` marks published values of a model that
    was measured too.
    """
    own = measured[measured["is_placed"]].assign(is_published=False)
    own = own.assign(**{name: own[name].where(~own["is_empty"], own["kind"].map(LANES)) for name in MEASURES})
    others = published.rename(columns={"model": "label", "mean_seq_pct": "mean_position_pct"}).assign(
        is_published=True, is_empty=False, **{size: published[f"{size}_b"] * 1e9 for size in SIZES}
    )
    others = others.reindex(columns=[*others.columns, *INTERVAL_ENDS])
    flags = ["is_published", "is_empty"]
    columns = ["label", "kind", "hub", *SIZES, *MEASURES, *INTERVAL_ENDS, *flags]
    points = pd.DataFrame(own[columns].to_dict("records") + others[columns].to_dict("records"), columns=columns)
    points = points.astype(dict.fromkeys([*SIZES, *MEASURES, *INTERVAL_ENDS], float) | dict.fromkeys(flags, bool))
    has_value = own[~own["is_empty"]]
    return points.assign(is_joined=points["is_published"] & points["hub"].isin(has_value["hub"].dropna()))


def _criterion(measured: pd.DataFrame, definition: str) -> str:
    """Return what was asked under a definition, as far as its rows tell."""
    unit = " times the RMS of the tensor" if definition.endswith("_rms") else ""
    parts = [f"|x| ≥ {value:g}{unit}" for value in sorted(measured["threshold"].dropna().unique())]
    parts += [f"{count:g} sequences" for count in sorted(measured["sequences"].dropna().unique())]
    return f"Definition {definition}{': ' if parts else ''}{', '.join(parts)}."


def _missing(summary: pd.DataFrame, measured: pd.DataFrame, definition: str) -> list[str]:
    """Say what the figure cannot show, one sentence each."""
    if measured.empty:
        present = ", ".join(summary["definition"].unique())
        return [f"No model was measured under {definition}; the summary has {present or 'no rows'}."]
    placed = measured[measured["is_placed"]]
    no_row = summary[~summary["model"].isin(measured["model"])]["label"].unique()
    no_interval = placed[~placed["is_empty"] & placed[INTERVAL_ENDS].isna().any(axis=1)]["label"]
    return [
        *(f"No {look.label} was measured." for kind, look in KINDS.items() if kind not in set(measured["kind"])),
        *([f"Not shown, for want of a row under {definition}: {', '.join(no_row)}."] if len(no_row) else []),
        *(f"Not shown: {row['label']} ({_reason(row)})." for _, row in measured[~measured["is_placed"]].iterrows()),
        *([f"Without a 95 % interval: {', '.join(no_interval)}."] if len(no_interval) else []),
    ]


def _reason(row: pd.Series) -> str:
    """Return why a measured model has no place: its note, or what is not known of it."""
    if isinstance(row["note"], str) and row["note"]:
        return row["note"]
    return "its parameters are unknown" if row[list(SIZES)].isna().any() else "its row has no value"


def _set_scales(axes: Axes, points: pd.DataFrame) -> None:
    """Give a panel the axes that all four share: from 100M to 100B parameters, and wide enough for every point."""
    sizes = np.append(points[list(SIZES)].to_numpy(float), [1e8, 1e11])
    axes.set(xscale="log", xlim=(sizes.min() / 2.5, sizes.max() * 2.5), ylim=(0, 100))
    axes.xaxis.set_major_locator(FixedLocator(list(PARAMETER_TICKS)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: PARAMETER_TICKS[value]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    if points["is_empty"].any():
        axes.set_ylim(SHELF, 100)
        axes.axhspan(SHELF, 0, color=SHADE, zorder=0)
        axes.set_yticks([SHELF / 2, *range(0, 101, 20)], ["no outlier\nfeature", *map(str, range(0, 101, 20))])
        axes.yaxis.get_gridlines()[0].set_visible(False)
    axes.axvline(PHASE_SHIFT, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
    top = axes.get_xaxis_transform()
    axes.text(PHASE_SHIFT, 1.01, "6.7B", transform=top, color=GREY, size=NAME, ha="center", va="bottom")


def _draw_points(axes: Axes, points: pd.DataFrame, measure: str) -> None:
    """Draw one panel at the columns x and y: marks, intervals, lines from published to measured values, and names."""
    bars, joins = _intervals(points, measure), _joins(points)
    for kind, bar in bars:
        axes.plot(*zip(*bar, strict=True), color=KINDS[kind].color, linewidth=2.5, solid_capstyle="butt", zorder=3)
    for join in joins:
        axes.plot(*zip(*join, strict=True), color=GREY, linewidth=1.4, linestyle=":", zorder=2)
    for (kind, look), is_published in itertools.product(KINDS.items(), (True, False)):
        group = points[(points["kind"] == kind) & (points["is_published"] == is_published)]
        axes.plot(group["x"], group["y"], **_mark(look, is_published), clip_on=False, zorder=4 if is_published else 5)
    names = [_name(row) for _, row in points[~points["is_joined"]].iterrows()]
    shift = ((PHASE_SHIFT, axes.get_ylim()[0]), (PHASE_SHIFT, 100.0))
    marks = list(zip(points["x"], points["y"], strict=True))
    if points.empty:
        axes.text(0.3, 0.5, "no model to show", transform=axes.transAxes, ha="center", va="center")
    write_names(axes, names, marks, [bar for _, bar in bars] + joins + [shift])


def _name(row: pd.Series) -> Name:
    """Return how a point is named: published ones small and grey, and only models without outliers on the shelf."""
    size, color = (SMALL_NAME, GREY) if row["is_published"] else (NAME, INK)
    return Name(row["label"], row["x"], row["y"], size, color, floor=SHELF if row["is_empty"] else 0)


def _intervals(points: pd.DataFrame, measure: str) -> list[tuple[str, Segment]]:
    """Return the kind and the upright line of every interval that is known."""
    known = points[~points["is_empty"]].dropna(subset=[f"{measure}_low", f"{measure}_high"])
    rows = zip(known["kind"], known["x"], known[f"{measure}_low"], known[f"{measure}_high"], strict=True)
    return [(kind, ((x, low), (x, high))) for kind, x, low, high in rows]


def _joins(points: pd.DataFrame) -> list[Segment]:
    """Return the line from each published value to the measured value of the same model."""
    own = points[~points["is_published"] & points["hub"].notna()]
    pairs = points[points["is_joined"]].merge(own, on="hub", suffixes=("", "_own"))
    return [((row["x"], row["y"]), (row["x_own"], row["y_own"])) for _, row in pairs.iterrows()]


def _mark(look: Look, is_published: bool) -> dict[str, Any]:
    """Return how a point is drawn: filled with a white rim when measured here, hollow when published."""
    edge = look.color if is_published else "white"
    fill = "white" if is_published else look.color
    return {
        "linestyle": "none",
        "marker": look.marker,
        "markersize": MARKER_SIZE if look.marker != "D" else 0.9 * MARKER_SIZE,
        "markerfacecolor": fill,
        "markeredgecolor": edge,
        "markeredgewidth": 1.8 if is_published else 0.8,
    }


def _reach_legend(points: pd.DataFrame) -> list[Artist]:
    """Return an entry for every mark that is in the picture."""
    plain = Look("", GREY, "o")
    kinds = [look for kind, look in KINDS.items() if kind in set(points["kind"])]
    entries = [Line2D([], [], label=look.label, **_mark(look, False)) for look in kinds]
    if not points["is_published"].all():
        entries.append(Line2D([], [], label="filled: measured here", **_mark(plain, False)))
    if points["is_published"].any():
        entries.append(Line2D([], [], label="hollow: published (arb8020, 2025)", **_mark(plain, True)))
    if points[INTERVAL_ENDS].notna().any(axis=None):
        interval = "95 % interval (bootstrap over sequences)"
        entries.append(Line2D([], [], label=interval, color=GREY, marker="|", ms=14, mew=2.5, linestyle="none"))
    if points["is_joined"].any():
        entries.append(Line2D([], [], label="published and measured: the same model", color=GREY, lw=1.4, ls=":"))
    shift = "6.7B: phase shift in dense models (Dettmers et al. 2022)"
    return [*entries, Line2D([], [], label=shift, color=GREY, linewidth=1.2, linestyle="--")]
