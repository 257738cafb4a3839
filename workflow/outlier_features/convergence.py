"""Convergence: how many windows it takes until the set of outlier channels is that of all of them."""

# Shapes: B selection of sequences, S sequence, C channel.

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from outlier_features.bootstrap import LEVEL
from outlier_features.outliers import Evidence, Gap, outlier_sets

SUBSETS = 100
"""Selections of each size; all of them where there are no more."""

COLUMNS = {
    "definition": "string",
    "windows": "int32",
    "subsets": "int32",
    "jaccard": "float64",
    "jaccard_low": "float64",
    "jaccard_high": "float64",
}
"""Columns of the table of convergence, one row per definition and number of windows: the Jaccard similarity (shared
channels over channels of either) of the set of outlier channels found with so many windows to that of all of them, mean
and central 95 % over selections; blank where all windows together give no outlier channel."""


def convergence(found: Iterable[Evidence | Gap]) -> pd.DataFrame:
    """Return how the set of outlier channels grows with the number of windows, with COLUMNS."""
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
        low, high = np.percentile(jaccard_B, [50 - LEVEL / 2, 50 + LEVEL / 2])
        yield row | {"jaccard": jaccard_B.mean(), "jaccard_low": low, "jaccard_high": high}
