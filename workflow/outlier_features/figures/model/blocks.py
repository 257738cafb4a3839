"""Metrics of one model block by block: kurtosis, and magnitudes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from outlier_features.figures.catalogue import Figure
from outlier_features.figures.page import Page, page, say
from outlier_features.figures.scales import block_ticks, set_decades, write_values
from outlier_features.figures.style import GREY, INK, MASSIVE, RING, SITES, TEXT
from outlier_features.figures.tables import Portrait

CLASSES = {"all": "all positions", "first": "position 0 alone", "rest": "without position 0"}
"""The token classes, as they are called above a panel."""


@dataclass(frozen=True)
class Metric:
    """One column of the table of layers, in a row of panels."""

    column: str
    name: str
    label: str
    """Beside the axis."""
    height: float
    """Of its panels, in inches."""
    scale: Literal["log", "symlog"] = "log"
    """`symlog` is linear from -1 to 1, for what can be negative."""
    normal: float | None = None
    """What normally distributed values have."""
    sites: tuple[str, ...] = tuple(SITES)
    """Where it is taken."""
    ends: tuple[float, float] | None = None
    """The lowest and the highest value there can be."""


def kurtosis(entry: Figure, model: Portrait) -> Drawing:
    """Draw the four kurtoses by block and site, of all positions beside those without position 0."""
    metrics = (
        Metric("kurtosis_neuron_rms", "over the RMS of channels", "He et al. 2024", 3.2, ends=(1, model.hidden_size)),
        Metric("kurtosis_flattened", "over all values", "Bondarenko\net al. 2023", 1.9, normal=3),
        Metric("kurtosis_token_excess", "within a token", "Outlier-Safe\nPre-Training", 1.9, "symlog", 0),
        Metric("kurtosis_channel_mean", "over the means of channels", "llama.cpp\nimatrix", 1.9, "symlog", 0),
    )
    ends = f"lowest and highest possible (1 and {model.hidden_size:,})"
    dotted = Line2D([], [], color=INK, linestyle=":", label=ends)
    normal = Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label="normally distributed values")
    words = (
        "Over the RMS of channels it is 1 where all channels have the same mean square, and the number of channels "
        "where one has all of it. The lower two are excess kurtoses, 0 for normally distributed values; their axes are "
        f"linear between -1 and 1. Columns of the table of layers, from the top: "
        f"{', '.join(metric.column for metric in metrics)}."
    )
    notes = [words, *_other_widths(model)]
    drawn = _rows(entry, model, metrics, ("all", "rest"), [dotted, normal], notes)
    return drawn.sheet.figure


def _other_widths(model: Portrait) -> list[str]:
    """Say where the highest possible kurtosis is another one."""
    widths = model.layers.groupby("site")["channels"].max() if "channels" in model.layers else pd.Series(dtype=float)
    others = widths[(widths != model.hidden_size).fillna(False)]
    return [f"The tensor {site} has {width:,} channels." for site, width in others.items() if site in SITES]


def magnitude(entry: Figure, model: Portrait) -> Drawing:
    """Draw the largest |x|, the RMS and the max-median ratio by block and site, for each class of positions."""
    metrics = (
        Metric("max_abs", "largest |x|", "largest |x|", 3.2),
        Metric("rms", "RMS", "RMS", 2.2),
        Metric("mmr", "MMR", "MMR (residual)", 1.8, sites=("residual",)),
    )
    line = Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label=f"hit: |x| ≥ {model.hit_threshold:g}")
    massive = _massive(model.layers)
    rings = [Line2D([], [], label="massive activations", color=MASSIVE, ms=11, **RING)] if len(massive) else []
    drawn = _rows(entry, model, metrics, tuple(CLASSES), [line, *rings], [_massive_words(model.layers, massive)])
    for token_class, axes in drawn.panels.get("max_abs", {}).items():
        axes.axhline(model.hit_threshold, color=GREY, linewidth=1.0, linestyle="--", zorder=2)
        own = massive[massive["token_class"] == token_class]
        ring = RING | {"markersize": 2 * drawn.mark_size, "markeredgewidth": 0.25 * drawn.mark_size}
        axes.plot(own["block"], own["max_abs"], color=MASSIVE, zorder=6, **ring)
    return drawn.sheet.figure


def _massive(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of hidden states with a massive activation."""
    if "massive_count" not in layers:
        return layers.head(0)
    return layers[(layers["site"] == "residual") & (layers["massive_count"] > 0).fillna(False)]


def _massive_words(layers: pd.DataFrame, massive: pd.DataFrame) -> str:
    """Say in which blocks, channels and positions massive activations are."""
    what = "massive activations (|x| > 100 and at least 1000 times the median of their hidden state)"
    if "residual" not in set(layers["site"]):
        return "Massive activations are looked for in the residual, which was not captured."
    if "massive_count" not in layers:
        return "The table does not tell massive activations (no column massive_count)."
    everywhere = massive[massive["token_class"] == "all"]
    if everywhere.empty:
        return f"There are no {what}."
    blocks, most = everywhere["block"], everywhere["massive_count"].max()
    tops = [top for tops in everywhere["massive_top"] for top in tops]
    where = {key: _listed(sorted({int(top[key]) for top in tops})) for key in ("channel", "position")}
    return (
        f"Ringed: {what}, up to {most} in a block, in {len(everywhere)} of the blocks {blocks.min()} to "
        f"{blocks.max()}. The largest of each block are in channel {where['channel']}, at position {where['position']}."
    )


def _listed(numbers: Sequence[int], most: int = 10) -> str:
    """Return numbers as words; of many the first ones."""
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more


@dataclass(frozen=True)
class _Drawn:
    """A page of metrics, and its panels that have marks by column and token class."""

    sheet: Page
    panels: Mapping[str, Mapping[str, Axes]]
    mark_size: float


def _rows(
    entry: Figure,
    model: Portrait,
    metrics: Sequence[Metric],
    classes: Sequence[str],
    handles: Sequence[Artist],
    notes: Sequence[str],
) -> _Drawn:
    """Draw a row of panels for each metric and a column for each token class; a row shares its vertical axis."""
    sites = [site for site in SITES if site in set(model.layers["site"])]
    missing = [SITES[site].label for site in SITES if site not in sites]
    entries = [*_site_entries(sites), *handles]
    values = {metric.column: _values(model, metric, sites, classes) for metric in metrics}
    gaps = _gaps({metric.name: values[metric.column] for metric in metrics}, model.blocks)
    absent = [f"Not captured: {', '.join(missing)}."] if missing else []
    gap, heading, top = 0.24, 0.4, 0.0
    width = (11.2 - gap * (len(classes) - 1)) / len(classes)
    size = float(np.clip(0.6 * width * 72 / model.blocks, 1.8, 6.0))
    sheet = page(
        f"{entry.title}: {model.label}",
        [entry.caption],
        [*notes, *absent, *gaps],
        width=13,
        body=sum(heading + metric.height for metric in metrics) + 0.65,
        legend_rows=-(-len(entries) // 2),
    )
    panels: dict[str, dict[str, Axes]] = {}
    for metric in metrics:
        found = values[metric.column]
        limits = _limits(found["value"], metric, model)
        top += heading
        for i, token_class in enumerate(classes):
            axes = sheet.axes(1.5 + i * (width + gap), top, width, metric.height)
            own = found[found["token_class"] == token_class]
            axes.set_title(f"{metric.name}: {CLASSES[token_class]}", loc="left", pad=6, size=TEXT, weight="bold")
            if own["value"].isna().all():
                say(axes, _reason(model.layers, metric, token_class))
            else:
                _set_axes(axes, metric, model.blocks, limits)
                _draw(axes, own, size)
                panels.setdefault(metric.column, {})[token_class] = axes
            _label(axes, metric.label if i == 0 else "", model.blocks, is_lowest=metric is metrics[-1])
            axes.yaxis.set_label_coords(-0.82 / width, 0.5)
        top += metric.height
    sheet.legend(entries, 2)
    return _Drawn(sheet, panels, size)


def _label(axes: Axes, label: str, blocks: int, *, is_lowest: bool) -> None:
    """Label the vertical axis of a panel on the left, and the blocks of a lowest one."""
    axes.tick_params(labelbottom=is_lowest, labelleft=bool(label))
    axes.set_ylabel(label)
    if is_lowest:
        _set_blocks(axes, blocks)  # also below words: the panels above have no numbers
        axes.set_xlabel(f"block (0 to {blocks - 1})" if blocks > 1 else "block")


def _values(model: Portrait, metric: Metric, sites: Iterable[str], classes: Sequence[str]) -> pd.DataFrame:
    """Return a row for each token class, site and block: `value` is blank where there is no mark."""
    layers = model.layers
    wanted = pd.MultiIndex.from_product(
        [classes, [site for site in sites if site in metric.sites], range(model.blocks)],
        names=["token_class", "site", "block"],
    )
    value = layers[metric.column] if metric.column in layers else pd.Series(np.nan, layers.index)
    value = value.astype(float).where(np.isfinite(value.astype(float)))
    value = value.where(value > 0) if metric.scale == "log" else value
    rows = layers[list(wanted.names)].assign(value=value).drop_duplicates(list(wanted.names))
    return rows.set_index(list(wanted.names))["value"].reindex(wanted).reset_index()


def _reason(layers: pd.DataFrame, metric: Metric, token_class: str) -> str:
    """Say why a panel has no marks."""
    if metric.column not in layers:
        return f"The table has no column\n{metric.column}."
    if not set(metric.sites) & set(layers["site"]):
        return f"Not captured:\n{', '.join(metric.sites)}"
    if token_class not in set(layers["token_class"]):
        return f"The table has no rows of\n{CLASSES[token_class]}."
    return f"{metric.column} has\nno value at any block."


def _gaps(values: Mapping[str, pd.DataFrame], blocks: int) -> list[str]:
    """Say which lines of the panels that have marks lack some."""
    found = []
    for name, rows in values.items():
        for token_class, own in rows.groupby("token_class", sort=False):
            lacking = own["value"].isna().groupby(own["site"], sort=False).sum()
            for site, count in lacking[lacking > 0].items() if own["value"].notna().any() else ():
                found.append(f"{name} of {site} ({CLASSES[str(token_class)]}) at {count} of {blocks}")
    more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
    return [f"Blocks without a value: {'; '.join(found[:4])}{more}."] if found else []


def _limits(values: "pd.Series[float]", metric: Metric, model: Portrait) -> tuple[float, float]:
    """Return the ends of the vertical axis of a row of panels."""
    known = [*values.dropna(), *(metric.ends or ())]
    known += [metric.normal] if metric.normal is not None else []
    known += [model.hit_threshold] if metric.column == "max_abs" else []
    return min(known, default=1.0), max(known, default=1.0)


def _set_axes(axes: Axes, metric: Metric, blocks: int, limits: tuple[float, float]) -> None:
    """Give a panel its axes, and the lines that its values are compared with."""
    low, high = limits
    _set_blocks(axes, blocks)
    if metric.scale == "log":
        set_decades(axes, low, high, 0.05)
    else:
        axes.set_yscale("symlog", linthresh=1, linscale=0.5)
        axes.set_ylim(min(low, 0) - 0.5, max(high, 1) * 1.6)
        powers = 10.0 ** np.arange(0, 12)
        write_values(axes, [*[-1.0] * (low < -1), 0.0, *powers[powers <= 1.6 * high]])
    if metric.ends:
        least, most = metric.ends
        write_values(axes, [*(tick for tick in axes.get_yticks() if least <= tick < most / 2.2), most])
        for end in metric.ends:
            axes.axhline(end, color=INK, linewidth=1.2, linestyle=":", zorder=2)
    if metric.normal is not None:
        axes.axhline(metric.normal, color=GREY, linewidth=1.0, linestyle="--", zorder=2)


def _set_blocks(axes: Axes, blocks: int) -> None:
    axes.set_xlim(-0.5 - 0.02 * blocks, blocks - 0.5 + 0.02 * blocks)
    axes.set_xticks(block_ticks(blocks))


def _draw(axes: Axes, rows: pd.DataFrame, size: float) -> None:
    """Draw a line for each site; a block without value interrupts it."""
    for site, own in rows.groupby("site", sort=False):
        look = SITES[str(site)]
        axes.plot(
            own["block"], own["value"], color=look.color, marker=look.marker, markersize=size, markeredgewidth=0,
            linewidth=1.1, zorder=3,
        )  # fmt: skip


def _site_entries(sites: Sequence[str]) -> list[Artist]:
    """Return what the legend says of each site."""
    looks = [SITES[site] for site in sites]
    return [Line2D([], [], label=look.label, color=look.color, marker=look.marker, ms=6, mew=0) for look in looks]
