"""Phase shift: what may be called a jump of a measure along an axis, and how large one has to be to be seen.

Every x is a logarithm (base 10) of an axis, every y is in points. A step is compared with a constant, a line, smooth
curves and the levels of groups of models that share more than a size; it is a jump where it describes the models best,
where noise around the best of the others seldom looks so much like one, and where no single model makes it.
docs/decisions/0015 has the reasons and what simulations say.
"""

# Shapes: N model, B bootstrap draw of the sequences, G curve of a family, K simulated sweep, P column of a design.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from outlier_features.experiment.correlation import Floats, wider

FEWEST = 7
"""Models below which a step (four parameters and the spread) has no small-sample AIC."""
ALPHA, POWER = 0.05, 0.8
DRAWS, SIMULATIONS = 999, 200
WIDEST = 0.5
"""Decades: what takes longer, from 10 to 90 % of a logistic, is no step."""
SHARP = 0.01
"""Decades: a step as good as vertical."""
LARGEST = 100.0
"""In units of the noise: where the models cannot show a jump so large, they can show none."""
LEAST = 1.0
"""Units of AIC by which a step has to stay ahead where a model is left out."""
FLOOR = 1e-3
"""Points of spread below which residuals count as equal: shares are not known better."""
WIDTH = 2 * np.log(9)
"""A logistic goes from 10 to 90 % of its step over so many of its scales."""

BENDS: dict[str, Sequence[float]] = {
    "exponential": (-6, -4, -3, -2, -1, 1, 2, 3, 4, 6),
    "flat, then steady": tuple(np.linspace(0.1, 0.9, 17)),
    "steady, then flat": tuple(np.linspace(0.1, 0.9, 17)),
}
"""Smooth shapes beside the quadratic: rates over the range of the models, or the share of it at which they turn."""

HINGES = ("flat, then steady", "steady, then flat")

Labels = Sequence[Sequence[str]]
"""Groupings of the models: a label a model in each."""


def bent(shape: str, bend: float, u: Floats) -> Floats:
    """Return a smooth shape at u, the share of the range of the models (on the logarithm of the axis)."""
    if shape == "quadratic":
        return u**2
    if shape == "exponential":
        return np.exp(bend * u)
    return np.maximum(u - bend, 0) if shape == "flat, then steady" else np.minimum(u - bend, 0)


def _is_gentle(shape: str, bend: float) -> bool:
    """Tell whether a shape takes more than the models at one end to be seen."""
    return abs(bend) <= 4 if shape == "exponential" else 0.25 <= bend <= 0.75


@dataclass(frozen=True)
class Curves:
    """Curves that are fitted by least squares: a base that all share, and at most one shape each."""

    name: str
    base_PN: Floats
    """Orthonormal rows."""
    shape_GN: Floats
    """Of unit length and orthogonal to the base; none for a base alone."""
    parameters: int
    """Of each curve, with the spread of the residuals."""

    @classmethod
    def of(cls, name: str, base_PN: Floats, shape_GN: Floats | None = None, free: int = 0) -> "Curves":
        """Return curves over designs of any scale; `free` counts what is chosen with a shape beside its size."""
        _, size_P, base_PN = np.linalg.svd(base_PN, full_matrices=False)
        base_PN = base_PN[size_P > 1e-9 * size_P[0]]
        if shape_GN is None:
            return cls(name, base_PN, np.empty((0, base_PN.shape[1])), len(base_PN) + 1)
        rest_GN = shape_GN - shape_GN @ base_PN.T @ base_PN
        size_G = np.linalg.norm(rest_GN, axis=1, keepdims=True)
        has_shape_G = size_G > 1e-9 * np.linalg.norm(shape_GN, axis=1, keepdims=True)
        unit_GN = np.where(has_shape_G, rest_GN / np.where(has_shape_G, size_G, 1), 0)
        return cls(name, base_PN, unit_GN, len(base_PN) + 2 + free)

    def squares(self, y_KN: Floats) -> Floats:
        """Return the sum of the squared residuals of every curve: (K, G), or (K, 1) of a base alone."""
        rest_K1 = ((y_KN - self._on_base(y_KN)) ** 2).sum(axis=1, keepdims=True)
        if len(self.shape_GN) == 0:
            return rest_K1
        return np.asarray(np.maximum(rest_K1 - (y_KN @ self.shape_GN.T) ** 2, 0.0))

    def fitted(self, y_KN: Floats) -> Floats:
        """Return the values (K, N) of the best curve of each row."""
        on_base_KN = self._on_base(y_KN)
        if len(self.shape_GN) == 0:
            return on_base_KN
        size_KG = y_KN @ self.shape_GN.T
        best_K = np.abs(size_KG).argmax(axis=1)
        return np.asarray(on_base_KN + size_KG[np.arange(len(y_KN)), best_K][:, None] * self.shape_GN[best_K])

    def _on_base(self, y_KN: Floats) -> Floats:
        return y_KN @ self.base_PN.T @ self.base_PN


@dataclass(frozen=True)
class Design:
    """The models at x, what groups them, and the steps that are tried over them."""

    x_N: Floats
    labels: tuple[tuple[str, ...], ...]
    position_G: Floats
    width_G: Floats
    """Of the steps, in decades from 10 to 90 %."""

    @classmethod
    def over(cls, x_N: Floats, labels: Labels = (), positions: int = 24, widths: int = 5) -> "Design":
        """Return the design for models at x. Raises ValueError if they have no room for a step."""
        return cls(x_N, tuple(tuple(each) for each in labels), *_places(x_N, positions, widths))

    @property
    def u_N(self) -> Floats:  # noqa: N802
        """The share of the range of the models."""
        return np.asarray((self.x_N - self.x_N.min()) / max(float(np.ptp(self.x_N)), 1e-12))

    def curves(self) -> list[Curves]:
        """Return what is compared: the step comes last."""
        u_N = self.u_N
        level, line, quadratic = (u_N ** np.arange(degree)[:, None] for degree in (1, 2, 3))
        bent_GN = {shape: np.array([bent(shape, bend, u_N) for bend in bends]) for shape, bends in BENDS.items()}
        hinges_GN = np.vstack([bent_GN[shape] for shape in HINGES])
        return [
            Curves.of("constant", level),
            Curves.of("linear", line),
            Curves.of("smooth", quadratic),
            _level(u_N, np.vstack(list(bent_GN.values()))),
            Curves.of("smooth", line, hinges_GN, free=1),
            *self._groups(line),
            self.steps(),
        ]

    def steps(self) -> Curves:
        """Return the steps alone."""
        shape_GN = rise(self.x_N, self.position_G, self.width_G)
        return Curves.of("step", np.ones((1, len(self.x_N))), shape_GN, free=2)

    def _groups(self, line: Floats) -> list[Curves]:
        """Return a level for each group of models, alone and with a common line."""
        found = []
        for each in self.labels:
            member_PN = np.array([[label == name for label in each] for name in sorted(set(each))], float)
            if 1 < len(member_PN) < len(each):
                found += [Curves.of("groups", member_PN), Curves.of("groups", np.vstack([member_PN, line[1]]))]
        return found


def _level(u_N: Floats, shape_GN: Floats) -> Curves:
    """Return curves of a level and a bent shape."""
    return Curves.of("smooth", np.ones((1, len(u_N))), shape_GN, free=1)


def rise(x_N: Floats, position_G: Floats, width_G: Floats) -> Floats:
    """Return logistic steps from 0 to 1, a row a step."""
    return np.asarray(special.expit((x_N - position_G[:, None]) / (width_G[:, None] / WIDTH)))


def _places(x_N: Floats, positions: int, widths: int) -> tuple[Floats, Floats]:
    """Return positions and widths of steps, the middle of each gap between models first.

    The middle of a step lies between the second and the third model or above, and N-2 and N-1 or below; it is no wider
    than WIDEST and half of what the models span.
    """
    ordered = np.sort(x_N)
    reach = ordered[-1] - ordered[0]
    gaps = [(low + high) / 2 for low, high in pairwise(ordered[1:-1]) if high > low]
    if not gaps:
        raise ValueError("the models have no room for a step with two of them on each side")
    between = np.linspace(ordered[1], ordered[-2], positions + 2)[1:-1]
    width = np.unique(np.append(SHARP, np.linspace(0, min(WIDEST, reach / 2), widths)[1:]))
    position_G, width_G = np.meshgrid(np.append(gaps, between), width, indexing="ij")
    return position_G.ravel(), width_G.ravel()


def aicc(squares: Floats | float, models: int, parameters: int) -> Floats:
    """Return the small-sample AIC (Hurvich and Tsai 1989) of least-squares fits; infinity where there is none.

    `parameters` counts the spread of the residuals too.
    """
    free = models - parameters - 1
    if free <= 0:
        return np.full_like(squares, np.inf, dtype=float)
    return np.asarray(_aic(squares, models, parameters) + 2 * parameters * (parameters + 1) / free)


def _aic(squares: Floats | float, models: int, parameters: int) -> Floats:
    spread = np.maximum(np.asarray(squares) / models, FLOOR**2)
    return np.asarray(models * np.log(spread) + 2 * parameters)


@dataclass(frozen=True)
class Comparison:
    """The curves over models at x, and over all of them but one."""

    design: Design

    @cached_property
    def curves(self) -> list[Curves]:
        """What is compared."""
        return self.design.curves()

    def criteria(self, y_KN: Floats) -> Floats:
        """Return the AICc of the best of each kind of curves: (curves, K)."""
        models = y_KN.shape[1]
        return np.array([aicc(each.squares(y_KN).min(axis=1), models, each.parameters) for each in self.curves])

    def margin(self, y_KN: Floats) -> Floats:
        """Return by how much the AICc of a step is below that of everything else (K)."""
        criteria_CK = self.criteria(y_KN)
        return np.asarray(criteria_CK[:-1].min(axis=0) - criteria_CK[-1])

    def margin_without(self, y_KN: Floats) -> Floats:
        """Return by how much the same step beats a constant, a line and smooth curves where each model is left out.

        (K, N), minus infinity where the others step in the other direction. In units of the plain AIC: what is asked is
        whether one model makes the step, not whether fewer could show it; curves that one model at an end can bend are
        not tried again.
        """
        step = self.curves[-1]
        size_KG = y_KN @ step.shape_GN.T
        best_K = np.abs(size_KG).argmax(axis=1)
        shape_KN = np.sign(size_KG[np.arange(len(y_KN)), best_K])[:, None] * step.shape_GN[best_K]
        models = range(y_KN.shape[1])
        found = [self._margin_without(np.delete(y_KN, i, 1), np.delete(shape_KN, i, 1), i) for i in models]
        return np.stack(found, axis=1)

    def _margin_without(self, y_KM: Floats, shape_KM: Floats, model: int) -> Floats:
        models = y_KM.shape[1]
        shape_KM = shape_KM - shape_KM.mean(axis=1, keepdims=True)
        size_K = (y_KM * shape_KM).sum(axis=1) / np.maximum(np.linalg.norm(shape_KM, axis=1), 1e-12)
        constant_K = ((y_KM - y_KM.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        step_K = _aic(np.maximum(constant_K - size_K**2, 0), models, self.curves[-1].parameters)
        others = [_aic(each.squares(y_KM).min(axis=1), models, each.parameters) for each in self._without[model]]
        return np.where(size_K > 0, np.min(others, axis=0) - step_K, -np.inf)

    @cached_property
    def _without(self) -> list[list[Curves]]:
        """Constant, line and smooth curves over all models but one, for each."""
        u_N = self.design.u_N
        bends = [(shape, bend) for shape, each in BENDS.items() for bend in each if _is_gentle(shape, bend)]
        bent_GN = np.array([bent(shape, bend, u_N) for shape, bend in bends])
        return [
            [*(Curves.of("", rest_M ** np.arange(degree)[:, None]) for degree in (1, 2, 3)), _level(rest_M, rest_GM)]
            for rest_M, rest_GM in ((np.delete(u_N, i), np.delete(bent_GN, i, 1)) for i in range(len(u_N)))
        ]

    def without_step(self, y_KN: Floats, rng: np.random.Generator) -> Floats:
        """Return one simulated sweep for each row: normal noise around its best constant, line or smooth curve."""
        others = [index for index, each in enumerate(self.curves[:-1]) if each.name != "groups"]
        best_K = np.array(others)[self.criteria(y_KN)[others].argmin(axis=0)]
        drawn_KN, models = np.empty_like(y_KN), y_KN.shape[1]
        for index in np.unique(best_K):
            rows, curves = best_K == index, self.curves[index]
            fitted_KN = curves.fitted(y_KN[rows])
            free = models - (curves.parameters - 1)
            spread_K = np.sqrt(((y_KN[rows] - fitted_KN) ** 2).sum(axis=1) / free)
            drawn_KN[rows] = fitted_KN + spread_K[:, None] * rng.standard_normal(fitted_KN.shape)
        return drawn_KN


@dataclass(frozen=True)
class StepTest:
    """What says whether a step may be called a jump."""

    criteria: dict[str, float]
    """AICc of the best constant, line, smooth curve, levels of groups (if there are any) and step."""
    p_value: float
    """How often noise around the best of the others looks as much like a step."""
    odd: int | None
    """The model without which something else describes the others better; None if there is none."""

    @property
    def preferred(self) -> str:
        """What has the least AICc."""
        return min(self.criteria, key=lambda name: self.criteria[name])

    @property
    def is_jump(self) -> bool:
        """Whether the step is a jump, were this the only test of an answer."""
        return self.preferred == "step" and self.p_value < ALPHA and self.odd is None


def step_test(x_N: Floats, y_N: Floats, labels: Labels = ()) -> StepTest:
    """Compare a step with everything else. Raises ValueError if the models have no room for a step."""
    compared = _comparison(tuple(x_N.tolist()), tuple(tuple(each) for each in labels))
    criteria: dict[str, float] = {}
    for curves, value in zip(compared.curves, compared.criteria(y_N[None])[:, 0], strict=True):
        criteria[curves.name] = min(criteria.get(curves.name, np.inf), float(value))
    margin, without_N = compared.margin(y_N[None])[0], compared.margin_without(y_N[None])[0]
    drawn_B = compared.margin(compared.without_step(np.repeat(y_N[None], DRAWS, axis=0), np.random.default_rng(0)))
    odd = int(without_N.argmin())
    # a margin that rounding alone moves is none
    p_value = float((1 + (drawn_B >= margin - 1e-9).sum()) / (1 + DRAWS))
    return StepTest(criteria, p_value, odd if without_N[odd] <= LEAST else None)


@lru_cache(maxsize=256)
def _comparison(x: tuple[float, ...], labels: tuple[tuple[str, ...], ...]) -> Comparison:
    return Comparison(Design.over(np.array(x), labels))


@dataclass(frozen=True)
class Step:
    """The best step: its values at the first and the last model, and where it may lie and how wide it may be.

    Position and width are logarithms and decades; their ranges are no 95 % intervals: they hold the truth more often.
    """

    lower: float
    upper: float
    position: float
    position_low: float
    position_high: float
    width: float
    width_low: float
    width_high: float
    squares: float


def step(x_N: Floats, y_BN: Floats) -> Step:
    """Return the best step of the first row of y; what lies outside of the models is not its size.

    The grid is fine enough to be the answer: 1/200 of the range. Ranges are those of the profile likelihood (F with one
    degree of freedom), or of the draws where those reach further; the position's may go on to the first or last model.
    """
    design = Design.over(x_N, positions=199, widths=9)
    position_G, width_G = design.position_G, design.width_G
    curves = design.steps()
    squares_G = curves.squares(y_BN[:1])[0]
    best, free = int(squares_G.argmin()), len(x_N) - 4
    likely = max(float(squares_G[best]), FLOOR**2 * len(x_N)) * (1 + stats.f.ppf(0.95, 1, free) / free)
    everywhere = np.union1d(position_G, np.linspace(x_N.min(), x_N.max(), 201))
    anywhere_G, any_width_G = map(np.ravel, np.meshgrid(everywhere, np.unique(width_G), indexing="ij"))
    elsewhere = replace(design, position_G=anywhere_G, width_G=any_width_G).steps()
    drawn = curves.squares(y_BN[1:]).argmin(axis=1) if len(y_BN) > 1 else np.empty(0, int)
    low, high = wider(_with_neighbours(anywhere_G, elsewhere.squares(y_BN[:1])[0] <= likely), position_G[drawn])
    thin, wide = wider(_with_neighbours(width_G, squares_G <= likely), width_G[drawn])
    position, width = float(position_G[best]), float(width_G[best])
    values_N = curves.fitted(y_BN[:1])[0]
    lower, upper = float(values_N[x_N.argmin()]), float(values_N[x_N.argmax()])
    low, high = min(low, position), max(high, position)
    return Step(lower, upper, position, low, high, width, thin, wide, float(squares_G[best]))


def _with_neighbours(values_G: Floats, likely_G: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the range of the likely values and of the next ones on the grid, between which the truth may lie."""
    known, index_G = np.unique(values_G, return_inverse=True)
    first, last = index_G[likely_G].min(), index_G[likely_G].max()
    return float(known[max(first - 1, 0)]), float(known[min(last + 1, len(known) - 1)])


@dataclass(frozen=True)
class Smooth:
    """The best smooth curve: level + slope u + size bent(shape, bend, u), u the share of the range of the models."""

    shape: str
    bend: float
    level: float
    slope: float
    size: float
    squares: float
    parameters: int

    def at(self, u: Floats) -> Floats:
        """Return its values."""
        return np.asarray(self.level + self.slope * u + self.size * bent(self.shape, self.bend, u))


def smooth(x_N: Floats, y_N: Floats) -> Smooth:
    """Return the smooth curve of least AICc."""
    u_N = (x_N - x_N.min()) / np.ptp(x_N)
    one_N = np.ones_like(u_N)
    tried = [("quadratic", 0.0, True, 4)]
    tried += [(shape, bend, False, 4) for shape, bends in BENDS.items() for bend in bends]
    tried += [(shape, bend, True, 5) for shape in HINGES for bend in BENDS[shape]]
    found = []
    for shape, bend, has_line, parameters in tried:
        columns = [one_N, *([u_N] if has_line else []), bent(shape, bend, u_N)]
        fit, *_ = np.linalg.lstsq(np.stack(columns, axis=1), y_N, rcond=None)
        slope = float(fit[1]) if has_line else 0.0
        squares = float(((y_N - np.stack(columns, axis=1) @ fit) ** 2).sum())
        found.append(Smooth(shape, bend, float(fit[0]), slope, float(fit[-1]), squares, parameters))
    return min(found, key=lambda each: float(aicc(each.squares, len(x_N), each.parameters)))


def noise_around_best(x_N: Floats, y_N: Floats, labels: Labels = ()) -> tuple[float, float, float]:
    """Return the spread of models around what describes them best, and how small and how large it may be.

    The ends are those of a 95 % interval by chi squared, were that description the right one; as it is chosen, they
    hold the truth less often.
    """
    compared = _comparison(tuple(x_N.tolist()), tuple(tuple(each) for each in labels))
    best = compared.curves[int(compared.criteria(y_N[None])[:, 0].argmin())]
    free = len(x_N) - (best.parameters - 1)
    low, high = stats.chi2.ppf([0.025, 0.975], free)
    squares = max(float(best.squares(y_N[None]).min()), FLOOR**2 * free)
    return float(np.sqrt(squares / free)), float(np.sqrt(squares / high)), float(np.sqrt(squares / low))


PLACES = {
    "detectable_jump": ("middle", SHARP),
    "detectable_wide_jump": ("middle", WIDEST),
    "detectable_early_jump": ("early", SHARP),
    "detectable_early_wide_jump": ("early", WIDEST),
}
"""Jumps whose power is given: between the middle models or the second and the third, vertical or over half a decade."""


def planted(x_N: Floats, place: str, width: float) -> Floats:
    """Return a jump of 1 between the first and the last model, as PLACES has them."""
    ordered = np.sort(x_N)
    after = len(x_N) // 2 if place == "middle" else 2
    position = np.array([(ordered[after - 1] + ordered[after]) / 2])
    jump_N = rise(x_N, position, np.array([width]))[0]
    return np.asarray(jump_N / np.ptp(jump_N))


def detectable(x_N: Floats, labels: Labels, place: str, width: float, tests: int = 1) -> float:
    """Return the smallest jump, in units of the noise, that is found with 80 % power; infinity if none is.

    Found as in an answer with so many tests, of which this one has to meet the strictest level (Holm's first).
    """
    return _detectable(tuple(x_N.tolist()), tuple(tuple(each) for each in labels), place, width, tests)


@lru_cache(maxsize=256)
def _detectable(
    x: tuple[float, ...], labels: tuple[tuple[str, ...], ...], place: str, width: float, tests: int
) -> float:
    compared, jump_N = _comparison(x, labels), planted(np.array(x), place, width)
    noise_KN = np.random.default_rng(1).standard_normal((SIMULATIONS, len(x)))

    def is_enough(size: float) -> bool:
        return power(compared, noise_KN + size * jump_N, ALPHA / tests) >= POWER

    low, high = 0.0, 4.0
    while not is_enough(high):
        low, high = high, 2 * high
        if high > LARGEST:
            return float("inf")
    while high - low > 0.05 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def power(compared: Comparison, y_KN: Floats, level: float) -> float:
    """Return the share of simulated sweeps that show a jump at a level of the test.

    One draw of the bootstrap a sweep, all pooled, stands for the bootstrap of each (Giacomini, Politis and White 2013).
    """
    margin_K = compared.margin(y_KN)
    least = max(
        0.0, float(np.quantile(compared.margin(compared.without_step(y_KN, np.random.default_rng(2))), 1 - level))
    )
    found_KN = y_KN[margin_K > least]
    return float((compared.margin_without(found_KN) > LEAST).all(axis=1).sum() / len(y_KN))
