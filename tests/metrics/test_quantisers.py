"""Grids hold the numbers of their formats, and integrate the true staircase."""

import fake_quantisation
import numpy as np
import pytest
from outlier_features.metrics.quantisers import E2M1, E4M3, INT4, INT8, Grid, nvfp4
from outlier_features.metrics.spectra import OCTAVE, STEPS

ROUNDED = {
    "int8": (INT8, lambda u: np.clip(np.round(u), -127, 127)),
    "int4": (INT4, lambda u: np.clip(np.round(u), -7, 7)),
    "e4m3": (E4M3, fake_quantisation.e4m3),
    "e2m1": (E2M1, fake_quantisation.e2m1),
}
each = pytest.mark.parametrize(("grid", "rounded"), ROUNDED.values(), ids=ROUNDED)


def test_the_levels_of_small_floats_are_those_of_their_standards() -> None:
    assert E2M1.levels == (0, 0.5, 1, 1.5, 2, 3, 4, 6)
    assert len(E4M3.levels) == 127
    assert E4M3.levels[1] == 2.0**-9
    assert E4M3.levels[-2:] == (416, 448)


@each
def test_errors_are_those_of_rounding_to_the_nearest(grid: Grid, rounded) -> None:
    u = np.concatenate([np.linspace(-600, 600, 4001), np.linspace(-8, 8, 4001), grid.levels])
    np.testing.assert_allclose(grid.error(u), (u - rounded(u)) ** 2, atol=1e-12)


@each
def test_the_mean_error_of_a_step_is_that_of_many_values_in_it(grid: Grid, rounded) -> None:
    for step in range(-8 * OCTAVE, 10 * OCTAVE, 5):
        low, high = 2.0 ** (step / OCTAVE), 2.0 ** ((step + 1) / OCTAVE)
        u = low + (high - low) * (np.arange(20000) + 0.5) / 20000
        assert grid.steps[STEPS + step] == pytest.approx(((u - rounded(u)) ** 2).mean(), rel=2e-3, abs=1e-9), step


def test_scales_of_nvfp4_are_e4m3_over_that_of_the_tensor() -> None:
    largest = np.array([6 * 448.0, 6.0, 5.0, 6 * 2.0**-11])
    np.testing.assert_array_equal(nvfp4(largest, 6 * 448.0), [448, 1, fake_quantisation.e4m3(np.array(5 / 6)), 0])
