"""Quantities: what the columns of the summary are, in words, and how a value of each is written with its interval.

One more quantity is one more entry of QUANTITIES; tables, figures, pages and sentences take their words from there.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

from outlier_features.metrics.intervals import Estimate
from outlier_features.units import human

DIGITS = 3
"""Significant digits of a quantity that has no fixed number of decimals."""


class Written(NamedTuple):
    """A value as text, and the ends of its 95 % interval where it has one."""

    value: str
    low: str | None = None
    high: str | None = None

    def joined(self, separator: str = " ", dash: str = "-") -> str:
        """Return them as `53.2 (52.2-54.3)`."""
        return self.value if self.low is None else f"{self.value}{separator}({self.low}{dash}{self.high})"


@dataclass(frozen=True)
class Quantity:
    """A column of the summary. Its interval, where it has one, is in `{column}_low` and `{column}_high`."""

    column: str
    words: str
    """What it is called in a sentence and beside an axis."""
    heading: str
    """The same over a column of numbers, where the words around say of what."""
    meaning: str
    """What it is, in a sentence or two."""
    unit: Literal["", "%", "parameters"] = ""
    places: int | None = None
    """Decimals; None for as many as DIGITS significant digits take."""
    phrase: str = ""
    """What a sentence says rises or falls, where the words do not do."""
    blank: str = "it was not measured"
    """Why a model may have no value."""
    by_definition: bool = False
    """Whether it depends on the definition of an outlier feature."""

    @property
    def titled(self) -> str:
        """The heading with its unit: `layers (%)`."""
        return f"{self.heading} (%)" if self.unit == "%" else self.heading

    @property
    def label(self) -> str:
        """The words with the unit: `layers affected (%)`."""
        return f"{self.words} (%)" if self.unit == "%" else self.words

    def estimate(self, row: Mapping[Any, Any] | pd.Series) -> Estimate:
        """Return the value in a row of the summary, with its interval; NaN for what is not known."""
        value, low, high = (_known(row.get(f"{self.column}{end}")) for end in ("", "_low", "_high"))
        return Estimate(value, low, high)

    def decimals(self, value: float) -> int:
        """Return how many decimals a value takes."""
        return significant_places(value) if self.places is None else self.places

    def written(self, found: Estimate, places: int | None = None) -> Written | None:
        """Return a value and its interval as text, None where it is not known; by default with the value's decimals."""
        if math.isnan(found.value):
            return None
        if self.unit == "parameters":
            return Written(human(found.value))
        places = self.decimals(found.value) if places is None else places
        has_interval = not (math.isnan(found.low) or math.isnan(found.high))
        shown = (found.value, found.low, found.high) if has_interval else (found.value,)
        return Written(*(f"{number:,.{places}f}" for number in shown))

    def cell(self, row: Mapping[Hashable, Any] | pd.Series) -> Written | None:
        """Return what a table shows of a row of the summary; None where it has no value."""
        return self.written(self.estimate(row))


def significant_places(value: float, digits: int = DIGITS) -> int:
    """Return how many decimals show so many significant digits; none where all are before the point."""
    if not value or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _known(value: Any) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)


def _share(column: str, words: str, heading: str, meaning: str, phrase: str = "") -> Quantity:
    """Return a share in percent, over the outlier features of a model."""
    blank = "no outlier feature was found, so there is no mean share"
    return Quantity(column, words, heading, meaning, "%", 1, phrase, blank, by_definition=True)


QUANTITIES = {
    quantity.column: quantity
    for quantity in (
        Quantity("total_params", "total parameters", "total params", "All parameters of the model.", "parameters"),
        Quantity(
            "active_params",
            "active parameters",
            "active params",
            "Parameters that one token passes through: all but the experts it is not routed to, with embedding and "
            "head.",
            "parameters",
        ),
        Quantity("experts", "routed experts of a block", "experts", "", places=0, blank="a dense model has none"),
        Quantity("top_k", "experts a token is routed to", "top-k", "", places=0, blank="a dense model has none"),
        Quantity("sparsity", "sparsity", "sparsity", "Active over total parameters; 1 for a dense model."),
        Quantity(
            "outlier_count",
            "outlier features",
            "features",
            "Outlier features as the definition counts them: distinct channels, or the sum over sequences, which can "
            "exceed the hidden size.",
            places=0,
            by_definition=True,
        ),
        Quantity(
            "distinct_channels",
            "distinct channels",
            "distinct",
            "Channels that are an outlier feature anywhere.",
            places=0,
            by_definition=True,
        ),
        Quantity(
            "stable_channels",
            "stable channels",
            "stable",
            "Channels that are an outlier feature in at least half of the sequences.",
            places=0,
            by_definition=True,
        ),
        _share(
            "mean_layer_pct",
            "layers affected",
            "layers",
            "Share of the tensors that an outlier feature hits, in percent: the mean over the outlier features.",
            "the share of layers that an outlier feature reaches",
        ),
        _share(
            "median_layer_pct",
            "layers affected",
            "layers, median",
            "The same, the median over the outlier features.",
        ),
        _share(
            "mean_position_pct",
            "positions affected",
            "positions",
            "Share of the positions at which an outlier feature hits any tensor, in percent: the mean over the outlier "
            "features.",
            "the share of positions that an outlier feature reaches",
        ),
        _share(
            "median_position_pct",
            "positions affected",
            "positions, median",
            "The same, the median over the outlier features.",
        ),
        Quantity(
            "perplexity",
            "perplexity",
            "perplexity",
            "exp of the mean loss per predicted token (natural logarithm). Not comparable between tokenizers.",
        ),
        Quantity(
            "bits_per_byte",
            "bits per byte",
            "bits/byte",
            "The loss per byte of text, in bits: comparable between tokenizers.",
        ),
        Quantity(
            "kurtosis_max",
            "kurtosis of the residual stream",
            "kurtosis",
            "Kurtosis of neuron RMS (He et al. 2024, Eq. 1), the largest over the residual streams of all blocks.",
            blank="the residual stream was not captured",
        ),
        Quantity(
            "massive_max_abs",
            "largest |x| of the massive activations",
            "largest massive",
            "The largest magnitude among the massive activations of the residual stream.",
            blank="there is no massive activation",
        ),
        Quantity(
            "massive_count",
            "massive activations",
            "massive",
            "Activations of the residual stream over 100 in magnitude and over 1,000 times the median of their tensor.",
            places=0,
            blank="the residual stream was not captured",
        ),
    )
}
"""Every quantity by its column."""


def named(*columns: str) -> tuple[Quantity, ...]:
    """Return some quantities by their columns."""
    return tuple(QUANTITIES[column] for column in columns)
