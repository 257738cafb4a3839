"""Channel blocks: which magnitudes share a block of neighbouring channels, as far as the counts of its largest tell.

Counted are all magnitudes, and the largest of every block; which of the others is in whose block is not kept.
"""

# Shapes: C channel, B block of channels, K and J cell of a block's largest and of its other magnitudes.

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from outlier_features.magnitude_bins import CELLS, EDGES
from outlier_features.metrics import spectra

ROUNDS = 30
"""Of fitting to margins."""
LEAST = 1e-300


@dataclass(frozen=True)
class ChannelBlocks:
    """The blocks of one window."""

    size: int
    """Channels of a block; the last may have fewer."""
    largest_K: np.ndarray
    """How many blocks have their largest magnitude in a cell."""
    others_K: np.ndarray
    """How many of the other magnitudes are in a cell."""
    pairs_KJ: np.ndarray
    """How many of the other magnitudes are in one cell and in a block whose largest is in another.

    Of all tables with the counts as margins the one nearest to channels that are normal, each of its RMS, and know
    nothing of each other (iterative proportional fitting, Deming and Stephan 1940).
    """
    below_CJ: np.ndarray
    """The share of each such channel's magnitudes below the upper edge of each cell over 0."""
    below_BJ: np.ndarray
    """The same of the largest of each block."""

    def largest_share(self, channel: int) -> np.ndarray:
        """Return how likely a magnitude of a channel is the largest of its block, for each step of a spectrum."""
        mates_J = self.below_BJ[channel // self.size] / np.maximum(self.below_CJ[channel], LEAST)
        return np.asarray(np.minimum(mates_J, 1)[spectra.cells() - 1])


def channel_blocks(size: int, magnitudes_K: np.ndarray, largest_K: np.ndarray, rms_C: np.ndarray) -> ChannelBlocks:
    """Return the blocks of a window from both counts and the RMS of its channels."""
    starts = np.arange(0, len(rms_C), size)
    below_CJ = 2 * ndtr(np.append(EDGES, np.inf) / np.maximum(rms_C, LEAST)[:, None]) - 1
    below_BJ = np.exp(np.add.reduceat(np.log(np.maximum(below_CJ, LEAST)), starts))
    others_BJ = np.add.reduceat(np.diff(below_CJ, axis=1, prepend=0), starts)
    others_K = np.maximum(magnitudes_K - largest_K, 0)
    margin_K = largest_K * (len(rms_C) / len(starts) - 1)
    pairs_KJ = _fitted(_independent(np.diff(below_BJ, axis=1, prepend=0), others_BJ), margin_K, others_K)
    return ChannelBlocks(size, largest_K, others_K, pairs_KJ, below_CJ, below_BJ)


def _independent(largest_BJ: np.ndarray, others_BJ: np.ndarray) -> np.ndarray:
    """Return the share of each pair of cells (K, J), given that no magnitude of a block is above its largest."""
    pairs_KJ = np.zeros((CELLS, CELLS))
    pairs_KJ[1:, 1:] = (largest_BJ / np.maximum(others_BJ.cumsum(1), 1e-30)).T @ others_BJ
    pairs_KJ[:, 0] = 1e-3 * pairs_KJ.sum(1)  # zeros, which no normal channel has
    return np.tril(pairs_KJ + 1e-9)


def _fitted(pairs_KJ: np.ndarray, rows_K: np.ndarray, columns_J: np.ndarray) -> np.ndarray:
    """Return pairs times a factor for each row and each column, so that their sums are the margins."""
    by_row_K, by_column_J = np.ones(CELLS), np.ones(CELLS)
    for _ in range(ROUNDS):
        by_row_K = rows_K / np.maximum(pairs_KJ @ by_column_J, LEAST)
        by_column_J = columns_J / np.maximum(by_row_K @ pairs_KJ, LEAST)
    return np.asarray(by_row_K[:, None] * pairs_KJ * by_column_J)
