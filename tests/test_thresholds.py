"""Threshold grids, against a brute-force search over the float32 values around each threshold."""

import re

import numpy as np
import pytest
import torch
from outlier_features.errors import ConfigError
from outlier_features.thresholds import exact, grid, level, round_to_bfloat16, rounded

BFLOAT16_STEP = 1 << 16
THRESHOLDS = [
    6.0,  # mantissa even in bfloat16
    6.03125,  # mantissa odd
    6.1,  # neither bfloat16 nor float32
    0.1,
    3.0,
    5.0,
    7.0,
    8.0,  # a power of two: half the spacing below it
    100.0,
    1000.0,
    1023.99999,
    1024.0,
    6.000001,  # float32 above 6.0, bfloat16 6.03125
    5.984375,
    1e-3,
]


def around(threshold: float) -> np.ndarray:
    """Return every float32 within two bfloat16 steps of a threshold."""
    middle = int(np.float32(threshold).view(np.uint32))
    return np.arange(middle - 2 * BFLOAT16_STEP, middle + 2 * BFLOAT16_STEP, dtype=np.uint32).view(np.float32)


def by_torch(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values.copy()).to(torch.bfloat16).float().numpy()


def test_six_is_reached_in_bfloat16_from_5_984375_on() -> None:
    assert exact(6.0) == 6.0
    assert rounded(6.0) == 5.984375


def test_a_tie_below_an_odd_mantissa_goes_down_so_the_next_float_is_the_first_to_hit() -> None:
    assert rounded(6.03125) == float(np.nextafter(np.float32(6.015625), np.float32(7)))


def test_a_threshold_between_two_floats_is_reached_from_the_upper_one_on() -> None:
    assert float(np.float32(6.1)) < 6.1 < exact(6.1)
    assert exact(6.1) == float(np.nextafter(np.float32(6.1), np.float32(7)))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_exact_splits_the_floats_as_the_threshold_does(threshold: float) -> None:
    values = around(threshold)
    is_hit = values.astype(np.float64) >= threshold
    assert is_hit.any()
    assert not is_hit.all()
    np.testing.assert_array_equal(values >= np.float32(exact(threshold)), is_hit)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_rounded_splits_the_floats_as_a_comparison_after_bfloat16_does(threshold: float) -> None:
    values = around(threshold)
    is_hit = by_torch(values).astype(np.float64) >= threshold
    assert is_hit.any()
    assert not is_hit.all()
    np.testing.assert_array_equal(values >= np.float32(rounded(threshold)), is_hit)


def test_a_grid_holds_each_threshold_twice_in_ascending_order() -> None:
    assert grid([8, 6.0, 6]) == (5.984375, 6.0, 7.984375, 8.0)


def test_every_value_of_a_grid_is_a_float32() -> None:
    values = grid(THRESHOLDS)
    assert [float(np.float32(value)) for value in values] == list(values)
    assert list(values) == sorted(set(values))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_level_finds_a_threshold_of_the_grid_both_ways(threshold: float) -> None:
    values = grid(THRESHOLDS)
    assert values[level(threshold, values)] == exact(threshold)
    assert values[level(threshold, values, round_to_bfloat16=True)] == rounded(threshold)


@pytest.mark.parametrize("round_first", [False, True])
def test_level_refuses_a_threshold_off_the_grid(round_first: bool) -> None:
    with pytest.raises(ConfigError, match=r"threshold 5 is not on the grid .*3, .*6.*; choose one of these"):
        level(5.0, grid([3, 6]), round_to_bfloat16=round_first)


def test_what_the_refusal_offers_can_be_chosen() -> None:
    values = grid([3, 6])
    with pytest.raises(ConfigError) as raised:
        level(5.0, values)
    (listed,) = re.findall(r"\((.*)\)", str(raised.value))
    offered = re.findall(r"[\d.]+", listed)
    assert offered
    assert [values[level(float(text), values)] for text in offered] == [float(text) for text in offered]


def test_rounding_equals_that_of_torch_over_random_floats_of_every_size() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1_000_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    np.testing.assert_array_equal(round_to_bfloat16(values).view(np.uint32), by_torch(values).view(np.uint32))


def test_rounding_equals_that_of_torch_at_ties_zeros_and_the_ends_of_the_range() -> None:
    ties = (np.arange(0x40C0, 0x40D0, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    ends = np.array([0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.3895314e38, 3.4028235e38, -3.4028235e38], np.float32)
    values = np.concatenate([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(9)), ends])
    np.testing.assert_array_equal(round_to_bfloat16(values).view(np.uint32), by_torch(values).view(np.uint32))


def test_rounding_keeps_the_shape_also_of_a_strided_view() -> None:
    values = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)[::2, ::3]
    assert round_to_bfloat16(values).shape == (3, 3)
    np.testing.assert_array_equal(round_to_bfloat16(values), by_torch(values))
