"""Intervals over sequences: against the definition solved by bisection, and how often they hold the truth."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from outlier_features.metrics import intervals
from outlier_features.metrics.intervals import Estimate
from scipy import optimize, stats

PROJECT = Path(__file__).parents[2]


def solved(sample: np.ndarray) -> tuple[float, float]:
    """Return the ends of the interval of a mean: where Hall's transformation of t has the quantiles of Student's t."""
    count, spread = len(sample), sample.std(ddof=1)
    bend = 1.5 * stats.skew(sample, bias=False) / math.sqrt(count)

    def transformed(mean: float) -> float:
        t = math.sqrt(count) * (sample.mean() - mean) / spread
        return t + bend * t**2 / 3 + bend**2 * t**3 / 27 + bend / 6

    quantile, far = stats.t.ppf(0.975, count - 1), 60 * spread
    ends = [
        optimize.brentq(lambda mean, q=q: transformed(mean) - q, sample.mean() - far, sample.mean() + far, xtol=1e-13)
        for q in (quantile, -quantile)
    ]
    return ends[0], ends[1]


@pytest.mark.parametrize("count", [8, 16, 64])
@pytest.mark.parametrize("sigma", [0.1, 0.6, 1.0])
def test_the_interval_of_a_mean_is_where_its_skewness_puts_it(count: int, sigma: float) -> None:
    sample = np.random.default_rng(count).lognormal(1, sigma, count)
    found = intervals.ratio(sample, np.ones(count))
    assert found.value == pytest.approx(sample.mean())
    assert (found.low, found.high) == pytest.approx(solved(sample), rel=1e-9)
    assert found.low < found.value < found.high
    assert intervals.total(sample).low == pytest.approx(count * found.low)


def test_the_interval_of_a_symmetric_sample_is_that_of_student() -> None:
    sample = np.array([1.0, 2, 3, 4, 6, 7, 8, 9])
    half = stats.t.ppf(0.975, 7) * sample.std(ddof=1) / math.sqrt(8)
    found = intervals.ratio(sample, np.ones(8))
    assert (found.low, found.high) == pytest.approx((5 - half, 5 + half), rel=1e-12)


def test_the_interval_of_a_ratio_is_that_of_what_is_left_of_each_numerator() -> None:
    rng = np.random.default_rng(3)
    weight = rng.integers(1, 30, 16)
    value = weight * rng.lognormal(0, 0.4, 16)
    ratio = value.sum() / weight.sum()
    ends = solved((value - ratio * weight) / weight.mean())
    found = intervals.ratio(value, weight)
    assert (found.value, found.low, found.high) == pytest.approx((ratio, ratio + ends[0], ratio + ends[1]), rel=1e-9)


def test_an_interval_stays_inside_what_its_value_can_be() -> None:
    rare = np.array([0.0] * 15 + [9.0])
    assert intervals.ratio(rare, np.ones(16)).low == 0
    assert intervals.ratio(100 - rare, np.ones(16), most=100).high == 100


@pytest.mark.parametrize(
    ("value", "weight", "gap"),
    [
        (np.arange(7), np.ones(7), intervals.FEW),
        (np.full(16, 0.1), np.ones(16), intervals.ALIKE),
        (np.zeros(16), np.ones(16), intervals.ALIKE),
        (np.arange(1.0, 17) * 0.3, np.arange(1.0, 17), intervals.ALIKE),
    ],
)
def test_without_a_spread_that_can_be_told_there_is_no_interval_and_why(value, weight, gap: str) -> None:
    found = intervals.ratio(value, weight)
    assert found.value == pytest.approx(value.sum() / weight.sum())
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.gap == gap
    assert intervals.note({"a": found, "b": found, "c": Estimate(1.0, 0.5, 2.0)}) == f"No interval for a, b ({gap})."


def test_nothing_has_no_value_and_no_note() -> None:
    found = intervals.ratio(np.zeros(16), np.zeros(16))
    assert math.isnan(found.value)
    assert intervals.note({"a": found}) is None


@pytest.mark.parametrize("count", [8, 16, 64])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng, shape: rng.lognormal(1, 0.6, shape), math.exp(1.18)),
        (lambda rng, shape: 100 * rng.beta(20, 0.5, shape), 100 * 20 / 20.5),
        (lambda rng, shape: 100 * rng.beta(1, 30, shape), 100 / 31),
        (lambda rng, shape: rng.negative_binomial(2, 2 / 22, shape), 20),
        (lambda rng, shape: 3 + rng.standard_normal(shape) / 3, 3),
    ],
    ids=["lognormal", "near 100 %", "near 0 %", "counts", "normal"],
)
def test_it_holds_the_truth_in_93_to_97_percent_of_samples(draw, truth: float, count: int) -> None:
    samples, ones = draw(np.random.default_rng(count), (4000, count)), np.ones(count)
    found = [intervals.ratio(sample, ones) for sample in samples]
    held = np.mean([each.low <= truth <= each.high for each in found if not each.gap])
    assert 0.925 <= held <= 0.975  # 93 to 97 but for the chance of 4,000 samples


@pytest.mark.slow
def test_the_simulation_prints_its_tables() -> None:
    command = [sys.executable, "benchmarks/intervals.py", "--samples", "8", "--sequences", "8"]
    environment = os.environ | {"PYTHONPATH": "workflow"}
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    assert "| lognormal, sigma 0.6 |" in ended.stdout
    assert "| distinct_channels; 300 features a sequence | none |" in ended.stdout
