"""Entropy: how evenly a whole is shared out."""

import numpy as np


def entropy(part_N: np.ndarray) -> float:
    """Return the entropy in bits of how a sum is shared among its parts: 0 to log2(N). NaN where no part is above 0."""
    share_N = part_N[part_N > 0] / part_N.sum() if part_N.any() else part_N[:0]
    return float(-(share_N * np.log2(share_N)).sum()) if len(share_N) else np.nan
