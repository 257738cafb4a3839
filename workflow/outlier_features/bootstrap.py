"""Bootstrap over sequences: the uncertainty of a statistic of a text sample, by drawing the sequences anew."""

# Shapes: B bootstrap draw, S sequence.

from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 95.0
"""Per cent of the draws inside an interval."""


@dataclass(frozen=True)
class Estimate:
    """A statistic of all sequences, and the 95 % percentile interval of its bootstrap draws."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """Return the estimate as three columns of a table."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def resampling_counts(sequences: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Return how often each sequence is in each draw: counts (B, S), each row sums to S; the same for a seed."""
    picked = np.random.default_rng(seed).integers(sequences, size=(draws, sequences))
    counts = np.zeros((draws, sequences), np.int64)
    np.add.at(counts, (np.arange(draws)[:, None], picked), 1)
    return counts


def estimate(value: float, draws_B: np.ndarray) -> Estimate:
    """Return a statistic with the percentile interval of its draws; draws without a value are left out."""
    found = draws_B[np.isfinite(draws_B)]
    if not np.isfinite(value) or len(found) == 0:
        return Estimate(float(value), np.nan, np.nan)
    low, high = np.percentile(found, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Estimate(float(value), float(low), float(high))
