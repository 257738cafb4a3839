"""What int8 costs a matrix input, estimated from the magnitudes that a capture keeps; nothing is quantised here.

Symmetric int8 rounds to steps of a / 127, a the largest |x| that shares the scale. Rounding errors of a fine step are
uniform, with a mean square of step^2 / 12 (Bennett 1948); no value errs by more than itself, so the error of a scale is
never more than its signal. Where most values lie below half a step that is rough: the estimate ranks tensors.
"""

# Shapes: S sequence, T position, P scale (a window, or a token of one).

import numpy as np

from outlier_features.statistics.shards import SiteTable

LEVELS = 127
"""Steps of symmetric int8 on either side of zero."""


def of_site(site: SiteTable) -> dict[str, float]:
    """Return the signal-to-quantisation-noise ratios of one tensor in decibels, over all windows together.

    `int8_tensor_db` is by one scale a window, `int8_token_db` by one scale a token.
    """
    largest, rms = site.lists("position_max_abs"), site.lists("position_rms")
    tokens_S = np.array([len(window) for window in largest])
    largest_S = np.array([window.max() for window in largest])
    return {
        "int8_tensor_db": sqnr_db(largest_S, site.values("rms"), tokens_S),
        "int8_token_db": sqnr_db(np.concatenate(largest), np.concatenate(rms), np.ones(tokens_S.sum())),
    }


def sqnr_db(largest_P: np.ndarray, rms_P: np.ndarray, weight_P: np.ndarray) -> float:
    """Return the estimated ratio in decibels, infinite where nothing is lost (an all-zero tensor).

    Each scale has its largest |x|, the RMS of what shares it, and its number of tokens as weight.
    """
    signal_P = rms_P.astype(np.float64) ** 2
    error_P = np.minimum((largest_P.astype(np.float64) / LEVELS) ** 2 / 12, signal_P)
    error = float(weight_P @ error_P)
    return 10 * float(np.log10(weight_P @ signal_P / error)) if error else float("inf")
