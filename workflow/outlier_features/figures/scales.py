"""Scales that figures share: blocks, values over many decades, and colours of magnitudes."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from outlier_features.figures.page import Page
from outlier_features.figures.style import FAINT, magnitude_colors

Scale = Literal["linear", "log"]
Place = tuple[float, float, float, float]
"""Left, top, width and height of a panel, in inches."""


def block_ticks(blocks: int) -> list[float]:
    """Return the ticks of an axis of blocks."""
    ticks = MaxNLocator(nbins=12, integer=True, steps=[1, 2, 5, 10]).tick_values(0, blocks - 1)
    return [tick for tick in ticks if tick in range(blocks)]


def round_numbers(low: float, high: float) -> NDArray[np.float64]:
    """Return the ticks of a logarithmic axis: powers of ten, or more numbers where those are few."""
    for steps, enough in (((1,), 3), ((1, 2, 5), 4), ((1, 1.5, 2, 3, 5, 7), 3)):
        ticks = np.asarray(LogLocator(subs=steps).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= enough:
            return ticks
    return np.asarray(MaxNLocator(nbins=5).tick_values(low, high))


def below(low: float, high: float, scale: Scale, share: float) -> float:
    """Return the place below an axis from `low` to `high` that is this share of its length away from it."""
    return low * (low / high) ** share if scale == "log" else low - share * (high - low)


def magnitudes(values: "pd.Series[float]") -> LogNorm:
    """Return a logarithmic scale of magnitudes that ends at round numbers on both sides."""
    steps = np.array([1, 2, 5]) * 10.0 ** np.arange(-46, 40)[:, None]  # whatever float32 holds
    low, high = (values.min(), values.max()) if len(values) else (1.0, 2.0)
    return LogNorm(float(steps[steps <= low].max()), float(steps[steps > high].min()))


def write_values(axes: Axes, ticks: Sequence[float], most: int = 7) -> None:
    """Give a vertical axis these ticks, evenly thinned to so many, written in full."""
    axes.yaxis.set_major_locator(FixedLocator(list(ticks[:: -(-len(ticks) // most)])))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.15g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def set_decades(axes: Axes, low: float, high: float, air: float, most: int = 7) -> None:
    """Give a panel a logarithmic vertical axis from `low` to `high`, with that share of its height of air at the ends.

    `air` is at least a factor of 1.15, so that a single value gets an axis too.
    """
    factor = max(1.15, (high / low) ** air)
    ends = low / factor, high * factor
    axes.set_yscale("log")
    axes.set_ylim(*ends)
    write_values(axes, [tick for tick in round_numbers(*ends) if ends[0] <= tick <= ends[1]], most)


def magnitude_bar(sheet: Page, place: Place, scale: LogNorm, label: str) -> None:
    """Explain the colours of magnitudes, at a place as `Page.axes` takes it."""
    bar = sheet.figure.colorbar(ScalarMappable(scale, magnitude_colors()), cax=sheet.axes(*place), label=label)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())
