"""Correlation: whether a measure of models moves with an axis, and whether two kinds of models differ in it.

Every x here is a logarithm (base 10) of an axis; every y is in points. `phase_shift` has the jumps.
"""

# Shapes: N model, B bootstrap draw of the sequences, P column of a design.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

FEWEST = 4
"""Models below which nothing is said."""
FEWEST_FOR_AN_INTERVAL = 8
"""Models below which the interval of a rank correlation is none of 95 %: with five it holds the truth in 99 %."""
PERMUTATIONS = 9999


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation, its 95 % interval, and the p-value of a permutation test (two-sided)."""

    value: float
    low: float
    high: float
    """NaN below FEWEST_FOR_AN_INTERVAL models."""
    p_value: float
    within: float
    """The same with each kind's mean rank taken away, and with permutations within kinds; NaN where no kind varies."""
    p_within: float


NO_CORRELATION = Correlation(*[np.nan] * 6)


def correlation(x_BN: Floats, y_BN: Floats, kinds: Sequence[str] | None = None) -> Correlation:
    """Return the rank correlation of the first rows; the rows after it are draws of the sequences.

    The tests permute the models, all permutations where there are no more than PERMUTATIONS. Without `kinds` all are of
    one.
    """
    models = x_BN.shape[1]
    if np.ptp(x_BN[0]) == 0 or np.ptp(y_BN[0]) == 0:
        return NO_CORRELATION
    x_N, y_N = _ranks(x_BN[0]), _ranks(y_BN[0])
    kind_N = np.array(kinds if kinds is not None else [""] * models)
    p_value = _permuted(x_N, y_N, [np.arange(models)])
    groups = [np.flatnonzero(kind_N == kind) for kind in np.unique(kind_N)]
    within_x_N, within_y_N = (_centred_within(ranks_N, groups) for ranks_N in (x_N, y_N))
    within = _cosine(within_x_N, within_y_N)
    p_within = p_value if len(groups) == 1 else _permuted(within_x_N, within_y_N, groups)
    low, high = interval(x_BN, y_BN) if models >= FEWEST_FOR_AN_INTERVAL else (np.nan, np.nan)
    return Correlation(float(_rank_correlation(x_BN[0], y_BN[0])), low, high, p_value, within, p_within)


def interval(x_BN: Floats, y_BN: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the rank correlation of the first rows.

    It is Bonett and Wright's (2000) on Fisher's scale, for models as a sample, or as wide as the draws are where those
    vary more; a perfect order counts as half a swap short of it, or it would have no interval.
    """
    value_B, models = _rank_correlation(x_BN, y_BN), x_BN.shape[1]
    limit = 1 - 6 / (models**3 - models)
    fisher_B = np.arctanh(np.clip(value_B, -limit, limit))
    drawn = fisher_B[1:][np.isfinite(fisher_B[1:])]
    variance = max((1 + value_B[0] ** 2 / 2) / (models - 3), drawn.var() if len(drawn) else 0.0)
    reach = stats.norm.ppf(0.975) * np.sqrt(variance)
    low, high = np.tanh([fisher_B[0] - reach, fisher_B[0] + reach])
    return float(low), float(high)


def _permuted(x_N: Floats, y_N: Floats, groups: Sequence[NDArray[np.int64]]) -> float:
    """Return the two-sided p-value of the product of x and y where y is permuted within groups."""
    if np.isnan(_cosine(x_N, y_N)):
        return float("nan")
    if len(groups) == 1:
        tested = stats.permutation_test(
            (y_N,),
            lambda y, axis: np.moveaxis(y, axis, -1) @ (x_N - x_N.mean()),
            permutation_type="pairings",
            n_resamples=PERMUTATIONS,
            vectorized=True,
            rng=np.random.default_rng(0),
        )
        return float(tested.pvalue)
    rng = np.random.default_rng(0)
    drawn_KN = np.repeat(y_N[None], PERMUTATIONS, axis=0)
    for own in groups:
        drawn_KN[:, own] = rng.permuted(drawn_KN[:, own], axis=1)
    is_as_strong_K = np.abs(drawn_KN @ x_N) >= abs(y_N @ x_N) - 1e-9
    return float((1 + is_as_strong_K.sum()) / (1 + PERMUTATIONS))


def _centred_within(values_N: Floats, groups: Sequence[NDArray[np.int64]]) -> Floats:
    centred_N = values_N.copy()
    for own in groups:
        centred_N[own] -= centred_N[own].mean()
    return centred_N


def _cosine(x_N: Floats, y_N: Floats) -> float:
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    size = np.sqrt((x_N @ x_N) * (y_N @ y_N))
    return float(x_N @ y_N / size) if size > 0 else float("nan")


def _ranks(values_N: Floats) -> Floats:
    return np.asarray(stats.rankdata(values_N), float)


def _rank_correlation(x: Floats, y: Floats) -> Floats:
    """Return Spearman's correlation along the last axis."""
    x, y = (stats.rankdata(values, axis=-1) for values in (x, y))
    x, y = (values - values.mean(axis=-1, keepdims=True) for values in (x, y))
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1)))


@dataclass(frozen=True)
class Line:
    """A straight line, its slope with a 95 % interval."""

    intercept: float
    slope: float
    slope_low: float
    slope_high: float
    squares: float
    """Sum of the squared residuals."""


def line(x_N: Floats, y_BN: Floats) -> Line:
    """Return the least-squares line of the first row of y; the interval is the wider of that of models and the draws'.

    The models may differ in spread: the squared residuals over 1 - leverage (HC2; MacKinnon and White 1985), with Bell
    and McCaffrey's (2002) degrees of freedom.
    """
    centred_N = x_N - x_N.mean()
    weight_N = centred_N / (centred_N @ centred_N)
    slope_B = y_BN @ weight_N
    intercept = float(y_BN[0].mean() - slope_B[0] * x_N.mean())
    squares = float(((y_BN[0] - intercept - slope_B[0] * x_N) ** 2).sum())
    rest_NN = np.eye(len(x_N)) - 1 / len(x_N) - np.outer(centred_N, weight_N)
    error, free = _error(rest_NN, weight_N**2 / _left(rest_NN), y_BN[0], np.ones_like(x_N))
    reach = stats.t.ppf(0.975, free) * error
    low, high = wider((slope_B[0] - reach, slope_B[0] + reach), slope_B[1:])
    return Line(intercept, float(slope_B[0]), low, high, squares)


@dataclass(frozen=True)
class Difference:
    """How much more one kind of models has than the other at the same x, with a 95 % interval and a p-value."""

    value: float
    low: float
    high: float
    p_value: float


def difference(x_N: Floats, y_BN: Floats, is_second_N: NDArray[np.bool_]) -> Difference:
    """Return by how much the second kind lies above the first: analysis of covariance with one slope for both.

    Each kind has a spread of its own, from which degrees of freedom follow (Welch 1947); interval and test are
    Student's with those. The interval is as wide as the draws where those reach further.
    """
    design_NP = np.stack([np.ones_like(x_N), x_N, is_second_N.astype(float)], axis=1)
    inverse_PN = np.linalg.pinv(design_NP)
    weight_N, rest_NN = inverse_PN[2], np.eye(len(x_N)) - design_NP @ inverse_PN
    unbiased_N, left_N = (rest_NN @ y_BN[0]) ** 2 / _left(rest_NN), _left(rest_NN)
    spread_N, share_N = np.empty_like(x_N), np.empty_like(x_N)
    for own in (~is_second_N, is_second_N):
        spread_N[own] = unbiased_N[own].mean()
        share_N[own] = (weight_N[own] ** 2).mean() / left_N[own]
    error, free = _error(rest_NN, share_N, y_BN[0], spread_N)
    value_B = y_BN @ weight_N
    reach = stats.t.ppf(0.975, free) * error
    low, high = wider((value_B[0] - reach, value_B[0] + reach), value_B[1:])
    p_value = 2 * stats.t.sf(abs(value_B[0]) / error, free) if error > 0 else np.nan
    return Difference(float(value_B[0]), low, high, float(p_value))


def _left(rest_NN: Floats) -> Floats:
    """Return 1 - leverage: what a fit leaves of each model's own deviation."""
    return np.maximum(np.diag(rest_NN), 1e-12)


def _error(rest_NN: Floats, share_N: Floats, y_N: Floats, spread_N: Floats) -> tuple[float, float]:
    """Return the root of a weighted sum of the squared residuals, and Satterthwaite's degrees of freedom.

    `rest_NN` takes a fit away from y; the sum has the mean and the variance that follow from the squared spreads.
    """
    error = float(np.sqrt(share_N @ (rest_NN @ y_N) ** 2))
    form_NN = (rest_NN * share_N @ rest_NN) * spread_N
    size = float(np.trace(form_NN @ form_NN))
    return error, float(np.trace(form_NN) ** 2 / size) if size > 0 else 1.0


def wider(interval: tuple[float, float], drawn_B: Floats) -> tuple[float, float]:
    """Return an interval, reaching as far as the central 95 % of the draws do."""
    low, high = map(float, interval)
    drawn_B = drawn_B[np.isfinite(drawn_B)]
    if len(drawn_B) == 0:
        return low, high
    first, last = np.percentile(drawn_B, [2.5, 97.5])
    return min(low, float(first)), max(high, float(last))
