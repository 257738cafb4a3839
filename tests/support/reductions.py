"""Activations to reduce, what float64 NumPy says is kept of them, and the ways to reduce them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from outlier_features.kernels import reference
from outlier_features.kernels.cpu import CpuReduction
from outlier_features.kernels.gpu import CudaReduction, Tiles
from outlier_features.kernels.reference import Columns, Grids, Reached
from outlier_features.thresholds import inverse_rms

GRIDS = Grids((3.0, 4.0, 5.984375, 6.0, 8.0, 100.0), (1.0, 2.0, 3.0, 6.0))
SMALL = Tiles(rows=16, step=4, bytes=128, finish_rows=8, segment=16, partials=2, batch=4, median_rows=2)
"""Tiles so small that the few values of a test make many of each kind."""

INPUTS = {
    "random": lambda rng, shape: rng.normal(size=shape) * 3,
    "planted": lambda rng, shape: rng.normal(size=shape) * np.where(np.arange(shape[1]) % 7 == 3, 40, 0.5),
    "constant": lambda rng, shape: np.full(shape, -6.0),
    "alike": lambda rng, shape: np.full(shape, 1234.567),
    "offset": lambda rng, shape: 1000 + rng.normal(size=shape) * np.where(np.arange(shape[0]) % 2, 1, 1e-3)[:, None],
    "faint": lambda rng, shape: rng.normal(size=shape) * 1e-11,
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
SHAPES = [(1, 5), (2, 1), (3, 17), (64, 16), (65, 33), (200, 130)]

Reduce = Callable[..., Columns]


def reduced(x_TC: torch.Tensor, grids: Grids, reached: Reached | None = None, **asked: Any) -> Columns:
    """Reduce on the device of the activation, by the reference; `asked` is what else to keep."""
    return reference.reduce(x_TC, grids, reached, **asked)


def reduced_on_cpu(x_TC: torch.Tensor, grids: Grids, reached: Reached | None = None, **asked: Any) -> Columns:
    """Reduce by what is compiled for the CPU."""
    return CpuReduction(grids).site(x_TC, reached, **asked)


def reduced_by_kernels(
    x_TC: torch.Tensor,
    grids: Grids,
    reached: Reached | None = None,
    *,
    tiles: Tiles | None = None,
    **asked: Any,
) -> Columns:
    """Reduce by the kernels for a GPU, on a GPU or interpreted."""
    reduction = CudaReduction(x_TC.device, grids, tiles)
    with np.errstate(all="ignore"):  # interpreted, the arithmetic is NumPy's, and a GPU's does not warn
        (found,) = reduction.collect([reduction.site(x_TC, reached, **asked)])()
    return found


def activation(kind: str, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """Return an activation (T, C) of a kind."""
    return torch.from_numpy(INPUTS[kind](np.random.default_rng(0), shape)).to(dtype)


def check(reduce: Reduce, x_TC: torch.Tensor, first: int = 1) -> None:
    """Compare everything that is kept with float64 NumPy; `first` rows are those of position 0."""
    wide = x_TC.double().cpu().numpy()
    reached = Reached.nothing(*wide.shape, x_TC.device)
    found = reduce(x_TC, GRIDS, reached, medians=True, spread=True, first=first)
    check_moments(found, wide, min(first, len(wide)))
    check_spread(found, wide, first)
    check_hits(found, reached, wide)
    check_medians(found, wide)
    assert (found["nan_count"], found["inf_count"]) == (0, 0)


def check_spread(found: Columns, wide: np.ndarray, first: int) -> None:
    """Compare the counts of magnitudes, and of the largest of neighbouring channels, by a search among the edges."""
    edges = [side * 2.0**k for k in range(-20, 17) for side in (1.0, 1.5)]
    for part, rows in (("first", wide[:first]), ("rest", wide[first:])):
        blocks = {16: [], 32: []}
        for width, largest in blocks.items():
            for start in range(0, rows.shape[1], width):
                largest.append(np.abs(rows[:, start : start + width]).max(1))
        kinds = {"magnitudes": np.abs(rows), "block16": np.array(blocks[16]), "block32": np.array(blocks[32])}
        for kind, values in kinds.items():
            cells = np.where(values == 0, 0, 1 + np.searchsorted(edges, values, side="right"))
            counts = np.bincount(cells.ravel(), minlength=len(edges) + 2)
            np.testing.assert_array_equal(found[f"{kind}_{part}"], counts, err_msg=f"{kind} {part}")


def check_moments(found: Columns, wide: np.ndarray, first: int = 1) -> None:
    """Compare sums and extremes; sums within 256 float32 roundings of their magnitudes, all else exactly."""
    rest, magnitude = wide[first:], np.abs(wide)
    tiny = 1e-36  # a square below 1e-38 is 0 in float32
    np.testing.assert_array_equal(found["first"], wide[:first].ravel())
    assert found["first_rows"] == first
    np.testing.assert_array_equal(found["max"], rest.max(0, initial=-np.inf))
    np.testing.assert_array_equal(found["min"], rest.min(0, initial=np.inf))
    bound = 256 * np.finfo(np.float32).eps / 2
    for name, power in (("sum", 1), ("sum_2", 2), ("sum_4", 4)):
        error = np.abs(found[name] - (rest**power).sum(0))
        assert (error <= bound * (np.abs(rest) ** power).sum(0) + tiny).all(), name
    assert abs(found["sum_3"] - (wide**3).sum()) <= bound * (magnitude**3).sum() + tiny
    np.testing.assert_allclose(found["rms"], np.sqrt((wide**2).mean()), rtol=bound, atol=1e-18)
    np.testing.assert_array_equal(found["position_max_abs"], magnitude.max(1))
    np.testing.assert_array_equal(found["position_channel"], magnitude.argmax(1))
    np.testing.assert_allclose(found["position_rms"], np.sqrt((wide**2).mean(1)), rtol=bound, atol=1e-18)
    np.testing.assert_allclose(found["position_kurtosis"], token_kurtosis(wide), rtol=1e-4, atol=1e-4)


def token_kurtosis(wide: np.ndarray) -> np.ndarray:
    """Return E[x^4] / std^4 - 3 of each row, clamped at 0; 0 of a row whose values are alike."""
    variance_T = ((wide - wide.mean(1, keepdims=True)) ** 2).mean(1)
    fourth_T = (wide**4).mean(1)
    return np.maximum(np.divide(fourth_T, variance_T**2, out=np.zeros_like(fourth_T), where=variance_T > 0) - 3, 0)


def check_hits(found: Columns, reached: Reached, wide: np.ndarray) -> None:
    """Compare hits and levels; they are exact, the relative ones for the RMS that was found."""
    magnitude = np.abs(wide).astype(np.float32)
    scaled = magnitude * inverse_rms(np.float64(found["rms"]))
    levels = [reached.absolute_TC.cpu().numpy(), reached.relative_TC.cpu().numpy()]
    for prefix, values, grid, level_TC in (
        ("hit", magnitude, GRIDS.absolute, levels[0]),
        ("rms_hit", scaled, GRIDS.relative, levels[1]),
    ):
        expected_TC = np.searchsorted(np.float32(grid), values, side="right")
        np.testing.assert_array_equal(level_TC, expected_TC, err_msg=prefix)
        channels_TC = np.broadcast_to(np.arange(wide.shape[1]), wide.shape)
        keys, counts = np.unique(np.stack([channels_TC, expected_TC], -1)[expected_TC > 0], axis=0, return_counts=True)
        entries = [found[f"{prefix}_{name}"] for name in ("channel", "level", "count")]
        np.testing.assert_array_equal(np.stack(entries, -1), np.c_[keys, counts], err_msg=prefix)


def check_medians(found: Columns, wide: np.ndarray) -> None:
    """Compare medians and massive activations; they are exact."""
    magnitude = np.abs(wide)
    median_abs = np.median(magnitude)
    assert found["median_abs"] == median_abs
    with np.errstate(divide="ignore", invalid="ignore"):
        mmr_T = (magnitude.max(1) / np.median(magnitude, axis=1)).astype(np.float32)
    np.testing.assert_array_equal(found["mmr"], mmr_T)
    expected = np.argwhere((magnitude > 100) & (magnitude >= 1000 * median_abs))
    value_N = wide[tuple(expected.T)]
    expected = expected[np.argsort(-np.abs(value_N), kind="stable")]
    np.testing.assert_array_equal(np.c_[found["massive_position"], found["massive_channel"]], expected)
    np.testing.assert_array_equal(found["massive_value"], wide[tuple(expected.T)])


def check_equal(found: Columns, expected: Columns) -> None:
    """Compare what two reductions kept: the same names, kinds and shapes, and the same bits."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)
