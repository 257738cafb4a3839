"""Bootstrap over sequences: how a statistic of a text sample varies, by drawing the sequences anew."""

# Shapes: B bootstrap draw, S sequence.

import numpy as np

DRAWS = 1000


def resampling_counts(sequences: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Return how often each sequence is in each draw: counts (B, S), each row sums to S; the same for a seed."""
    picked = np.random.default_rng(seed).integers(sequences, size=(draws, sequences))
    counts = np.zeros((draws, sequences), np.int64)
    np.add.at(counts, (np.arange(draws)[:, None], picked), 1)
    return counts
