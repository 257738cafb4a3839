"""Where the outlier features of one model live: blocks by channels."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from outlier_features.figures.catalogue import Figure
from outlier_features.figures.labels import spread
from outlier_features.figures.page import page, say
from outlier_features.figures.scales import magnitude_bar, magnitudes
from outlier_features.figures.style import FAINT, GREY, INK, MASSIVE, NAME, SITES, TEXT, magnitude_colors
from outlier_features.figures.tables import Portrait
from outlier_features.thresholds import TWIN

PANELS = {"llm_int8": "absolute threshold", "llm_int8_rms": "scale-free threshold, in units of each tensor's RMS"}
MOST_NUMBERED = 20
"""Channels that are numbered above a panel; where there are more, the ones of the largest magnitude."""
MOST_MASSIVE = 5
"""Channels with massive activations that are marked, the largest ones."""
MOST_VECTORS = 5000
"""Marks above which a panel's marks are one image inside an .svg, which would hardly open otherwise."""


def channel_map(entry: Figure, model: Portrait) -> Drawing:
    """Draw, block by channel, which tensors are hit: under the absolute threshold and under its scale-free twin."""
    hidden_size, blocks = model.hidden_size, model.blocks
    hits = model.channels[model.channels["definition"].isin(PANELS)].astype({"is_outlier": bool})
    hits = hits.assign(magnitude=hits["max_abs"])
    sites = [site for site in SITES if site in set(hits["site"])]
    massive = massive_channels(model.layers)
    handles = _map_legend(sites, bool(hits["is_outlier"].any()), bool(massive))
    width, height = 10.4, float(np.clip(0.14 * blocks, 2.2, 6.0))
    stride = height + 1.6
    sheet = page(
        f"{entry.title}: {model.label}",
        [entry.caption],
        [_massive_words(massive)] if massive else [],
        width=13,
        body=2 * stride,
        legend_rows=-(-len(handles) // 2),
    )
    for i, (definition, meaning) in enumerate(PANELS.items()):
        own = hits[hits["definition"] == definition].sort_values(["max_abs", "block", "site", "channel"])
        own, unit = _in_rms(own, model.layers) if definition.endswith(TWIN) else (own, "")
        axes = sheet.axes(0.95, 0.85 + i * stride, width, height)
        above = 38 if len(own) and (massive or own["is_outlier"].any()) else 9  # room for the numbers
        axes.set_title(f"{meaning} ({definition}): {_count(own)}", loc="left", pad=above, size=TEXT, weight="bold")
        if own.empty:
            say(axes, f"No activation reaches the threshold.{_peak(model.layers, definition)}")
            continue
        axes.set(xlim=(-0.01 * hidden_size, 1.01 * hidden_size), ylim=(-0.5, blocks - 0.5))
        axes.set(xlabel=f"channel (0 to {hidden_size - 1})", ylabel="block (0 at the bottom)")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        scale = magnitudes(own["magnitude"])
        _draw_hits(axes, own, sites, scale, height * 72 / blocks)
        _number(axes, own[own["is_outlier"]].groupby("channel")["magnitude"].max(), massive, width * 72)
        magnitude_bar(sheet, (11.75, 0.85 + i * stride, 0.22, height), scale, f"largest |x|{unit}")
    sheet.legend(handles, 2)
    return sheet.figure


def massive_channels(layers: pd.DataFrame) -> dict[int, float]:
    """Return the channels of the largest massive activations of the residual stream, and how large they are there."""
    if "massive_top" not in layers:
        return {}
    own = layers[(layers["site"] == "residual") & (layers["token_class"] == "all")]
    largest: dict[int, float] = {}
    for top in (top for tops in own["massive_top"].dropna() for top in tops):
        largest[int(top["channel"])] = max(abs(top["value"]), largest.get(int(top["channel"]), 0.0))
    return dict(sorted(largest.items(), key=lambda each: -each[1])[:MOST_MASSIVE])


def _massive_words(massive: Mapping[int, float]) -> str:
    largest = ", ".join(f"{channel} (up to {value:,.0f})" for channel, value in massive.items())
    return (
        "Massive activations (|x| > 100 and at least 1000 times the median of their hidden state) stand in the "
        f"residual stream, the largest of each block in channel {largest}. The panels show what attention and MLP read."
    )


def _in_rms(hits: pd.DataFrame, layers: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return hits with magnitudes in units of the RMS of their tensor, if all are known, and what to call the unit."""
    rms = layers[layers["token_class"] == "all"].drop_duplicates(["block", "site"]).set_index(["block", "site"])["rms"]
    units = rms.reindex(pd.MultiIndex.from_frame(hits[["block", "site"]])).to_numpy(float)
    return (hits.assign(magnitude=hits["max_abs"] / units), " / RMS") if np.isfinite(units).all() else (hits, "")


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
    is_relative = definition.endswith(TWIN)
    peaks = tensors["max_abs"] / tensors["rms"] if is_relative else tensors["max_abs"]
    known = peaks.dropna()
    unit = " times the RMS of its tensor" if is_relative else ""
    return "" if known.empty else f"\nThe largest |x| is {known.max():.3g}{unit}."


def _draw_hits(axes: Axes, hits: pd.DataFrame, sites: Sequence[str], scale: LogNorm, row: float) -> None:
    """Draw one mark a hit tensor and channel; `row` is the height of a block in points, shared by the sites."""
    size = float(np.clip(0.8 * row / len(sites), 3.0, 8.0))
    heights = np.linspace(-0.5, 0.5, 2 * len(sites) + 1)[1::2]
    for site, height in zip(sites, heights, strict=True):
        for is_outlier in (False, True):
            group = hits[(hits["site"] == site) & (hits["is_outlier"] == is_outlier)]
            axes.scatter(
                group["channel"],
                group["block"] + height,
                c=group["magnitude"],
                cmap=magnitude_colors(),
                norm=scale,
                marker=SITES[site].marker,
                s=(1.25 * size if is_outlier else size) ** 2,
                edgecolors=INK if is_outlier else "none",
                linewidths=0.9,
                zorder=4 if is_outlier else 3,
                rasterized=len(hits) > MOST_VECTORS,
            )


def _number(axes: Axes, outliers: pd.Series, massive: Collection[int], width: float) -> None:
    """Write channel numbers above a panel `width` points wide: of the largest outlier features, and massive ones."""
    numbered = sorted({*outliers.nlargest(MOST_NUMBERED).index, *massive})
    colors = [MASSIVE if channel in massive else FAINT for channel in numbered]
    axes.vlines(numbered, 0, 1, transform=axes.get_xaxis_transform(), colors=colors, linewidth=0.8, zorder=1)
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
            color=MASSIVE if channel in massive else INK,
            ha="center",
            va="bottom",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
        )


def _map_legend(sites: Sequence[str], has_outliers: bool, has_massive: bool) -> list[Artist]:
    """Return an entry for every mark that is in the picture."""
    mark: dict[str, Any] = {"linestyle": "none", "markersize": 9, "markerfacecolor": FAINT}
    entries = [Line2D([], [], marker=SITES[s].marker, label=SITES[s].label, mec="none", **mark) for s in sites]
    if has_outliers:
        outlier = "black rim: the channel is an outlier feature, numbered above"
        entries.append(Line2D([], [], marker="o", label=outlier, mec=INK, **mark))
    if has_massive:
        red = "red: the channel carries massive activations in the residual stream"
        entries.append(Line2D([], [], color=MASSIVE, linewidth=1.2, label=red))
    return list(entries)
