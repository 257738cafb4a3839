"""Arithmetic of axes: round numbers to write beside them, and places below their ends."""

from typing import Literal

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

Scale = Literal["linear", "log"]


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
