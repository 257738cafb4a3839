"""Figures: the tables of an experiment, or of one model, as pictures.

Takes pandas tables and gives matplotlib figures; no model and no configuration is read here. One more figure is one
entry of `FIGURES` and one function. Shares are percentages; parameters are counts, not billions.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from outlier_features import atomic, figures_training
from outlier_features.errors import ConfigError
from outlier_features.figure_style import (
    DPI,
    FAINT,
    GREY,
    INK,
    KINDS,
    MARKER_SIZE,
    NAME,
    PARAMETER_TICKS,
    SHADE,
    SITES,
    SMALL_NAME,
    TEXT,
    Look,
    Name,
    Page,
    Segment,
    magnitude_colors,
    page,
    say,
    spread,
    style,
    write_names,
)


@dataclass(frozen=True)
class Figure:
    """One figure this project can draw."""

    name: str
    title: str
    caption: str
    """What is measured, in a sentence or two."""
    scope: Literal["experiment", "series", "model"]
    """Whether it is drawn once for all models of an experiment, once for all training runs in it, or for each model."""
    draw: Callable[..., Drawing]
    """Takes this entry (for its words), then what `draw_experiment` or `draw_model` takes after the name."""


def draw_experiment(name: str, summary: pd.DataFrame, published: pd.DataFrame) -> Drawing:
    """Draw a figure of all models, or of all series. Raises ConfigError for a name that is none of these figures."""
    entry = _entry(name, "experiment", "series")
    with style():
        return entry.draw(entry, summary, published)


def draw_model(
    name: str, label: str, channels: pd.DataFrame, layers: pd.DataFrame, hidden_size: int, blocks: int
) -> Drawing:
    """Draw a figure of the model called `label`. Raises ConfigError for a name that is none of these figures."""
    entry = _entry(name, "model")
    with style():
        return entry.draw(entry, label, channels, layers, hidden_size, blocks)


def _entry(name: str, *scopes: str) -> Figure:
    known = [entry.name for entry in FIGURES.values() if entry.scope in scopes]
    if name not in known:
        raise ConfigError(f"unknown figure {name!r} for one {scopes[0]}; known: {', '.join(known)}")
    return FIGURES[name]


FIXED_METADATA: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""The suffixes a figure can have; None keeps out of the file what changes with the day or the version."""


def save(figure: Drawing, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write a figure as .png or .svg, whole or not at all, with its provenance as JSON under "Description".

    The same figure and provenance give the same bytes. Raises ConfigError for another suffix.
    """
    suffix = Path(path).suffix.removeprefix(".")
    if suffix not in FIXED_METADATA:
        raise ConfigError(f"{path}: a figure is written as .png or .svg; change the suffix.")
    metadata = {**FIXED_METADATA[suffix], "Description": json.dumps(provenance, sort_keys=True)}
    with style(), atomic.file(path) as unfinished:
        figure.savefig(unfinished, format=suffix, dpi=DPI, metadata=metadata)


# --- How far outlier features reach, against the size of the model -------------------------------------------------

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
REACH = (
    "How much of a model an outlier feature reaches: the share of tensors (the inputs of attention and MLP of every "
    "block) and of positions with |x| at or over the threshold, averaged over the outlier features of all sequences."
)


def moe_vs_dense(entry: Figure, summary: pd.DataFrame, published: pd.DataFrame) -> Drawing:
    """Draw layers and positions affected against total and active parameters, measured and published."""
    return _reach(entry, "arb8020", summary, published)


def moe_vs_dense_rms(entry: Figure, summary: pd.DataFrame, published: pd.DataFrame) -> Drawing:
    """Draw the same under the scale-free twin, for which nothing is published."""
    return _reach(entry, "arb8020_rms", summary, published.head(0))


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


# --- Where the outlier features of one model live ------------------------------------------------------------------

PANELS = {"llm_int8": "absolute threshold", "llm_int8_rms": "scale-free twin, in units of each tensor's RMS"}
MOST_NUMBERED = 20
"""Channels that are numbered above a panel; where there are more, the ones of the largest magnitude."""
MOST_VECTORS = 5000
"""Marks above which a panel's marks are one image inside an .svg, which would hardly open otherwise."""


def channel_map(
    entry: Figure, label: str, channels: pd.DataFrame, layers: pd.DataFrame, hidden_size: int, blocks: int
) -> Drawing:
    """Draw, block by channel, which tensors are hit: under the absolute threshold and under its scale-free twin."""
    hits = channels[channels["definition"].isin(PANELS)].astype({"is_outlier": bool})
    sites = [site for site in SITES if site in set(hits["site"])]
    handles = _map_legend(sites, bool(hits["is_outlier"].any()))
    width, height = 10.4, float(np.clip(0.14 * blocks, 2.2, 6.0))
    stride = height + 1.6
    sheet = page(
        f"{entry.title}: {label}", [entry.caption], [], width=13, body=2 * stride, legend_rows=-(-len(handles) // 2)
    )
    magnitudes = _magnitudes(hits["max_abs"])
    for i, (definition, meaning) in enumerate(PANELS.items()):
        own = hits[hits["definition"] == definition].sort_values(["max_abs", "block", "site", "channel"])
        axes = sheet.axes(0.95, 0.85 + i * stride, width, height)
        above = 38 if own["is_outlier"].any() else 9  # room for the numbers
        axes.set_title(f"{definition} ({meaning}): {_count(own)}", loc="left", pad=above, size=TEXT, weight="bold")
        if own.empty:
            say(axes, f"No activation reaches the threshold.{_peak(layers, definition)}")
            continue
        axes.set(xlim=(-0.01 * hidden_size, 1.01 * hidden_size), ylim=(-0.5, blocks - 0.5))
        axes.set(xlabel=f"channel (0 to {hidden_size - 1})", ylabel="block (0 at the bottom)")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        _draw_hits(axes, own, sites, magnitudes, height * 72 / blocks)
        _number(axes, own[own["is_outlier"]].groupby("channel")["max_abs"].max(), width * 72)
    if len(hits):
        _color_bar(sheet, magnitudes, 0.85, 2 * stride - 1.6)
    sheet.legend(handles, 2)
    return sheet.figure


def _count(hits: pd.DataFrame) -> str:
    """Return how many channels are outlier features, and how many are hit at all."""
    outliers = hits[hits["is_outlier"]]["channel"].nunique()
    more = outliers - MOST_NUMBERED
    shown = f" ({MOST_NUMBERED} largest numbered, {more} more)" if more > 0 else ""
    hit = hits["channel"].nunique()
    return f"{outliers or 'no'} outlier feature{'s' * (outliers != 1)}{shown}; {hit} channel{'s' * (hit != 1)} hit"


def _peak(layers: pd.DataFrame, definition: str) -> str:
    """Return in words how close the tensors of a panel come to the threshold, or nothing if that is not known."""
    tensors = layers[layers["site"].isin(["attn_in", "mlp_in"]) & (layers["token_class"] == "all")]
    is_relative = definition.endswith("_rms")
    peaks = tensors["max_abs"] / tensors["rms"] if is_relative else tensors["max_abs"]
    known = peaks.dropna()
    unit = " times the RMS of its tensor" if is_relative else ""
    return "" if known.empty else f"\nThe largest |x| is {known.max():.3g}{unit}."


def _magnitudes(max_abs: pd.Series) -> LogNorm:
    """Return a logarithmic scale of magnitudes that ends at round numbers on both sides."""
    steps = np.array([1, 2, 5]) * 10.0 ** np.arange(-6, 9)[:, None]
    low, high = (max_abs.min(), max_abs.max()) if len(max_abs) else (1.0, 2.0)
    return LogNorm(float(steps[steps <= low].max()), float(steps[steps > high].min()))


def _draw_hits(axes: Axes, hits: pd.DataFrame, sites: Sequence[str], magnitudes: LogNorm, row: float) -> None:
    """Draw one mark a hit tensor and channel; `row` is the height of a block in points, shared by the sites."""
    size = float(np.clip(0.8 * row / len(sites), 3.0, 8.0))
    heights = np.linspace(-0.5, 0.5, 2 * len(sites) + 1)[1::2]
    for site, height in zip(sites, heights, strict=True):
        for is_outlier in (False, True):
            group = hits[(hits["site"] == site) & (hits["is_outlier"] == is_outlier)]
            axes.scatter(
                group["channel"],
                group["block"] + height,
                c=group["max_abs"],
                cmap=magnitude_colors(),
                norm=magnitudes,
                marker=SITES[site].marker,
                s=(1.25 * size if is_outlier else size) ** 2,
                edgecolors=INK if is_outlier else "none",
                linewidths=0.9,
                zorder=4 if is_outlier else 3,
                rasterized=len(hits) > MOST_VECTORS,
            )


def _number(axes: Axes, max_abs: pd.Series, width: float) -> None:
    """Write the channel numbers of the largest outlier features above a panel that is `width` points wide."""
    numbered = sorted(max_abs.nlargest(MOST_NUMBERED).index)
    axes.vlines(numbered, 0, 1, transform=axes.get_xaxis_transform(), color=FAINT, linewidth=0.8, zorder=1)
    low, high = axes.get_xlim()
    places = [(channel - low) / (high - low) * width for channel in numbered]
    gap = 0.64 * NAME * len(f"{high:.0f}") + 8  # the width of a digit, for the longest number, and some air
    for channel, place, moved in zip(numbered, places, spread(places, gap, 0.0, width), strict=True):
        axes.annotate(
            f"{channel}",
            (channel, 1),
            (moved - place, 13),
            axes.get_xaxis_transform(),
            "offset points",
            size=NAME,
            ha="center",
            va="bottom",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
        )


def _color_bar(sheet: Page, magnitudes: LogNorm, top: float, height: float) -> None:
    """Explain the colours, right of the panels."""
    colors = ScalarMappable(magnitudes, magnitude_colors())
    bar = sheet.figure.colorbar(
        colors, cax=sheet.axes(11.75, top, 0.22, height), label="largest |x| of the channel in that tensor"
    )
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _map_legend(sites: Sequence[str], has_outliers: bool) -> list[Artist]:
    """Return an entry for every mark that is in the picture."""
    mark: dict[str, Any] = {"linestyle": "none", "markersize": 9, "markerfacecolor": FAINT}
    entries = [Line2D([], [], marker=SITES[s].marker, label=SITES[s].label, mec="none", **mark) for s in sites]
    if has_outliers:
        outlier = "black rim: the channel is an outlier feature, numbered above"
        entries.append(Line2D([], [], marker="o", label=outlier, mec=INK, **mark))
    return list(entries)


def training(entry: Figure, summary: pd.DataFrame, published: pd.DataFrame) -> Drawing:
    """Draw the metrics of the training runs over their steps; nothing of the kind is published."""
    return figures_training.draw(entry.title, entry.caption, summary)


FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "moe_vs_dense",
            "Outlier features in mixture-of-experts and dense models",
            REACH,
            "experiment",
            moe_vs_dense,
        ),
        Figure(
            "moe_vs_dense_rms",
            "Outlier features in mixture-of-experts and dense models, scale-free threshold",
            REACH,
            "experiment",
            moe_vs_dense_rms,
        ),
        Figure(
            "training",
            "Outlier features in the course of training",
            "The same model at several steps of its training. An outlier feature is a channel that reaches the "
            "threshold in enough tensors and at enough positions of all sequences together; layers and positions "
            "affected are means over the outlier features.",
            "series",
            training,
        ),
        Figure(
            "channel_map",
            "Where outlier features live",
            "Every channel of every tensor with an activation at or over the threshold, in any position of any "
            "sequence. An outlier feature is a channel that is hit in enough tensors and at enough positions.",
            "model",
            channel_map,
        ),
    )
}
