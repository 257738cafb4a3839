"""What an outlier feature is, explained on a toy: made-up activations small enough to be drawn one by one."""

# Shapes: L layer (one tensor, here one a block), T position, C channel.

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from outlier_features.figures.catalogue import Figure
from outlier_features.figures.page import Page, page
from outlier_features.figures.style import FAINT, GREY, INK, NAME, NOTE, SMALL_NAME, TEXT, magnitude_colors
from outlier_features.figures.tables import Sweep

Floats = NDArray[np.float64]

THRESHOLD, LEAST_LAYER_PCT, LEAST_POSITION_PCT = 6.0, 25.0, 6.0
"""The criterion of Dettmers et al. (2022)."""
LAYERS, POSITIONS, CHANNELS = 8, 20, 8
COORDINATED, ONE_LAYER, ONE_POSITION = 2, 5, 6
"""Channels of the toy: an outlier feature, one that is hit in one layer only, one at the first position only."""
CELL, BETWEEN = 0.142, 0.36
"""Inches: the side of a cell, and from one grid to the next."""
HITS = LogNorm(5.0, 30.0)


def toy() -> Floats:
    """Return activations [L, T, C]: ordinary ones below the threshold, and hits that are planted."""
    rng = np.random.default_rng(5)
    x_LTC = np.clip(rng.normal(0, 1.8, (LAYERS, POSITIONS, CHANNELS)), -5.5, 5.5)
    is_hit_LT = rng.random((LAYERS, POSITIONS)) < 0.4 * (np.arange(LAYERS) > 0)[:, None]
    is_hit_LT[:, 12:15] = False  # words that this channel says nothing of
    x_LTC[is_hit_LT, COORDINATED] = -rng.uniform(8, 25, is_hit_LT.sum())
    x_LTC[3, ::2, ONE_LAYER] = rng.uniform(7, 15, 10)
    x_LTC[2:7, 0, ONE_POSITION] = rng.uniform(12, 28, 5)
    for layer, position, channel in ((1, 11, 0), (6, 4, 1), (2, 16, 3), (5, 18, 4), (7, 9, 7)):
        x_LTC[layer, position, channel] = 9.0
    return x_LTC


def shares(x_LTC: Floats) -> pd.DataFrame:
    """Return a row per channel: layers and positions with a hit, as counts and percentages, and whether that is enough.

    A layer counts with any hit, a position with a hit in any layer, as in the definitions of this project.
    """
    is_hit_LTC = np.abs(x_LTC) >= THRESHOLD
    layers_C, positions_C = is_hit_LTC.any(axis=1).sum(axis=0), is_hit_LTC.any(axis=0).sum(axis=0)
    layer_pct, position_pct = 100 * layers_C / len(x_LTC), 100 * positions_C / x_LTC.shape[1]
    is_outlier = (layer_pct >= LEAST_LAYER_PCT) & (position_pct >= LEAST_POSITION_PCT)
    columns = {"layers": layers_C, "positions": positions_C, "layer_pct": layer_pct, "position_pct": position_pct}
    return pd.DataFrame(columns | {"is_outlier": is_outlier})


def residual_stream(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw the toy block by block, and under it what the rule makes of each channel. Nothing of the sweep is used."""
    x_LTC = toy()
    found = shares(x_LTC)
    handles = _legend()
    grid_height, row = CELL * POSITIONS, 0.36
    sheet = page(
        entry.title,
        [entry.caption],
        ["A toy: made-up numbers, chosen to show each case. Nothing here was measured."],
        width=13,
        body=grid_height + row * CHANNELS + 2.6,
        legend_rows=-(-len(handles) // 2),
    )
    for layer, x_TC in enumerate(x_LTC):
        axes = sheet.axes(1.15 + layer * (CELL * CHANNELS + BETWEEN), 0.5, CELL * CHANNELS, grid_height)
        _draw_block(axes, layer, x_TC, found["is_outlier"].to_numpy(bool))
    _draw_rule(sheet, found, grid_height + 1.65, row * CHANNELS)
    sheet.legend(handles, 2)
    return sheet.figure


def _draw_block(axes: Axes, layer: int, x_TC: Floats, is_outlier_C: NDArray[np.bool_]) -> None:
    """Draw what one block reads: grey below the threshold, coloured above; outlier features in a frame."""
    axes.imshow(_colors(np.abs(x_TC)), aspect="auto", interpolation="nearest")
    axes.set_title(f"block {layer}", size=TEXT, pad=8)
    axes.set_xticks(range(CHANNELS), [f"{channel}" for channel in range(CHANNELS)], size=SMALL_NAME)
    axes.set_yticks(range(0, POSITIONS, 5) if layer == 0 else [])
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(CHANNELS + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(POSITIONS + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    for channel in np.flatnonzero(is_outlier_C):
        frame = Rectangle((channel - 0.5, -0.5), 1, POSITIONS, fill=False, edgecolor=INK, linewidth=2.2)
        axes.add_patch(frame).set_clip_on(False)
    if layer == 0:
        axes.set_ylabel("position in the text")
    if layer == LAYERS // 2 - 1:
        axes.annotate(
            "channel of the residual stream", (1.16, 0), (0, -30), "axes fraction", "offset points", ha="center"
        )
    if layer < LAYERS - 1:
        arrow = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.4}
        width = CELL * CHANNELS
        axes.annotate("", (1 + 0.85 * BETWEEN / width, 0.5), (1 + 0.15 * BETWEEN / width, 0.5), "axes fraction",
                      arrowprops=arrow)  # fmt: skip


def _colors(magnitude_TC: Floats) -> Floats:
    """Return RGB colours [T, C, 3]."""
    grey = 0.97 - 0.2 * np.minimum(magnitude_TC / THRESHOLD, 1)
    hits = magnitude_colors()(HITS(magnitude_TC))[..., :3]
    is_hit = (magnitude_TC >= THRESHOLD)[..., None]
    return np.where(is_hit, hits, grey[..., None])


def _draw_rule(sheet: Page, found: pd.DataFrame, top: float, height: float) -> None:
    """Draw both shares of each channel beside what they have to reach, and say what follows."""
    panels = (
        ("layer_pct", "layers", LAYERS, LEAST_LAYER_PCT, "L%: layers with any hit"),
        ("position_pct", "positions", POSITIONS, LEAST_POSITION_PCT, "S%: positions with a hit in any layer"),
    )
    colors = [INK if is_outlier else FAINT for is_outlier in found["is_outlier"]]
    for i, (column, counted, of, least, title) in enumerate(panels):
        axes = sheet.axes(1.15 + i * 4.1, top, 3.7, height)
        axes.barh(found.index, found[column], color=colors, height=0.6, zorder=2)
        axes.axvline(least, color=GREY, linewidth=1.4, linestyle="--", zorder=3)
        top_edge = axes.get_xaxis_transform()
        axes.text(
            least, 1.02, f"at least {least:g} %", transform=top_edge, color=GREY, size=NOTE, ha="left", va="bottom"
        )
        for channel, (share, count) in enumerate(zip(found[column], found[counted], strict=True)):
            axes.text(
                max(share, least) + 2, channel, f"{count} of {of} = {share:g} %", size=NOTE, va="center", zorder=4
            )
        axes.set(xlim=(0, 145), ylim=(CHANNELS - 0.5, -0.5), xlabel=title)
        axes.set_xticks(range(0, 101, 25))
        axes.set_yticks(range(CHANNELS) if i == 0 else [])
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if i == 0:
            axes.set_ylabel("channel")
            continue
        for channel, (_, row) in enumerate(found.iterrows()):
            weight = "bold" if row["is_outlier"] else "normal"
            axes.text(150, channel, _verdict(row), size=NAME, weight=weight, va="center")


def _verdict(row: pd.Series) -> str:
    """Return what the rule says of a channel, and why."""
    if row["is_outlier"]:
        return "outlier feature: coordinated"
    few = [
        word
        for word, share, least in (
            ("layers", row["layer_pct"], LEAST_LAYER_PCT),
            ("positions", row["position_pct"], LEAST_POSITION_PCT),
        )
        if share < least
    ]
    return f"none: too few {' and '.join(few)}"


def _legend() -> list[Artist]:
    colors = magnitude_colors()
    return [
        Patch(facecolor="0.87", label="below the threshold: |x| < 6"),
        Patch(facecolor=colors(HITS(8.0)), label="hit: |x| = 8"),
        Patch(
            facecolor="none", edgecolor=INK, linewidth=2.2, label="outlier feature: one channel, hit again and again"
        ),
        Patch(facecolor=colors(HITS(24.0)), label="hit: |x| = 24"),
        Line2D([], [], color=GREY, linewidth=1.4, linestyle="--", label="what an outlier feature has to reach"),
    ]
