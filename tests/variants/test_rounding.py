"""Grids of number formats against ml_dtypes and against what they are by definition."""

import ml_dtypes
import numpy as np
import pytest
import torch
from outlier_features.variants import rounding


def wide_values(count: int = 100_000) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (generator.standard_normal(count) * 2.0 ** generator.integers(-12, 10, count)).astype(np.float32)


def ties_of(grid: np.ndarray) -> np.ndarray:
    middles = (grid[1:] + grid[:-1]) / 2
    return np.concatenate([grid, middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))])


def every(dtype: type) -> np.ndarray:
    """Return every magnitude that a small float has, ascending."""
    bits = np.arange(2 ** (ml_dtypes.finfo(dtype).bits), dtype=np.uint8)
    found = bits.view(dtype).astype(np.float32)
    return np.unique(np.abs(found[np.isfinite(found)]))


@pytest.mark.parametrize(
    ("round_to", "dtype", "largest"),
    [(rounding.e4m3, ml_dtypes.float8_e4m3fn, 448.0), (rounding.e2m1, ml_dtypes.float4_e2m1fn, 6.0)],
)
def test_small_floats_are_those_of_ml_dtypes(round_to, dtype: type, largest: float) -> None:
    grid = every(dtype)
    assert grid.max() == largest
    values = np.concatenate([wide_values(), ties_of(grid), -ties_of(grid)]).astype(np.float32)
    inside = np.clip(values, -largest, largest)
    found = round_to(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(found, inside.astype(dtype).astype(np.float32))
    assert np.isnan(round_to(torch.tensor([float("nan")])).numpy()).all()


def test_symmetric_rounds_half_to_even_and_clamps() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.0, 200.0, -200.0])
    found = rounding.symmetric(x, torch.tensor(127.0), 127)
    assert found.tolist() == [0, 2, 2, 0, -2, 126, 127, 127, -127]
    assert rounding.symmetric(torch.zeros(3), torch.tensor(0.0), 7).tolist() == [0, 0, 0]


def test_an_asymmetric_range_has_255_steps_and_need_not_hold_zero() -> None:
    x = torch.linspace(3, 5, 2001)
    found = rounding.asymmetric(x, x.min(), x.max())
    assert len(found.unique()) == 255
    assert float((found - x).abs().max()) <= 1 / 254 + 1e-6
    alike = torch.full((4,), 7.5)
    assert torch.equal(rounding.asymmetric(alike, alike.min(), alike.max()), alike)


def test_the_exponent_of_a_power_of_two_is_itself_and_just_below_it_one_less() -> None:
    powers = 2.0 ** torch.arange(-126, 128, dtype=torch.float32)
    assert rounding.floor_exponent(powers).tolist() == list(range(-126, 128))
    below = torch.from_numpy(np.nextafter(powers.numpy(), np.float32(0)))
    assert rounding.floor_exponent(below[1:]).tolist() == list(range(-126, 127))
    assert rounding.floor_exponent(torch.tensor([0.0, 2.0**-149])).tolist() == [-128, -149]


def test_blocks_end_with_zeros_and_join_again() -> None:
    x = torch.randn(2, 3, 37)
    groups = rounding.blocks(x, 16)
    assert groups.shape == (2, 3, 3, 16)
    assert torch.equal(groups[..., 2, 5:], torch.zeros(2, 3, 11))
    assert torch.equal(rounding.joined(groups, 37), x)


def test_asymmetric_steps_are_those_of_one_division_in_float32() -> None:
    x = torch.from_numpy(wide_values(20_000))
    low, high = x.min(), x.max()
    steps = np.float32(254) / (high - low).numpy()
    zero = np.round(steps * low.numpy())
    q = np.clip(np.round(steps * x.numpy()) - (zero + np.float32(127)), -127, 127)
    wanted = (q + np.float32(127) + zero) / steps
    np.testing.assert_array_equal(rounding.asymmetric(x, low, high).numpy(), wanted)
