"""Phase shift: steps are called jumps and nothing else is, and the jump that would have been found is found."""

import math

import numpy as np
import pytest
from outlier_features.experiment import phase_shift
from outlier_features.experiment.phase_shift import SHARP, WIDEST

ACTIVE = np.log10([0.6, 1.3, 1.7, 3.0, 3.3, 3.6, 4.0, 5.1, 8.0, 12.0, 12.9, 14.0])
"""Active parameters of the sweep of 2025, in billions."""
TWENTY = np.linspace(0, 2.3, 20)
SHARE = TWENTY / 2.3


def noise(seed: int, models: int = 20, rows: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, models))


def jumps(x: np.ndarray, rows: np.ndarray, labels: list[list[str]] | None = None) -> float:
    """Return how often rows of values are said to jump."""
    return float(np.mean([phase_shift.step_test(x, row, labels or []).is_jump for row in rows]))


def logistic(x: np.ndarray, position: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(x - position) * 2 * math.log(9) / width))


@pytest.mark.parametrize(
    "trend",
    {
        "constant": 0 * SHARE,
        "slope": 47 * SHARE,
        "saturating": 47 * (1 - np.exp(-3 * SHARE)),
        "fast saturating": 47 * (1 - np.exp(-5 * SHARE)),
        "exponential": 47 * np.expm1(4 * SHARE) / np.expm1(4),
        "quadratic": 47 * SHARE**2,
        "there and back": 100 * (SHARE - 0.5) ** 2,
        "late hinge": 47 * np.maximum(SHARE - 0.7, 0) / 0.3,
        "early hinge": 47 * np.minimum(SHARE, 0.4) / 0.4,
        "wide logistic": 47 * logistic(TWENTY, 1.0, 1.9),
    }.items(),
    ids=lambda each: each[0],
)
@pytest.mark.parametrize("spread", [1.5, 5.0])
def test_noise_around_what_is_no_step_is_no_jump(trend: tuple[str, np.ndarray], spread: float) -> None:
    assert jumps(TWENTY, 25 + trend[1] + spread * noise(1, rows=40)) <= 0.05


def test_a_saturating_rise_is_smooth_and_its_curve_is_the_one_that_was_planted() -> None:
    y = 25 + 47 * (1 - np.exp(-4 * SHARE))
    assert phase_shift.step_test(TWENTY, y + 0.5 * noise(2)[0]).preferred == "smooth"
    found = phase_shift.smooth(TWENTY, y)
    assert (found.shape, found.bend) == ("exponential", -4)
    assert found.at(np.array([0.0, 0.5, 1.0])) == pytest.approx(25 + 47 * (1 - np.exp(-4 * np.array([0, 0.5, 1]))))


@pytest.mark.parametrize("place", [0, 1, 9, 18, 19])
def test_one_odd_model_among_flat_ones_is_no_jump(place: int) -> None:
    rows = 30 + 3 * noise(3, rows=40)
    rows[:, place] += 50
    assert jumps(TWENTY, rows) <= 0.05


def test_the_model_that_makes_a_step_alone_is_named() -> None:
    y = 30 + noise(4, models=12)[0]
    y[10:] += 1.5, 40
    assert phase_shift.step_test(ACTIVE, y).odd == 11


@pytest.mark.parametrize("growth", [5.0, 10.0])
def test_spread_that_grows_with_size_is_no_jump(growth: float) -> None:
    assert jumps(TWENTY, 40 + 2 * growth**SHARE * noise(5, rows=60)) <= 0.05


@pytest.mark.parametrize("count", [3, 5])
def test_families_sorted_by_size_are_no_jump_where_it_is_known_that_they_are_families(count: int) -> None:
    family = np.arange(20) * count // 20
    rows = 40 + 15 * noise(6, count, rows=60)[:, family] + 4 * noise(7, rows=60)
    assert jumps(TWENTY, rows, [[str(each) for each in family]]) <= 0.05


def test_a_step_between_two_families_is_what_they_differ_by() -> None:
    y = 30 + 40 * (np.arange(20) >= 10) + 2 * noise(8)[0]
    assert phase_shift.step_test(TWENTY, y).is_jump
    families = [["small"] * 10 + ["large"] * 10]
    assert phase_shift.step_test(TWENTY, y, families).preferred == "groups"
    apart = [["a", "b"] * 10]
    assert phase_shift.step_test(TWENTY, y, apart).is_jump


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_step_is_a_jump_where_it_is_and_as_large(sign: int) -> None:
    y = 50 + sign * 40 * (math.log10(4.5) < ACTIVE) + noise(9, models=12)[0]
    assert phase_shift.step_test(ACTIVE, y).is_jump
    found = phase_shift.step(ACTIVE, y[None])
    assert found.upper - found.lower == pytest.approx(sign * 40, abs=3)
    assert 4.0 <= 10**found.position_low <= 4.5 <= 10**found.position_high <= 5.2
    assert found.width <= WIDEST


def test_a_step_is_no_wider_than_half_a_decade_and_its_size_lies_inside_the_data() -> None:
    y = 20 + 60 * logistic(TWENTY, 2.2, 1.0)  # half of it, and its upper plateau, lie beyond the last model
    found = phase_shift.step(TWENTY, y[None])
    assert found.width <= WIDEST
    assert 20 <= found.lower < found.upper <= y.max() + 1
    assert found.position <= TWENTY[-2]


def test_a_position_that_may_lie_beyond_the_models_ends_at_the_last() -> None:
    late = phase_shift.step(TWENTY, (30 + 60 * logistic(TWENTY, 2.2, 0.5) + 6 * noise(10)[0])[None])
    middle = phase_shift.step(TWENTY, (30 + 60 * (np.arange(20) >= 10) + noise(10)[0])[None])
    assert late.position_high == TWENTY[-1]
    assert middle.position_high < TWENTY[-2]


def test_the_middle_of_a_step_leaves_two_models_on_each_side() -> None:
    design = phase_shift.Design.over(ACTIVE)
    assert ACTIVE[1] < design.position_G.min() < ACTIVE[2]
    assert ACTIVE[-3] < design.position_G.max() < ACTIVE[-2]
    assert (design.width_G.min(), design.width_G.max()) == (SHARP, WIDEST)


def test_least_squares_are_those_of_the_definition() -> None:
    y = noise(11, rows=3)
    compared = {each.name: each for each in phase_shift.Design.over(TWENTY).curves()}
    for name, degree in (("constant", 0), ("linear", 1)):
        expected = [((row - np.polyval(np.polyfit(TWENTY, row, degree), TWENTY)) ** 2).sum() for row in y]
        assert compared[name].squares(y)[:, 0] == pytest.approx(expected)
    design = phase_shift.Design.over(TWENTY)
    index = 17
    shape = logistic(TWENTY, design.position_G[index], design.width_G[index])
    expected = [np.linalg.lstsq(np.stack([np.ones(20), shape], 1), row, rcond=None)[1][0] for row in y]
    assert compared["step"].squares(y)[:, index] == pytest.approx(expected)
    assert ((compared["step"].fitted(y) - y) ** 2).sum(axis=1) == pytest.approx(compared["step"].squares(y).min(axis=1))


def test_aicc_is_that_of_hurvich_and_tsai() -> None:
    assert phase_shift.aicc(48.0, 12, 3) == pytest.approx(12 * math.log(4) + 6 + 24 / 8)
    assert phase_shift.aicc(48.0, 6, 5) == math.inf


def test_models_without_room_for_a_step_say_so() -> None:
    with pytest.raises(ValueError, match="two of them on each side"):
        phase_shift.step_test(np.array([1.0, 2, 2, 2, 2, 2, 3]), noise(12, models=7)[0])


@pytest.mark.parametrize(("place", "width"), [("middle", SHARP), ("middle", WIDEST)])
def test_the_detectable_jump_is_found_about_four_times_in_five(place: str, width: float) -> None:
    size = phase_shift.detectable(TWENTY, [], place, width)
    rows = 30 + 5 * (size * phase_shift.planted(TWENTY, place, width) + noise(13, rows=150))
    assert 0.68 <= jumps(TWENTY, rows) <= 0.92


def test_what_is_harder_to_find_has_to_be_larger() -> None:
    middle = phase_shift.detectable(ACTIVE, [], "middle", SHARP)
    assert middle < phase_shift.detectable(ACTIVE, [], "middle", WIDEST)
    assert middle < phase_shift.detectable(ACTIVE, [], "early", SHARP)
    assert middle <= phase_shift.detectable(ACTIVE, [], "middle", SHARP, tests=8)
    assert phase_shift.detectable(TWENTY, [], "middle", SHARP) < middle
    assert phase_shift.detectable(ACTIVE[:7], [], "middle", SHARP) == math.inf


def test_the_noise_is_that_around_what_describes_the_models_best_with_its_range() -> None:
    held = [phase_shift.noise_around_best(TWENTY, row) for row in 30 + 20 * TWENTY + 5 * noise(14, rows=300)]
    assert 0.85 <= np.mean([low <= 5 <= high for _, low, high in held]) <= 0.97
    assert np.median([value for value, _, _ in held]) == pytest.approx(5, rel=0.1)
    jump = 30 + 60 * (np.arange(20) >= 10) + 2 * noise(15)[0]
    assert phase_shift.noise_around_best(TWENTY, jump)[0] == pytest.approx(2, rel=0.4)
