"""The fast reduction and its torch reference, against float64 NumPy."""

import numpy as np
import pytest
import torch
from outlier_features import kernels, statistics
from outlier_features.grid import inverse_rms
from outlier_features.statistics import Grids, Histogram, Reached, SiteStatistics

GRIDS = Grids((3.0, 4.0, 5.984375, 6.0, 8.0, 100.0), (1.0, 2.0, 3.0, 6.0))
REDUCTIONS = {"kernel": kernels.reduce_site, "reference": statistics.reduce_site}

INPUTS = {
    "random": lambda rng, shape: rng.normal(size=shape) * 3,
    "planted": lambda rng, shape: rng.normal(size=shape) * np.where(np.arange(shape[1]) % 7 == 3, 40, 0.5),
    "constant": lambda rng, shape: np.full(shape, -6.0),
    "zeros": lambda rng, shape: np.zeros(shape),
    "subnormal": lambda rng, shape: rng.normal(size=shape) * 1e-41,
    "huge": lambda rng, shape: rng.normal(size=shape) * np.where(np.arange(shape[1]) == 0, 1e12, 1.0),
    "massive": lambda rng, shape: rng.normal(size=shape) + 25000.0 * (np.arange(shape[1]) == 1),
}
CASES = [
    (kind, dtype)
    for kind in INPUTS
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    if dtype != torch.float16 or kind not in ("huge", "massive")  # beyond the range of float16
]
SHAPES = [(2, 1), (3, 17), (64, 16), (65, 33), (200, 130)]


def expected_counts(magnitude: np.ndarray, grid: tuple[float, ...]) -> dict[tuple[int, int], int]:
    levels = np.searchsorted(np.array(grid, np.float32), magnitude, side="right")
    channels = np.broadcast_to(np.arange(magnitude.shape[1]), magnitude.shape)
    keys, counts = np.unique(np.stack([channels[levels > 0], levels[levels > 0]]), axis=1, return_counts=True)
    return {tuple(key): count for key, count in zip(keys.T.tolist(), counts.tolist(), strict=True)}


def as_counts(histogram: Histogram) -> dict[tuple[int, int], int]:
    keys = zip(histogram.channel_N.tolist(), histogram.level_N.tolist(), strict=True)
    return dict(zip(keys, histogram.count_N.tolist(), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "dtype"), CASES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_statistics_equal_float64_numpy(reduction: str, kind: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x_TC = torch.from_numpy(INPUTS[kind](np.random.default_rng(0), shape)).to(dtype)
    wide = x_TC.double().numpy()
    reached = Reached.nothing(*shape, x_TC.device)
    found = REDUCTIONS[reduction](x_TC, GRIDS, reached)
    rest, magnitude = wide[1:], np.abs(wide)
    close = {"rtol": 1e-5, "atol": 1e-6 * magnitude.max() + 1e-18}  # a square below 1e-38 is 0 in float32
    np.testing.assert_array_equal(found.first_C, wide[0])
    np.testing.assert_array_equal(found.max_C, rest.max(0))
    np.testing.assert_array_equal(found.min_C, rest.min(0))
    np.testing.assert_allclose(found.sum_C, rest.sum(0), rtol=1e-5, atol=64 * 6e-8 * np.abs(rest).sum(0).max())
    np.testing.assert_allclose(found.sum_2_C, (rest**2).sum(0), rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(found.sum_4_C, (rest**4).sum(0), rtol=2e-5, atol=1e-36)
    np.testing.assert_allclose(found.sum_3, (wide**3).sum(), rtol=1e-5, atol=1e-5 * (magnitude**3).sum() + 1e-36)
    np.testing.assert_allclose(found.rms, np.sqrt((wide**2).mean()), rtol=1e-5, atol=1e-18)
    np.testing.assert_array_equal(found.position_max_abs_T, magnitude.max(1))
    np.testing.assert_array_equal(found.position_channel_T, magnitude.argmax(1))
    np.testing.assert_allclose(found.position_rms_T, np.sqrt((wide**2).mean(1)), **close)
    assert as_counts(found.hits) == expected_counts(magnitude.astype(np.float32), GRIDS.absolute)
    scaled = magnitude.astype(np.float32) * inverse_rms(np.float64(found.rms))
    assert as_counts(found.rms_hits) == expected_counts(scaled, GRIDS.relative)
    np.testing.assert_array_equal(
        reached.absolute_TC, np.searchsorted(np.float32(GRIDS.absolute), np.float32(magnitude), side="right")
    )
    assert (found.nan_count, found.inf_count) == (0, 0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_position_kurtosis_is_that_of_numpy(reduction: str) -> None:
    x_TC = torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) ** 3
    found = REDUCTIONS[reduction](x_TC, GRIDS).position_kurtosis_T
    wide = x_TC.double().numpy()
    np.testing.assert_allclose(found, np.maximum((wide**4).mean(1) / wide.std(1) ** 4 - 3, 0), rtol=1e-4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nan_and_infinity_are_counted_and_left_out(reduction: str) -> None:
    x_TC = torch.randn(40, 20, generator=torch.Generator().manual_seed(1))
    clean = x_TC.clone()
    for row, column, value in ((0, 1, "nan"), (5, 2, "inf"), (6, 2, "-inf"), (7, 3, "nan")):
        x_TC[row, column], clean[row, column] = float(value), 0.0
    found, expected = REDUCTIONS[reduction](x_TC, GRIDS), REDUCTIONS["reference"](clean, GRIDS)
    assert (found.nan_count, found.inf_count) == (2, 2)
    for name in ("first_C", "max_C", "min_C", "sum_2_C", "position_max_abs_T"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_level_reached_is_the_highest_over_tensors(reduction: str) -> None:
    reached = Reached.nothing(2, 3, torch.device("cpu"))
    for values in ([[1.0, 5.0, 0.0], [7.0, 0.0, 3.0]], [[4.5, 3.5, 0.0], [0.0, 200.0, 0.0]]):
        REDUCTIONS[reduction](torch.tensor(values), GRIDS, reached)
    assert reached.absolute_TC.tolist() == [[2, 2, 0], [4, 6, 1]]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_same_input_gives_the_same_bits(reduction: str) -> None:
    x_TC = torch.randn(130, 70, generator=torch.Generator().manual_seed(2)) * 5

    def run() -> SiteStatistics:
        return REDUCTIONS[reduction](x_TC, GRIDS, Reached.nothing(130, 70, x_TC.device))

    first = run()
    for _ in range(10):
        for name, value in vars(run()).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(first, name)), name


@pytest.mark.parametrize("reduce_medians", [kernels.reduce_medians, statistics.reduce_medians])
@pytest.mark.parametrize("shape", [(9, 10), (7, 11), (64, 257)])
def test_medians_and_massive_activations_are_those_of_numpy(reduce_medians, shape: tuple[int, int]) -> None:
    x_TC = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 0.1
    x_TC[0, 2], x_TC[3, 4], x_TC[5, 1], x_TC[6, 6] = -500.0, 150.0, 99.0, 101.0
    wide = np.abs(x_TC.double().numpy())
    found = reduce_medians(x_TC, statistics.reduce_site(x_TC, GRIDS))
    assert found.median_abs == pytest.approx(np.median(wide), rel=1e-7)
    np.testing.assert_allclose(found.mmr_T, wide.max(1) / np.median(wide, axis=1), rtol=1e-6)
    massive = (wide > 100) & (wide >= 1000 * np.median(wide))
    assert set(zip(found.massive_position_N.tolist(), found.massive_channel_N.tolist(), strict=True)) == set(
        map(tuple, np.argwhere(massive).tolist())
    )
    assert found.massive_value_N[0] == -500.0


def test_strided_rows_are_read_as_they_are() -> None:
    wide = torch.randn(30, 40, generator=torch.Generator().manual_seed(4))
    view, copy = wide[:, ::2], wide[:, ::2].contiguous()
    found, expected = kernels.reduce_site(view, GRIDS), kernels.reduce_site(copy, GRIDS)
    assert torch.equal(found.sum_4_C, expected.sum_4_C)
