"""Metrics of one model block by block: kurtosis, and magnitudes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from outlier_features.catalogue import Figure
from outlier_features.figure_axes import block_ticks, round_numbers
from outlier_features.figure_style import FAINT, GREY, INK, SITES, TEXT, Page, page, say
from outlier_features.figure_tables import Portrait

CLASSES = {"all": "all positions", "first": "position 0 alone", "rest": "without position 0"}
"""The token classes, as they are called above a panel."""
MASSIVE = "#c1272d"
"""The ring around massive activations."""


@dataclass(frozen=True)
class Metric:
    """One column of the table of layers, in a row of panels."""

    column: str
    label: str
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


MMR = Metric("mmr", "MMR of the residual", 1.8, sites=("residual",))


def kurtosis(entry: Figure, model: Portrait) -> Drawing:
    """Draw the four kurtoses by block and site, of all positions beside those without position 0."""
    metrics = (
        Metric("kurtosis_neuron_rms", "kurtosis_neuron_rms\n(He et al. 2024)", 3.2, ends=(1, model.hidden_size)),
        Metric("kurtosis_flattened", "kurtosis_flattened\n(Bondarenko et al. 2023)", 1.9, normal=3),
        Metric("kurtosis_token_excess", "kurtosis_token_excess\n(Outlier-Safe Pre-Training)", 1.9, "symlog", 0),
        Metric("kurtosis_channel_mean", "kurtosis_channel_mean\n(llama.cpp imatrix)", 1.9, "symlog", 0),
    )
    dotted = Line2D([], [], color=INK, linestyle=":", label=f"lowest and highest possible (1 and {model.hidden_size})")
    normal = Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label="normally distributed values")
    own = "The first is 1 where all channels have the same mean square, and the number of channels where one has all."
    drawn = _rows(entry, model, metrics, ("all", "rest"), [dotted, normal], [own])
    return drawn.sheet.figure


def magnitude(entry: Figure, model: Portrait) -> Drawing:
    """Draw the largest |x|, the RMS and the max-median ratio by block and site, for each class of positions."""
    metrics = (Metric("max_abs", "largest |x|", 3.2), Metric("rms", "RMS", 2.2), MMR)
    line = Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label=f"hit: |x| ≥ {model.hit_threshold:g}")
    ring: dict[str, Any] = {"marker": "o", "ms": 11, "mec": MASSIVE, "mew": 1.6, "mfc": "none", "linestyle": "none"}
    massive = _massive(model.layers)
    rings = [Line2D([], [], label="block with a massive activation", **ring)] if len(massive) else []
    drawn = _rows(entry, model, metrics, tuple(CLASSES), [line, *rings], [_massive_words(model.layers, massive)])
    for token_class, axes in drawn.panels["max_abs"].items():
        axes.axhline(model.hit_threshold, color=GREY, linewidth=1.0, linestyle="--", zorder=2)
        own = massive[massive["token_class"] == token_class]
        axes.plot(own["block"], own["max_abs"], zorder=6, **ring)
    return drawn.sheet.figure


def _massive(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of hidden states with a massive activation."""
    if "massive_count" not in layers:
        return layers.head(0)
    return layers[(layers["site"] == "residual") & (layers["massive_count"] > 0).fillna(False)]


def _massive_words(layers: pd.DataFrame, massive: pd.DataFrame) -> str:
    """Say in which blocks, channels and positions massive activations are."""
    what = "massive activation (|x| > 100 and at least 1000 times the median of its hidden state)"
    if "massive_count" not in layers or "residual" not in set(layers["site"]):
        return "Massive activations are looked for in the residual, which this table does not have."
    everywhere = massive[massive["token_class"] == "all"]
    if everywhere.empty:
        return f"No {what}."
    blocks, most = everywhere["block"], everywhere["massive_count"].max()
    tops = [top for tops in everywhere["massive_top"] for top in tops]
    where = {key: _listed(sorted({int(top[key]) for top in tops})) for key in ("channel", "position")}
    return (
        f"Ringed: {what}, in {len(everywhere)} blocks from {blocks.min()} to {blocks.max()}, up to {most} in one. The "
        f"largest of each block are in channel {where['channel']} at position {where['position']}."
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
    gaps = _gaps(values, model.blocks)
    absent = [f"Not captured: {', '.join(missing)}."] if missing else []
    gap, top = 0.24, 0.4
    sheet = page(
        f"{entry.title}: {model.label}",
        [entry.caption],
        [*notes, *absent, *gaps],
        width=13,
        body=top + sum(metric.height + gap for metric in metrics) + 0.4,
        legend_rows=-(-len(entries) // 2),
    )
    width = (11.4 - gap * (len(classes) - 1)) / len(classes)
    panels: dict[str, dict[str, Axes]] = {}
    for metric in metrics:
        found = values[metric.column]
        limits = _limits(found["value"], metric, model)
        for i, token_class in enumerate(classes):
            axes = sheet.axes(1.3 + i * (width + gap), top, width, metric.height)
            own = found[found["token_class"] == token_class]
            if metric is metrics[0]:
                axes.set_title(CLASSES[token_class], loc="left", pad=8, size=TEXT, weight="bold")
            if own["value"].isna().all():
                say(axes, _reason(model.layers, metric, token_class))
            else:
                _set_axes(axes, metric, model.blocks, limits)
                _draw(axes, own, model.blocks, width * 72)
                panels.setdefault(metric.column, {})[token_class] = axes
            axes.tick_params(labelbottom=metric is metrics[-1], labelleft=i == 0)
            if i == 0:
                axes.set_ylabel(metric.label)
                axes.yaxis.set_label_coords(-0.62 / width, 0.5)
            if metric is metrics[-1]:
                axes.set_xlabel(f"block (0 to {model.blocks - 1})" if model.blocks > 1 else "block")
        top += metric.height + gap
    sheet.legend(entries, 2)
    return _Drawn(sheet, panels)


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
    for column, rows in values.items():
        for (token_class, site), own in rows.groupby(["token_class", "site"], sort=False)["value"]:
            lacking = int(own.isna().sum())
            is_silent = rows.loc[rows["token_class"] == token_class, "value"].isna().all()
            if lacking and not is_silent:
                found.append(f"{column} of {site} ({CLASSES[token_class]}) at {lacking} of {blocks}")
    more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
    return [f"Blocks without a value: {'; '.join(found[:4])}{more}."] if found else []


def _limits(values: "pd.Series[float]", metric: Metric, model: Portrait) -> tuple[float, float]:
    """Return the ends of the vertical axis of a row of panels."""
    known = [*values.dropna(), *(metric.ends or ())]
    known += [metric.normal] if metric.normal is not None else []
    known += [model.hit_threshold] if metric.column == "max_abs" else []
    low, high = min(known, default=1.0), max(known, default=1.0)
    if metric.scale == "log":
        air = max(1.15, (high / low) ** 0.05)
        return low / air, high * air
    return min(low, 0) - 0.5, max(high, 1) * 1.6


def _set_axes(axes: Axes, metric: Metric, blocks: int, limits: tuple[float, float]) -> None:
    """Give a panel its axes, and the lines that its values are compared with."""
    low, high = limits
    axes.set_xlim(-0.5 - 0.02 * blocks, blocks - 0.5 + 0.02 * blocks)
    axes.set_xticks(block_ticks(blocks))
    if metric.scale == "log":
        axes.set_yscale("log")
        ticks = [tick for tick in round_numbers(low, high) if low <= tick <= high]
    else:
        axes.set_yscale("symlog", linthresh=1, linscale=0.5)
        powers = 10.0 ** np.arange(0, 12)
        ticks = [-1.0] * (low < -1) + [0.0, *powers[powers <= high]]
    if metric.ends:
        ticks = [tick for tick in ticks if tick < metric.ends[1] / 2.2] + [metric.ends[1]]
        axes.hlines(metric.ends, 0, 1, transform=axes.get_yaxis_transform(), color=INK, linewidth=1.2, linestyle=":", zorder=2)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(_thinned(ticks)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e5 else f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    if metric.normal is not None:
        axes.axhline(metric.normal, color=GREY, linewidth=1.0, linestyle="--", zorder=2)


def _thinned(ticks: Sequence[float], most: int = 7) -> list[float]:
    """Return at most so many ticks, evenly chosen."""
    return list(ticks[:: -(-len(ticks) // most)])


def _draw(axes: Axes, rows: pd.DataFrame, blocks: int, width: float) -> None:
    """Draw a line for each site in a panel that is `width` points wide; a block without value interrupts it."""
    size = float(np.clip(0.6 * width / blocks, 1.8, 6.0))
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
