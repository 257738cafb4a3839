"""Trends: correlations, fits and tests against SciPy, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from outlier_features.experiment import correlation
from scipy import stats

ACTIVE = np.log10([0.6, 1.3, 1.7, 3.0, 3.3, 3.6, 4.0, 5.1, 8.0, 12.0, 12.9, 14.0])
"""Active parameters of the sweep of 2025, in billions."""


def is_about_95(held: list[bool]) -> bool:
    """Tell whether an interval held the truth in 93 to 97 %, give or take two standard errors of the simulation."""
    error = 2 * math.sqrt(0.95 * 0.05 / len(held))
    return 0.93 - error <= np.mean(held) <= 0.97 + error


def noise(seed: int, rows: int = 1, models: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, models))


@pytest.mark.parametrize("models", [4, 5, 7, 8, 12])
def test_the_rank_correlation_is_scipys_with_an_interval_from_eight_models_on(models: int) -> None:
    x, y = noise(1, models=models), noise(2, models=models)
    found = correlation.correlation(x, y)
    assert found.value == pytest.approx(stats.spearmanr(x[0], y[0]).statistic)
    if models < 8:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    else:
        assert -1 <= found.low < found.value < found.high <= 1


def test_the_p_value_counts_all_orders_of_the_models() -> None:
    x, y = noise(3, models=5), noise(4, models=5)
    observed = abs(stats.spearmanr(x[0], y[0]).statistic)
    orders = [abs(stats.spearmanr(x[0], order).statistic) for order in itertools.permutations(y[0])]
    found = correlation.correlation(x, y)
    assert found.p_value == pytest.approx(np.mean(np.array(orders) >= observed - 1e-12), abs=0.01)


def test_a_perfect_order_has_an_interval_and_its_exact_p_value() -> None:
    assert correlation.correlation(ACTIVE[None, :5], ACTIVE[None, :5]).p_value == pytest.approx(2 / math.factorial(5))
    found = correlation.correlation(ACTIVE[None, :8], ACTIVE[None, :8])
    assert found.value == 1
    assert 0.8 < found.low < 1


def test_within_kinds_every_permutation_of_each_kind_counts() -> None:
    x, y, kinds = noise(3, models=7), noise(4, models=7), ["dense"] * 3 + ["moe"] * 4
    found = correlation.correlation(x, y, kinds)
    groups = (range(3), range(3, 7))
    ranks = [stats.rankdata(values[0]) for values in (x, y)]
    for own, rank in itertools.product(groups, ranks):
        rank[list(own)] -= rank[list(own)].mean()
    assert found.within == pytest.approx(ranks[0] @ ranks[1] / math.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    orders = itertools.product(*(itertools.permutations(own) for own in groups))
    products = np.array([ranks[0] @ ranks[1][list(first + second)] for first, second in orders])
    expected = np.mean(np.abs(products) >= abs(ranks[0] @ ranks[1]) - 1e-9)
    assert found.p_within == pytest.approx(expected, abs=0.015)
    assert correlation.correlation(x, y).p_within == found.p_value


def test_two_kinds_that_differ_in_size_and_level_correlate_over_all_models_and_not_within_kinds() -> None:
    kinds = ["dense"] * 10 + ["moe"] * 10
    x = np.r_[np.linspace(0, 1, 10), np.linspace(1.2, 2.2, 10)]
    y = 30 + 20 * (np.arange(20) >= 10) + noise(15, models=20)[0]
    found = correlation.correlation(x[None], y[None], kinds)
    assert found.p_value < 0.001
    assert found.p_within > 0.05


@pytest.mark.parametrize("models", [8, 12, 30])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_interval_of_the_correlation_holds_the_truth_as_often_as_it_says(models: int, rho: float) -> None:
    pairs = np.random.default_rng(5).multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=(600, models))
    truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's of a bivariate normal
    found = [correlation.interval(each[None, :, 0], each[None, :, 1]) for each in pairs]
    assert is_about_95([low <= truth <= high for low, high in found])


def test_draws_of_the_sequences_widen_an_interval_only_where_they_vary_more_than_the_models_do() -> None:
    y = 30 + 20 * (ACTIVE - ACTIVE.mean()) + noise(6)[0]
    alone, shaken = y[None], np.vstack([y, y + 15 * noise(7, rows=200)])
    one, other = correlation.line(ACTIVE, alone), correlation.line(ACTIVE, shaken)
    assert other.slope_low < one.slope_low
    assert other.slope_high > one.slope_high
    assert other.slope == pytest.approx(one.slope)
    little = correlation.line(ACTIVE, np.vstack([y, y + 0.1 * noise(7, rows=200)]))
    assert (little.slope_low, little.slope_high) == pytest.approx((one.slope_low, one.slope_high))
    flat = noise(18)
    x = np.repeat(ACTIVE[None], 201, axis=0)
    one = correlation.correlation(ACTIVE[None], flat)
    other = correlation.correlation(x, np.vstack([flat, flat + 60 * noise(7, rows=200)]))
    assert other.high - other.low >= one.high - one.low
    assert other.p_value == one.p_value


def test_equal_values_have_no_correlation() -> None:
    assert math.isnan(correlation.correlation(ACTIVE[None], np.full((1, 12), 25.0)).value)


def test_the_line_is_scipys() -> None:
    y = 30 + 20 * ACTIVE + 5 * noise(8)[0]
    found, expected = correlation.line(ACTIVE, y[None]), stats.linregress(ACTIVE, y)
    assert (found.slope, found.intercept) == pytest.approx((expected.slope, expected.intercept))
    assert found.slope_low < found.slope < found.slope_high


@pytest.mark.parametrize("models", [5, 12, 30])
@pytest.mark.parametrize("growth", [1.0, 10.0])
def test_the_interval_of_the_slope_holds_the_truth_whether_or_not_models_spread_alike(
    models: int, growth: float
) -> None:
    x = np.linspace(0, 1, models)
    rows = 20 * x + growth**x * noise(9, rows=600, models=models)
    found = [correlation.line(x, row[None]) for row in rows]
    assert is_about_95([each.slope_low <= 20 <= each.slope_high for each in found])


def test_the_difference_between_kinds_is_that_of_the_regression_and_found_where_planted() -> None:
    kinds = np.arange(12) % 2 == 0
    y = 30 + 10 * ACTIVE + 12 * kinds + noise(13)[0]
    found = correlation.difference(ACTIVE, y[None], kinds)
    design = np.stack([np.ones(12), ACTIVE, kinds], axis=1)
    assert found.value == pytest.approx(np.linalg.lstsq(design, y, rcond=None)[0][2])
    assert found.low < 12 < found.high
    assert found.p_value < 0.01
    nothing = correlation.difference(ACTIVE, (30 + 10 * ACTIVE + noise(14)[0])[None], kinds)
    assert nothing.low < 0 < nothing.high


@pytest.mark.parametrize("spreads", [(1.0, 1.0), (1.0, 4.0), (4.0, 1.0)])
@pytest.mark.parametrize("dense", [3, 5, 8])
def test_the_interval_of_the_difference_holds_the_truth_whichever_kind_spreads_more(
    dense: int, spreads: tuple[float, float]
) -> None:
    kinds = np.arange(3 * dense) >= dense
    held, found = [], np.random.default_rng(16)
    for _ in range(600):
        x = found.uniform(0, 1, len(kinds)) + 0.3 * kinds
        y = 12 * kinds + 10 * x + np.where(kinds, spreads[1], spreads[0]) * found.standard_normal(len(kinds))
        estimate = correlation.difference(x, y[None], kinds)
        held.append(estimate.low <= 12 <= estimate.high)
        assert (estimate.p_value < 0.05) == (not estimate.low <= 0 <= estimate.high)
    assert is_about_95(held)


def test_with_equal_x_the_difference_has_welchs_standard_error_and_freedom() -> None:
    x, kinds = np.tile(np.linspace(-1, 1, 5), 6), np.arange(30) >= 10
    y = np.where(kinds, 4.0, 1.0) * noise(17, models=30)[0]
    y -= x * (y @ x) / (x @ x)  # no slope, so that it costs almost nothing
    found = correlation.difference(x, y[None], kinds)
    welch = stats.ttest_ind(y[kinds], y[~kinds], equal_var=False)
    assert found.p_value == pytest.approx(welch.pvalue, rel=0.1)
    assert found.high - found.low == pytest.approx(np.ptp(welch.confidence_interval()), rel=0.05)
