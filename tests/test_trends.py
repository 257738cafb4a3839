"""Trends: correlations, fits and tests against SciPy, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from outlier_features import trends
from scipy import stats

ACTIVE = np.log10([0.6, 1.3, 1.7, 3.0, 3.3, 3.6, 4.0, 5.1, 8.0, 12.0, 12.9, 14.0])
"""Active parameters of the sweep of 2025, in billions."""


def noise(seed: int, rows: int = 1, models: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, models))


def step(jump: float, position: float) -> np.ndarray:
    return jump * (math.log10(position) < ACTIVE)


@pytest.mark.parametrize("models", [4, 5, 7, 12])
def test_the_rank_correlation_is_scipys(models: int) -> None:
    x, y = noise(1, models=models), noise(2, models=models)
    found = trends.correlation(x, y)
    assert found.value == pytest.approx(stats.spearmanr(x[0], y[0]).statistic)
    assert -1 <= found.low < found.value < found.high <= 1


def test_the_p_value_counts_all_orders_of_the_models() -> None:
    x, y = noise(3, models=5), noise(4, models=5)
    observed = abs(stats.spearmanr(x[0], y[0]).statistic)
    orders = [abs(stats.spearmanr(x[0], order).statistic) for order in itertools.permutations(y[0])]
    assert trends.correlation(x, y).p_value == pytest.approx(np.mean(np.array(orders) >= observed - 1e-12), abs=0.01)


def test_a_perfect_order_of_five_models_has_an_interval_and_its_exact_p_value() -> None:
    found = trends.correlation(ACTIVE[None, :5], ACTIVE[None, :5])
    assert found.value == 1
    assert 0 < found.low < 0.3
    assert found.p_value == pytest.approx(2 / math.factorial(5))


def test_the_interval_of_the_correlation_holds_the_truth_as_often_as_it_says(monkeypatch) -> None:
    monkeypatch.setattr(trends, "PERMUTATIONS", 19)  # the test beside it takes all the time
    normal = np.random.default_rng(5).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=(300, 12))
    truth = 6 / math.pi * math.asin(0.6 / 2)  # Spearman's of a bivariate normal
    found = [trends.correlation(pairs[None, :, 0], pairs[None, :, 1]) for pairs in normal]
    assert 0.92 <= np.mean([each.low <= truth <= each.high for each in found]) <= 0.99


def test_draws_of_the_sequences_widen_every_interval() -> None:
    y = 30 + 20 * (ACTIVE - ACTIVE.mean()) + noise(6)[0]
    alone, shaken = y[None], np.vstack([y, y + 15 * noise(7, rows=200)])
    x = np.repeat(ACTIVE[None], 201, axis=0)
    one, other = trends.correlation(ACTIVE[None], alone), trends.correlation(x, shaken)
    assert other.low < one.low
    assert other.high > one.high
    assert other.p_value == one.p_value
    one, other = trends.line(ACTIVE, alone), trends.line(ACTIVE, shaken)
    assert other.slope_low < one.slope_low
    assert other.slope_high > one.slope_high
    assert other.slope == pytest.approx(one.slope)


def test_equal_values_have_no_correlation() -> None:
    assert math.isnan(trends.correlation(ACTIVE[None], np.full((1, 12), 25.0)).value)


def test_the_line_is_scipys_with_students_interval() -> None:
    y = 30 + 20 * ACTIVE + 5 * noise(8)[0]
    found, expected = trends.line(ACTIVE, y[None]), stats.linregress(ACTIVE, y)
    assert (found.slope, found.intercept) == pytest.approx((expected.slope, expected.intercept))
    reach = stats.t.ppf(0.975, 10) * expected.stderr
    assert (found.slope_low, found.slope_high) == pytest.approx((found.slope - reach, found.slope + reach))


def test_a_planted_logistic_is_recovered() -> None:
    y = 20 + 60 / (1 + np.exp(-(ACTIVE - math.log10(4.5)) / 0.05))
    found = trends.shift(ACTIVE, y[None])
    assert 10**found.position == pytest.approx(4.5, rel=0.02)
    assert (found.lower, found.upper) == pytest.approx((20, 80), abs=1)
    assert found.width == pytest.approx(0.05 * 2 * math.log(9), rel=0.2)
    assert found.position_low <= math.log10(4.5) <= found.position_high
    assert found.width_low <= 0.05 * 2 * math.log(9) <= found.width_high


def test_a_falling_step_has_a_negative_size() -> None:
    found = trends.shift(ACTIVE, (80 - step(50, 4.5))[None])
    assert found.upper - found.lower == pytest.approx(-50, abs=0.1)
    assert 4.0 <= 10**found.position <= 5.1


def test_the_interval_of_the_position_holds_the_truth_as_often_as_it_says() -> None:
    rows = 30 + step(40, 4.5) + 5 * noise(9, rows=200)
    found = [trends.shift(ACTIVE, row[None]) for row in rows]
    assert np.mean([each.position_low <= math.log10(4.5) <= each.position_high for each in found]) >= 0.93


def is_found(y: np.ndarray) -> bool:
    fits = {2: ((y - y.mean()) ** 2).sum(), 3: trends.line(ACTIVE, y[None]).squares}
    fits[5] = trends.shift(ACTIVE, y[None]).squares
    criteria = {parameters: trends.aicc(value, len(y), parameters) for parameters, value in fits.items()}
    return min(criteria, key=lambda k: criteria[k]) == 5 and trends.shift_p_value(ACTIVE, y) < 0.05


@pytest.mark.parametrize("slope", [0.0, 15.0, 60.0])
def test_noise_around_a_constant_or_a_line_passes_for_a_step_less_often_than_one_time_in_twenty(slope: float) -> None:
    rows = 40 + slope * ACTIVE + 8 * noise(10, rows=200)
    assert np.mean([is_found(row) for row in rows]) <= 0.05


def test_the_detectable_jump_is_found_four_times_in_five() -> None:
    jump = trends.detectable_jump(ACTIVE, 5.0)
    assert 15 < jump < 35
    rows = 30 + jump * (np.median(ACTIVE) < ACTIVE) + 5 * noise(11, rows=400)
    assert 0.72 <= np.mean([is_found(row) for row in rows]) <= 0.88
    assert trends.detectable_jump(ACTIVE, 10.0) == pytest.approx(2 * jump)


def test_fewer_models_show_only_larger_jumps() -> None:
    jumps = [trends.detectable_jump(ACTIVE[:models], 5.0) for models in (7, 9, 12)]
    assert jumps[0] > 100 > jumps[1] > jumps[2]


def test_models_without_room_for_a_step_say_so() -> None:
    with pytest.raises(ValueError, match="two of them on each side"):
        trends.shift(np.array([1.0, 2, 2, 2, 2, 2, 3]), noise(12, models=7))


def test_aicc_is_that_of_hurvich_and_tsai() -> None:
    assert trends.aicc(48.0, 12, 3) == pytest.approx(12 * math.log(4) + 6 + 24 / 8)
    assert math.isnan(trends.aicc(48.0, 6, 5))


def test_the_difference_between_kinds_is_that_of_the_regression_and_found_where_planted() -> None:
    kinds = np.arange(12) % 2 == 0
    y = 30 + 10 * ACTIVE + 12 * kinds + noise(13)[0]
    found = trends.difference(ACTIVE, y[None], kinds)
    design = np.stack([np.ones(12), ACTIVE, kinds], axis=1)
    assert found.value == pytest.approx(np.linalg.lstsq(design, y, rcond=None)[0][2])
    assert found.low < 12 < found.high
    assert found.p_value < 0.01
    nothing = trends.difference(ACTIVE, (30 + 10 * ACTIVE + noise(14)[0])[None], kinds)
    assert nothing.low < 0 < nothing.high
