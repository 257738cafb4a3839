"""Trends: whether a measure of models moves with an axis, and whether it jumps: a phase shift.

Every x here is a logarithm (base 10) of an axis; every y is in points. What is asked of N models: their rank
correlation, which of a constant, a line and a logistic describes them best, where a logistic has its step, and how
large a jump would have had to be to be found.
"""

# Shapes: N model, B bootstrap draw of the sequences, G step (position and width), K simulated sweep.

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

FEWEST = 4
"""Models below which nothing is said."""
FEWEST_FOR_A_SHIFT = 7
"""Models below which a logistic (four parameters and the spread) has no small-sample AIC."""
ALPHA, POWER = 0.05, 0.8
SIMULATIONS, PERMUTATIONS = 1000, 9999
LARGEST_JUMP = 1e4
"""In units of the noise: where the models cannot show one so large, they can show none."""
FLOOR = 1e-3
"""Points of spread below which residuals count as equal: shares are not known better."""
WIDTH = 2 * np.log(9)
"""A logistic goes from 10 to 90 % of its step over so many of its scales."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation, its 95 % interval, and the p-value of a permutation test (two-sided)."""

    value: float
    low: float
    high: float
    p_value: float


def correlation(x_BN: Floats, y_BN: Floats) -> Correlation:
    """Return the rank correlation of the first rows; the rows after it are draws of the sequences.

    The interval is Bonett and Wright's (2000) on Fisher's scale, for models as a sample, with the variance over the
    draws added; a perfect order counts as half a swap short of it, or it would have no interval. The test permutes
    the models, all permutations where there are no more than PERMUTATIONS.
    """
    models = x_BN.shape[1]
    if np.ptp(x_BN[0]) == 0 or np.ptp(y_BN[0]) == 0:
        return Correlation(np.nan, np.nan, np.nan, np.nan)
    value_B = _rank_correlation(x_BN, y_BN)
    value = float(value_B[0])
    limit = 1 - 6 / (models**3 - models)
    fisher_B = np.arctanh(np.clip(value_B, -limit, limit))
    drawn = fisher_B[1:][np.isfinite(fisher_B[1:])]
    variance = (1 + value**2 / 2) / (models - 3) + (drawn.var() if len(drawn) else 0.0)
    reach = stats.norm.ppf(0.975) * np.sqrt(variance)
    tested = stats.permutation_test(
        (y_BN[0],),
        lambda y, axis: _rank_correlation(x_BN[0], np.moveaxis(y, axis, -1)),
        permutation_type="pairings",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    low, high = np.tanh([fisher_B[0] - reach, fisher_B[0] + reach])
    return Correlation(value, float(low), float(high), float(tested.pvalue))


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
    """Return the least-squares line of the first row of y; the interval is the wider of Student's and the draws'."""
    centred_N = x_N - x_N.mean()
    slope_B = y_BN @ centred_N / (centred_N @ centred_N)
    intercept = float(y_BN[0].mean() - slope_B[0] * x_N.mean())
    squares = float(((y_BN[0] - intercept - slope_B[0] * x_N) ** 2).sum())
    free = len(x_N) - 2
    reach = stats.t.ppf(0.975, free) * np.sqrt(squares / free / (centred_N @ centred_N))
    low, high = _wider((slope_B[0] - reach, slope_B[0] + reach), slope_B[1:])
    return Line(intercept, float(slope_B[0]), low, high, squares)


@dataclass(frozen=True)
class Steps:
    """The logistic steps that are tried: at least two models on each side, no wider (10 to 90 %) than the models."""

    position_G: Floats
    width_G: Floats
    """From 10 to 90 % of the step, in decades."""
    shape_GN: Floats
    """The steps from 0 to 1, centred over the models and of unit length."""

    @classmethod
    def over(cls, x_N: Floats, positions: int, widths: int) -> "Steps":
        """Return a grid of steps for models at x. Raises ValueError if they have no room for a step."""
        ordered = np.sort(x_N)
        reach = ordered[-1] - ordered[0]
        if ordered[1] >= ordered[-2] or reach == 0:
            raise ValueError("the models have no room for a step with two of them on each side")
        position, width = np.meshgrid(
            np.linspace(ordered[1], ordered[-2], positions), np.geomspace(0.002, 1.0, widths) * reach, indexing="ij"
        )
        position_G, width_G = position.ravel(), width.ravel()
        shape_GN = special.expit((x_N - position_G[:, None]) / (width_G[:, None] / WIDTH))
        shape_GN = shape_GN - shape_GN.mean(axis=1, keepdims=True)
        return cls(position_G, width_G, shape_GN / np.linalg.norm(shape_GN, axis=1, keepdims=True))

    def squares(self, y_KN: Floats) -> Floats:
        """Return the sum of the squared residuals of every step, with its best plateaus: (K, G)."""
        centred_KN = y_KN - y_KN.mean(axis=1, keepdims=True)
        explained_KG = (centred_KN @ self.shape_GN.T) ** 2
        return np.maximum((centred_KN**2).sum(axis=1, keepdims=True) - explained_KG, 0.0)


@dataclass(frozen=True)
class Shift:
    """The best logistic: its plateaus, and position and width (10 to 90 %, decades), each with a 95 % interval."""

    lower: float
    upper: float
    position: float
    position_low: float
    position_high: float
    width: float
    width_low: float
    width_high: float
    squares: float


def shift(x_N: Floats, y_BN: Floats) -> Shift:
    """Return the best logistic of the first row of y, from left (`lower`) to right (`upper`).

    The grid is fine enough to be the answer: 1/200 of the range. Intervals are those of the profile likelihood (F
    with one degree of freedom), or of the draws where those reach further.
    """
    steps = Steps.over(x_N, positions=201, widths=32)
    squares_G = steps.squares(y_BN[:1])[0]
    best = int(squares_G.argmin())
    free = len(x_N) - 4
    least = max(float(squares_G[best]), FLOOR**2 * len(x_N))
    likely_G = squares_G <= least * (1 + stats.f.ppf(0.95, 1, free) / free)
    drawn = steps.squares(y_BN[1:]).argmin(axis=1) if len(y_BN) > 1 else np.empty(0, int)
    low, high = _wider(_with_neighbours(steps.position_G, likely_G), steps.position_G[drawn])
    thin, wide = _wider(_with_neighbours(steps.width_G, likely_G), steps.width_G[drawn])
    rise_N = special.expit((x_N - steps.position_G[best]) / (steps.width_G[best] / WIDTH))
    centred_N = rise_N - rise_N.mean()
    size = float(centred_N @ y_BN[0] / (centred_N @ centred_N))
    lower = float(y_BN[0].mean() - size * rise_N.mean())
    position, width = float(steps.position_G[best]), float(steps.width_G[best])
    return Shift(lower, lower + size, position, low, high, width, thin, wide, float(squares_G[best]))


def _with_neighbours(values_G: Floats, likely_G: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the range of the likely values and of the next ones on the grid, between which the truth may lie."""
    known, index_G = np.unique(values_G, return_inverse=True)
    first, last = index_G[likely_G].min(), index_G[likely_G].max()
    return float(known[max(first - 1, 0)]), float(known[min(last + 1, len(known) - 1)])


def aicc(squares: Floats | float, models: int, parameters: int) -> Floats:
    """Return the small-sample AIC (Hurvich and Tsai 1989) of least-squares fits; NaN where there is none.

    `parameters` counts the spread of the residuals too.
    """
    free = models - parameters - 1
    if free <= 0:
        return np.full_like(squares, np.nan, dtype=float)
    spread = np.maximum(np.asarray(squares) / models, FLOOR**2)
    return np.asarray(models * np.log(spread) + 2 * parameters + 2 * parameters * (parameters + 1) / free)


def shift_p_value(x_N: Floats, y_N: Floats) -> float:
    """Return how often noise alone would look as much like a step as the models do: a parametric bootstrap.

    The statistic is N ln(squares of the line / squares of the best step), which no level and no spread moves. Noise
    around a constant is the null: noise around a slope passes for a step less often.
    """
    observed = _Fits.of(_coarse(tuple(x_N.tolist())), x_N, y_N[None]).step_likeness()[0]
    return float((1 + (_null(tuple(x_N.tolist())) >= observed).sum()) / (1 + SIMULATIONS))


def detectable_jump(x_N: Floats, spread: float) -> float:
    """Return the smallest jump, in points, that these models would have shown with 80 % power; inf if none would.

    A jump is a sharp step in the middle of the models, beneath noise of `spread` points; to be found, the logistic has
    to have the smallest AICc and to pass the test of `shift_p_value` at 5 %.
    """
    return _jump_in_spreads(tuple(x_N.tolist())) * max(spread, FLOOR)


@cache
def _jump_in_spreads(x: tuple[float, ...]) -> float:
    """Return the smallest jump in units of the noise, by bisection."""
    x_N, steps = np.array(x), _coarse(x)
    critical = np.quantile(_null(x), 1 - ALPHA)
    noise_KN = np.random.default_rng(1).standard_normal((SIMULATIONS, len(x)))
    is_above_N = x_N > np.median(x_N)

    def power(jump: float) -> float:
        fits = _Fits.of(steps, x_N, noise_KN + jump * is_above_N)
        return float((fits.prefer_a_step() & (fits.step_likeness() > critical)).mean())

    low, high = 0.0, 1.0
    while power(high) < POWER:
        low, high = high, 2 * high
        if high > LARGEST_JUMP:
            return float("inf")
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


@cache
def _null(x: tuple[float, ...]) -> Floats:
    """Return the statistic of the test where models at x are nothing but noise (K)."""
    noise_KN = np.random.default_rng(0).standard_normal((SIMULATIONS, len(x)))
    return _Fits.of(_coarse(x), np.array(x), noise_KN).step_likeness()


@cache
def _coarse(x: tuple[float, ...]) -> Steps:
    """Return the steps that tests try: fewer, since every simulated sweep is fitted with all of them."""
    return Steps.over(np.array(x), positions=41, widths=10)


@dataclass(frozen=True)
class _Fits:
    """Sums of the squared residuals of a constant, a line and the best step, of each row (K)."""

    models: int
    constant_K: Floats
    line_K: Floats
    step_K: Floats

    @classmethod
    def of(cls, steps: Steps, x_N: Floats, y_KN: Floats) -> "_Fits":
        centred_N, centred_KN = x_N - x_N.mean(), y_KN - y_KN.mean(axis=1, keepdims=True)
        constant_K = (centred_KN**2).sum(axis=1)
        line_K = constant_K - (centred_KN @ centred_N) ** 2 / (centred_N @ centred_N)
        return cls(len(x_N), constant_K, line_K, steps.squares(y_KN).min(axis=1))

    def step_likeness(self) -> Floats:
        """Return N ln(squares of the line / squares of the step)."""
        floor = FLOOR**2 * self.models
        return np.asarray(self.models * np.log(np.maximum(self.line_K, floor) / np.maximum(self.step_K, floor)))

    def prefer_a_step(self) -> NDArray[np.bool_]:
        """Tell where a logistic has a smaller AICc than a line and a constant."""
        simpler_K = np.minimum(aicc(self.constant_K, self.models, 2), aicc(self.line_K, self.models, 3))
        return np.asarray(aicc(self.step_K, self.models, 5) < simpler_K)


@dataclass(frozen=True)
class Difference:
    """How much more one kind of models has than the other at the same x, with a 95 % interval and a p-value."""

    value: float
    low: float
    high: float
    p_value: float


def difference(x_N: Floats, y_BN: Floats, is_second_N: NDArray[np.bool_]) -> Difference:
    """Return by how much the second kind lies above the first: analysis of covariance with one slope for both.

    The interval is the wider of Student's and the draws'; the test permutes the residuals of a common line (Freedman
    and Lane 1983).
    """
    design_N3 = np.stack([np.ones_like(x_N), x_N, is_second_N.astype(float)], axis=1)
    inverse_3N = np.linalg.pinv(design_N3)
    weight_N = inverse_3N[2]  # orthogonal to the common line, so it may be applied to residuals as well
    value_B = y_BN @ weight_N
    free = len(x_N) - 3
    residual_N = y_BN[0] - design_N3 @ (inverse_3N @ y_BN[0])
    reach = stats.t.ppf(0.975, free) * np.sqrt((residual_N @ residual_N) / free * (weight_N @ weight_N))
    low, high = _wider((value_B[0] - reach, value_B[0] + reach), value_B[1:])
    common_N = y_BN[0] - design_N3[:, :2] @ (np.linalg.pinv(design_N3[:, :2]) @ y_BN[0])
    tested = stats.permutation_test(
        (common_N,),
        lambda y, axis: np.moveaxis(y, axis, -1) @ weight_N,
        permutation_type="pairings",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return Difference(float(value_B[0]), low, high, float(tested.pvalue))


def _wider(interval: tuple[float, float], drawn_B: Floats) -> tuple[float, float]:
    """Return an interval, reaching as far as the central 95 % of the draws do."""
    low, high = map(float, interval)
    drawn_B = drawn_B[np.isfinite(drawn_B)]
    if len(drawn_B) == 0:
        return low, high
    first, last = np.percentile(drawn_B, [2.5, 97.5])
    return min(low, float(first)), max(high, float(last))
