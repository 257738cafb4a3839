"""Quantities of a model as axes of panels: what they are called, their ranges and ticks, and the shelf below them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis as Ruler
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from outlier_features.experiment.quantities import QUANTITIES
from outlier_features.figures.scales import Scale, below, round_numbers
from outlier_features.figures.style import FAINT, GREY, NAME, SHADE
from outlier_features.units import human

Floats = NDArray[np.float64]

INTERVAL = "95 % interval over sequences"


@dataclass(frozen=True)
class Axis:
    """A quantity of a model, a column of the summary, that a panel can show points along."""

    column: str
    name: str
    """What it is called in a sentence."""
    label: str
    scale: Scale
    unit: str
    """Panels of one figure whose axes have the same unit have the same range."""
    ends: tuple[str, ...] = ()
    """The columns of the low and the high end of its bars, if it has any."""
    least_span: float = 1.0
    """How many times its low end the high end of a logarithmic axis is at least."""
    bar: str = INTERVAL
    """What the bars are."""
    shelf: str = "no outlier\nfeature"
    """What the strip below the axis is called, for models that have no outlier feature to take the quantity of."""

    def range(self, values: Floats) -> tuple[float, float]:
        """Return where the axis begins and ends so that it holds all values that are known and have a place on it."""
        known = values[np.isfinite(values) & ((values > 0) | (self.scale != "log"))]
        if self.unit == "percent":
            return 0.0, next(top for top in TOPS if top >= 100 or top >= 1.05 * known.max(initial=0.0))
        if not known.size:
            return (1e8, 1e11) if self.unit == "parameters" else (1.0, 10.0)
        if self.unit == "parameters":
            return _decades(float(known.min() / 2.5), float(known.max() * 2.5))
        if self.scale == "log":
            low, high = float(known.min() / 1.35), float(known.max() * 1.35)
            return low, max(high, low * self.least_span)
        air = 0.12 * (known.max() - known.min()) or 0.1 * abs(known.max()) or 1.0
        return float(known.min() - air), float(known.max() + air)

    def ticks(self, low: float, high: float) -> dict[float, str]:
        """Return the ticks between two ends, and what is written at each."""
        if self.unit == "parameters":
            return {tick: parameters(tick) for tick in 10.0 ** np.arange(3, 16) if low <= tick <= high}
        even = MaxNLocator(nbins=6, steps=[1, 2, 5, 10])
        found = round_numbers(low, high) if self.scale == "log" else even.tick_values(low, high)
        return {float(tick): f"{tick:,g}" for tick in found if low <= tick <= high}


TOPS = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0)
"""Percentages that an axis may end at; it begins at 0."""
FEWEST_DECADES = 2.0
"""How long an axis of parameters is at least, so that it has ticks to read sizes off."""


def _decades(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis of parameters, moved apart where it is too short."""
    apart = 10 ** (max(0.0, FEWEST_DECADES - np.log10(high / low)) / 2)
    return low / apart, high * apart


def _axis(column: str, scale: Scale, unit: str = "", label: str = "", **more: Any) -> Axis:
    """Return the axis of a quantity of the summary; it has bars where the summary has its interval."""
    quantity = QUANTITIES[column]
    return Axis(column, quantity.words, label or quantity.label, scale, unit or column, **more)


def _estimated(column: str, scale: Scale, unit: str = "", label: str = "", **more: Any) -> Axis:
    return _axis(column, scale, unit, label, ends=(f"{column}_low", f"{column}_high"), **more)


BETTER = "(a better model is further left)"
TOTAL = _axis("total_params", "log", "parameters")
ACTIVE = _axis("active_params", "log", "parameters")
PERPLEXITY = _estimated("perplexity", "log", label=f"perplexity {BETTER}")
BITS = _estimated("bits_per_byte", "linear", label=f"bits per byte {BETTER}")
LAYERS = _estimated("mean_layer_pct", "linear", "percent")
POSITIONS = _estimated("mean_position_pct", "linear", "percent")
MEDIAN_LAYERS = _axis("median_layer_pct", "linear", "percent", "layers affected (%), median")
MEDIAN_POSITIONS = _axis("median_position_pct", "linear", "percent", "positions affected (%), median")
FEATURES = _estimated(
    "outlier_count", "log", label="outlier features,\nsum over sequences", least_span=15.0, shelf="none"
)
CHANNELS = _axis(
    "distinct_channels", "log", label="outlier features,\ndistinct channels", least_span=15.0, shelf="none"
)
MAGNITUDE = Axis(
    "largest_quartile_2", "magnitude of the largest outlier feature", "median |x| of the\nlargest outlier feature",
    "log", "magnitude", ("largest_quartile_1", "largest_quartile_3"), bar="first to third quartile of |x|",
)  # fmt: skip


def parameters(count: float) -> str:
    """Return a number of parameters as people say it: 600M, 30.5B."""
    return human(count, digits=3)


SHELF = 0.2
"""How deep below a vertical axis its shelf reaches, as a share of its length."""
LANES = {"dense": 0.06, "moe": 0.14}
"""Where on the shelf each kind stands, so that a dense model never hides a mixture of experts at the same place."""


def set_x(axes: Axes, axis: Axis, low: float, high: float) -> None:
    """Give a panel its horizontal axis."""
    axes.set(xscale=axis.scale, xlim=(low, high), xlabel=axis.label)
    _set_ticks(axes.xaxis, axis.ticks(low, high))


def set_y(axes: Axes, axis: Axis, low: float, high: float, *, shelf: bool) -> None:
    """Give a panel its vertical axis, above a named shelf where one is needed."""
    ticks, ground = axis.ticks(low, high), below(low, high, axis.scale, SHELF)
    axes.set(yscale=axis.scale, ylim=(ground if shelf else low, high), ylabel=axis.label)
    _set_ticks(axes.yaxis, ticks)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    if shelf:
        axes.axhspan(ground, low, color=SHADE, zorder=0)
        middle = below(low, high, axis.scale, SHELF / 2)
        _set_ticks(axes.yaxis, {middle: axis.shelf} | ticks)
        axes.yaxis.get_gridlines()[0].set_visible(False)


def _set_ticks(ruler: Ruler, ticks: dict[float, str]) -> None:
    ruler.set_ticks(list(ticks), list(ticks.values()))
    ruler.set_minor_locator(NullLocator())


PHASE_SHIFT = 6.7e9
"""Parameters at which Dettmers et al. (2022) saw outlier features reach all layers of dense models."""
PHASE_SHIFT_CRITERION = ("llm_int8", "llm_int8_paper"), 6.0
"""Under which definitions, and at which threshold, it was seen: other axes do not tell of it."""


def tells_phase_shift(axis: Axis, definition: str, thresholds: "pd.Series[float]") -> bool:
    """Tell whether the phase shift of 2022 has a place along an axis, of values measured under a definition."""
    definitions, threshold = PHASE_SHIFT_CRITERION
    return axis.unit == "parameters" and definition in definitions and bool(thresholds.dropna().eq(threshold).all())


def mark_phase_shift(axes: Axes) -> None:
    """Draw where the paper saw the phase shift, on a panel whose horizontal axis counts parameters."""
    axes.axvline(PHASE_SHIFT, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
    top = axes.get_xaxis_transform()
    axes.text(PHASE_SHIFT, 1.025, "6.7B", transform=top, color=GREY, size=NAME, ha="center", va="bottom")
