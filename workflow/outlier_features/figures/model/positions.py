"""Where along the window of one model large activations stand."""

# Shapes: T position.

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from outlier_features.figures.axes import TOPS
from outlier_features.figures.catalogue import Figure
from outlier_features.figures.page import page, say
from outlier_features.figures.scales import set_decades
from outlier_features.figures.style import FAINT, GREY, SHADE, SITES, TEXT
from outlier_features.figures.tables import Portrait

PER_OCTAVE = 16
"""Groups of neighbouring positions from one position to twice as far: as many as can be told apart."""
FIRST = -0.75
"""Where position 0 stands, in octaves from position 1: on an axis of octaves it has no place of its own."""
BREAK = -0.375
"""Where the axis is broken."""
DASHES = (0, (2.5, 1.2))
"""Of the line of means."""


def positions(entry: Figure, model: Portrait) -> Drawing:
    """Draw for each site how many hidden states are hit at each position, and how large the largest |x| is."""
    table = model.positions
    sites = [site for site in SITES if len(table) and site in set(table["site"])]
    missing = [SITES[site].label for site in SITES if site not in sites]
    handles = _legend(model.hit_threshold) if sites else []
    width, height, gap = 4.95, 1.75, 0.62
    sheet = page(
        f"{entry.title}: {model.label}",
        [entry.caption],
        [*_reading(table), *([f"Not captured: {', '.join(missing)}."] if missing and sites else [])],
        width=13,
        body=0.1 + max(1, len(sites)) * (height + gap) + 0.2,
        legend_rows=-(-len(handles) // 2),
    )
    if not sites:
        say(sheet.axes(0.3, 0.1, 12.4, height), "The table of positions has no rows.")
    for i, site in enumerate(sites):
        top, rows = 0.3 + i * (height + gap), _grouped(table[table["site"] == site])
        shares, peaks = sheet.axes(1.15, top, width, height), sheet.axes(1.15 + width + 1.3, top, width, height)
        shares.set_title(f"{SITES[site].label}: {_overall(table, site)}", loc="left", pad=6, size=TEXT, weight="bold")
        _draw_shares(shares, rows, site)
        _draw_peaks(peaks, rows, site, model.hit_threshold)
        for axes in (shares, peaks):
            axes.yaxis.set_label_coords(-0.15, 0.5)
            _set_positions(axes, int(table["position"].max()))
            if i + 1 == len(sites):
                axes.set_xlabel("position in the window")
    sheet.legend(handles, 2)
    return sheet.figure


def _grouped(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each position or group of neighbours, at `place` octaves from position 1; 0 is alone.

    Shares and means are means over the positions, weighted by their windows; the maximum is one.
    """
    rows = rows[rows["windows"] > 0].sort_values("position")
    octave_T = pd.Series(np.log2(np.maximum(rows["position"], 1)), rows.index)
    group_T = np.where(rows["position"] > 0, np.floor(octave_T * PER_OCTAVE), -1)
    weighted = ["hit_share", "outlier_share", "mean_max_abs"]
    sums = rows[weighted].mul(rows["windows"], axis=0).assign(windows=rows["windows"]).groupby(group_T).sum()
    grouped = sums[weighted].div(sums["windows"], axis=0)
    place = octave_T.groupby(group_T).mean().where(grouped.index >= 0, FIRST)
    return grouped.assign(place=place, max_abs=rows["max_abs"].groupby(group_T).max()).reset_index(drop=True)


def _overall(table: pd.DataFrame, site: str) -> str:
    """Return in words how many hidden states of a site are hit at all."""
    rows = table[table["site"] == site]
    hits, states = (rows["hit_share"] * rows["windows"]).sum(), rows["windows"].sum()
    share = 100 * hits / states if states else 0.0
    words = f"{share:.3g} %" if share >= 0.01 or not share else "under 0.01 %"
    return f"{words} hit"


def _reading(table: pd.DataFrame) -> list[str]:
    """Say how to read the picture, and what it lacks."""
    if table.empty:
        return []
    lines = [
        "Position 0 stands apart, in the shaded strip: attention sinks live there. Farther out neighbouring positions "
        f"are taken together, {PER_OCTAVE} groups to each doubling: means of shares and means, the maximum of maxima."
    ]
    if not (table["hit_share"] > 0).any():
        lines.append("No hidden state is hit.")
    elif not (table["outlier_share"] > 0).any():
        lines.append("The largest channel of a hidden state is nowhere an outlier feature: nothing is filled.")
    windows = table["windows"]
    if windows.nunique() > 1:
        lines.append(f"Windows differ in length: {windows.min()} to {windows.max()} of them have a position.")
    return lines


def _draw_shares(axes: Axes, rows: pd.DataFrame, site: str) -> None:
    """Draw the share of hidden states with a hit, and fill the part whose largest channel is an outlier feature."""
    look, first, later = SITES[site], rows[rows["place"] < 0], rows[rows["place"] >= 0]
    top = next(top for top in TOPS if top >= min(100, 105 * rows["hit_share"].max()))
    axes.set_ylabel("hidden states (%)")
    axes.set_ylim(-0.05 * top, 1.07 * top)
    axes.set_yticks([0, top / 2, top], [f"{tick:g}" for tick in (0, top / 2, top)])
    fill: dict[str, Any] = {"color": look.color, "alpha": 0.3, "linewidth": 0}
    axes.fill_between(later["place"], 0, 100 * later["outlier_share"], **fill)
    axes.bar(first["place"], 100 * first["outlier_share"], width=0.32, **fill)
    axes.plot(later["place"], 100 * later["hit_share"], color=look.color, linewidth=1.6, zorder=3)
    _mark_first(axes, first["place"], 100 * first["hit_share"], site)


def _draw_peaks(axes: Axes, rows: pd.DataFrame, site: str, hit_threshold: float) -> None:
    """Draw the maximum and the mean of the largest |x| of the hidden states."""
    look, later = SITES[site], rows[rows["place"] >= 0]
    axes.set_ylabel("largest |x|")
    values = rows[["max_abs", "mean_max_abs"]].where(lambda value: (value > 0) & np.isfinite(value))
    if values.isna().all(axis=None):
        say(axes, "no finite value at any position")
        return
    for column, dashes in (("max_abs", "-"), ("mean_max_abs", DASHES)):
        axes.plot(later["place"], values.loc[later.index, column], color=look.color, linewidth=1.6, linestyle=dashes)
        _mark_first(axes, rows["place"][rows["place"] < 0], values.loc[rows["place"] < 0, column], site, column)
    axes.axhline(hit_threshold, color=GREY, linewidth=1.0, linestyle="--", zorder=1)
    known = np.append(values.to_numpy(float), hit_threshold)
    set_decades(axes, float(np.nanmin(known)), float(np.nanmax(known)), 0.1, most=5)


def _mark_first(
    axes: Axes, places: "pd.Series[float]", values: "pd.Series[float]", site: str, column: str = ""
) -> None:
    """Mark position 0: filled, or hollow where it is a mean."""
    look = SITES[site]
    fill = "white" if column.startswith("mean") else look.color
    axes.plot(places, values, look.marker, color=look.color, markerfacecolor=fill, markersize=6.5, zorder=4)


def _set_positions(axes: Axes, last: int) -> None:
    """Give a panel an axis of octaves, with position 0 behind a break."""
    if not axes.get_yticks().size:  # it has words instead of marks
        return
    end = np.log2(max(last, 2))
    ticks = [4**power for power in range(12) if 4**power <= max(last, 1)]
    axes.set_xlim(FIRST - 0.4, end * 1.02)
    axes.set_xticks([FIRST, *np.log2(ticks)], ["0", *(f"{tick:,}" for tick in ticks)])
    axes.axvspan(FIRST - 0.4, BREAK, color=SHADE, linewidth=0, zorder=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def _legend(hit_threshold: float) -> list[Artist]:
    """Return an entry for every kind of mark, those of the left panels first; sites are named above their panels."""
    line: dict[str, Any] = {"color": GREY, "linewidth": 1.6}
    dot: dict[str, Any] = {"color": GREY, "marker": "o", "ms": 6.5, "linestyle": "none"}
    return [
        Line2D(
            [], [], label=f"left, line: hidden states that are hit (|x| ≥ {hit_threshold:g} in some channel)", **line
        ),
        Patch(
            color=GREY, alpha=0.3, linewidth=0, label="left, filled: those whose largest channel is an outlier feature"
        ),
        Line2D([], [], label="filled mark: the same at position 0", **dot),
        Line2D([], [], label="right, line: the largest |x| of all hidden states", **line),
        Line2D([], [], label="right, dashes: the mean over hidden states (hollow mark)", linestyle=DASHES, **line),
        Line2D([], [], label=f"right, thin dashes: {hit_threshold:g}, the hit threshold", color=GREY, lw=1.0, ls="--"),
    ]
