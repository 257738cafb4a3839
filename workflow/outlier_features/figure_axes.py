"""Axes that figures share: blocks, values over many decades, and colours of magnitudes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from outlier_features.figure_style import magnitude_colors


def block_ticks(blocks: int) -> list[float]:
    """Return the ticks of an axis of blocks."""
    ticks = MaxNLocator(nbins=12, integer=True, steps=[1, 2, 5, 10]).tick_values(0, blocks - 1)
    return [tick for tick in ticks if tick in range(blocks)]


def round_numbers(low: float, high: float) -> NDArray[np.float64]:
    """Return the ticks of a logarithmic axis: powers of ten, or 1, 2 and 5 of them where those are few."""
    powers = np.asarray(LogLocator(subs=(1,)).tick_values(low, high))
    enough = ((powers >= low) & (powers <= high)).sum() >= 3
    return np.asarray(powers if enough else LogLocator(subs=(1, 2, 5)).tick_values(low, high))


def magnitudes(values: "pd.Series[float]") -> LogNorm:
    """Return a logarithmic scale of magnitudes that ends at round numbers on both sides."""
    steps = np.array([1, 2, 5]) * 10.0 ** np.arange(-6, 9)[:, None]
    low, high = (values.min(), values.max()) if len(values) else (1.0, 2.0)
    return LogNorm(float(steps[steps <= low].max()), float(steps[steps > high].min()))


def magnitude_bar(place: Axes, scale: LogNorm, label: str) -> None:
    """Explain the colours of magnitudes in a panel of their own."""
    bar = place.get_figure(root=True).colorbar(ScalarMappable(scale, magnitude_colors()), cax=place, label=label)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())
