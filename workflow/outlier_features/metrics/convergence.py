"""Convergence: how near the set of outlier channels of some windows is to that of all, and to that of as many others.

The first reaches 1 with all windows, whatever they are, so it says how much the last windows changed and not that more
would change nothing. The second has no such end: it says how well so many windows tell the set.
"""

# Shapes: B selection of sequences, S sequence, C channel.

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from outlier_features.metrics.criteria import Gap
from outlier_features.metrics.evidence import Evidence
from outlier_features.metrics.shares import outlier_sets

SUBSETS = 100
"""Selections of each size; all of them where there are no more."""

COLUMNS = {
    "definition": "string",
    "windows": "int32",
    "subsets": "int32",
    "jaccard": "float64",
    "jaccard_low": "float64",
    "jaccard_high": "float64",
    "jaccard_apart": "float64",
}
"""Columns of the table, one row per definition and number of windows: the Jaccard similarity (shared channels over
channels of either) of the set of outlier channels found with so many windows to that of all of them, mean and central
95 % over selections; blank where all windows together give no outlier channel. `jaccard_apart` is that of the sets of
two selections of so many windows that share none, the mean over pairs where either has a channel; blank beyond half of
the windows."""


def convergence(found: Iterable[Evidence | Gap]) -> pd.DataFrame:
    """Return how the set of outlier channels depends on the number of windows, with COLUMNS."""
    rows = [row for each in found if isinstance(each, Evidence) for row in _rows(each)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def selections(sequences: int, size: int, most: int = SUBSETS, seed: int = 0) -> np.ndarray:
    """Return sets of `size` different sequences, (B, S) of 0 and 1: all there are, or `most` at random."""
    if math.comb(sequences, size) <= most:
        chosen = np.array(list(itertools.combinations(range(sequences), size)))
    else:
        shuffled = np.random.default_rng(seed).random((most, sequences)).argsort(axis=1)
        chosen = shuffled[:, :size]
    counts_BS = np.zeros((len(chosen), sequences), np.int64)
    np.put_along_axis(counts_BS, chosen, 1, axis=1)
    return counts_BS


def _rows(found: Evidence) -> Iterable[dict[str, object]]:
    sequences = len(found.everything)
    full_C = outlier_sets(found, np.ones((1, sequences), np.int64))[0]
    for windows in range(1, sequences + 1):
        counts_BS = selections(sequences, windows)
        sets_BC = outlier_sets(found, counts_BS)
        row = {"definition": found.criterion.name, "windows": windows, "subsets": len(counts_BS)}
        if not full_C.any():
            yield row
            continue
        jaccard_B = (sets_BC & full_C).sum(1) / (sets_BC | full_C).sum(1)
        low, high = np.percentile(jaccard_B, [2.5, 97.5])
        apart = _apart(found, windows) if 2 * windows <= sequences else np.nan
        yield row | {"jaccard": jaccard_B.mean(), "jaccard_low": low, "jaccard_high": high, "jaccard_apart": apart}


def _apart(found: Evidence, windows: int) -> float:
    """Return the mean similarity of the sets of two selections of so many windows that share none."""
    order_BS = np.random.default_rng(0).random((SUBSETS, len(found.everything))).argsort(axis=1)
    ones_BS = np.zeros((2, *order_BS.shape), np.int64)
    for counts_BS, members in zip(ones_BS, (order_BS[:, :windows], order_BS[:, windows : 2 * windows]), strict=True):
        np.put_along_axis(counts_BS, members, 1, axis=1)
    first_BC, second_BC = (outlier_sets(found, counts_BS) for counts_BS in ones_BS)
    either_B = (first_BC | second_BC).sum(1)
    has_any_B = either_B > 0
    return float(np.mean((first_BC & second_BC).sum(1)[has_any_B] / either_B[has_any_B])) if has_any_B.any() else np.nan
