"""Intervals over sequences: within what a value would lie, had other sequences of the same text been drawn.

An interval is called a 95 % one because it holds the truth in 93 to 97 % of simulated samples, also of skewed ones
(benchmarks/intervals.py prints how often); where none was found that does, there is none.
"""

# Shapes: S sequence.

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEAST_SEQUENCES = 8
"""Fewer tell too little of how sequences spread: that of three skewed ones holds the truth in 84 % of samples."""
SKEWNESS = 1.5
"""What the skewness of a sample is multiplied by. A sample of a skewed population is less skewed than that; with 1 the
interval of 8 to 16 lognormal sequences (sigma 1) holds the truth in 91 to 92 % of samples, with 1.5 in 93 to 94 %, and
where sequences are not skewed it is the same."""

GAPS = (
    "no interval was found that holds the truth for counts of distinct channels, medians, and the shares of pooled "
    "definitions, which are maxima over sequences"
)
"""What has no interval, for those who read a table."""
FEW = f"fewer than {LEAST_SEQUENCES} sequences"
ALIKE = "no spread: every sequence gives the same"


@dataclass(frozen=True)
class Estimate:
    """A value, and its 95 % interval over sequences; NaN at both ends where it has none, and in words why."""

    value: float
    low: float = np.nan
    high: float = np.nan
    gap: str = ""

    def columns(self, name: str) -> dict[str, float]:
        """Return the estimate as three columns of a table."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def total(value_S: np.ndarray) -> Estimate:
    """Return the sum of what each sequence gives, none of it negative; the interval is that of as many sequences."""
    return ratio(value_S, np.full(len(value_S), 1 / len(value_S)))


def ratio(numerator_S: np.ndarray, denominator_S: np.ndarray, most: float = np.inf, least: float = 0.0) -> Estimate:
    """Return the sum of numerators over that of denominators, which is known to lie between `least` and `most`.

    Sequences are drawn as a whole, so the error is that of the mean of what is left of each numerator (linearised, as
    in a sample of clusters). The interval is that of Student's t, corrected for skewness by the monotone cubic
    transformation of Hall (1992, Journal of the Royal Statistical Society B 54:221).
    """
    numerator_S, denominator_S = np.asarray(numerator_S, float), np.asarray(denominator_S, float)
    if not denominator_S.sum() > 0:
        return Estimate(np.nan)
    value = float(numerator_S.sum() / denominator_S.sum())
    if len(numerator_S) < LEAST_SEQUENCES:
        return Estimate(value, gap=FEW)
    deviation_S = (numerator_S - value * denominator_S) / denominator_S.mean()
    if np.abs(deviation_S).max() <= 1e-12 * max(abs(value), np.finfo(float).tiny):
        return Estimate(value, gap=ALIKE)
    low, high = (value + end for end in _ends(deviation_S))
    return Estimate(value, max(low, least), min(high, most))


def note(estimates: Mapping[str, Estimate]) -> str | None:
    """Return which estimates have no interval and why, in a sentence; None where all have one, or no value."""
    reasons: dict[str, list[str]] = {}
    for name, found in estimates.items():
        if found.gap and not np.isnan(found.value):
            reasons.setdefault(found.gap, []).append(name)
    listed = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
    return f"No interval for {listed}." if listed else None


def _ends(deviation_S: np.ndarray) -> tuple[float, float]:
    """Return where the interval of a mean begins and ends, beside the mean, from the deviations of its sample."""
    count = len(deviation_S)
    spread = deviation_S.std()
    skewness = (deviation_S**3).mean() / spread**3 * np.sqrt(count * (count - 1)) / (count - 2)
    bend = SKEWNESS * skewness / np.sqrt(count)
    error, quantile = spread / np.sqrt(count - 1), stdtrit(count - 1, 0.975)
    upper, lower = (_unbent(end, bend) for end in (quantile, -quantile))
    return -error * upper, -error * lower


def _unbent(quantile: float, bend: float) -> float:
    """Return which t, of a sample so skewed, has a quantile: the inverse of t + b t^2 / 3 + b^2 t^3 / 27 + b / 6."""
    if abs(bend) < 1e-6:
        return float(quantile)
    return float(3 / bend * (np.cbrt(1 + bend * (quantile - bend / 6)) - 1))
