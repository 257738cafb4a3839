"""Spectra keep every count, and lie where the values lie."""

import numpy as np
import pytest
from kept_magnitudes import counts
from outlier_features.magnitude_bins import CELLS, cell_of
from outlier_features.metrics import spectra
from outlier_features.metrics.spectra import OCTAVE, STEPS


def drawn(size=20000):
    return np.abs(np.random.default_rng(0).standard_t(4, size))


def test_steps_lie_in_the_cells_that_magnitudes_are_counted_in() -> None:
    middles = spectra.magnitude_of(np.arange(STEPS) + 0.5)
    np.testing.assert_array_equal(spectra.cells(), cell_of(middles))


def test_a_spectrum_has_the_counts_of_every_cell_and_nothing_above_the_largest() -> None:
    x = drawn()
    found = spectra.of_counts(counts(x), x.max())
    np.testing.assert_allclose(np.bincount(spectra.cells(), found, CELLS)[1:], counts(x)[1:], atol=1e-6)
    assert found[int(np.ceil(spectra.place_of(x.max()))) :].sum() == 0


def test_a_spectrum_is_near_that_of_the_values() -> None:
    x = drawn(400_000)
    found, true = spectra.of_counts(counts(x), x.max()), spectra.of_values(x)
    assert np.abs(np.cumsum(found) - np.cumsum(true)).max() < 0.005 * len(x)


def test_what_is_known_of_some_values_tells_where_in_a_cell_they_are() -> None:
    x = np.full(1000, 1.3)
    found = spectra.of_counts(counts(x), 1.45, spectra.of_values(x))
    np.testing.assert_allclose(found, spectra.of_values(x), atol=1e-9)


def test_a_normal_channel_has_its_share_of_either_sign_in_each_step() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(-3, 1, 200_000)
    kept = [np.array([value]) for value in (x.mean(), (x**2).mean(), x.min(), x.max())]
    ((positive,), (negative,)) = spectra.of_channels(*kept)
    assert positive.sum() == pytest.approx((x > 0).mean(), abs=1e-3)
    true = spectra.of_values(-x[x < 0]) / len(x)
    assert np.abs(np.cumsum(negative) - np.cumsum(true)).max() < 0.005


def test_sharpening_undoes_the_moves_of_rows() -> None:
    rng = np.random.default_rng(0)
    x, shifts = np.abs(rng.normal(size=(400, 400))), np.round(rng.normal(0, 6, 400))
    moved = spectra.of_values(x * 2.0 ** (shifts / OCTAVE)[:, None]) / 400
    row = spectra.of_values(x) / 400
    found = spectra.sharpened(moved, shifts)
    assert found.sum() == pytest.approx(row.sum(), rel=1e-3)
    assert np.abs(np.cumsum(found) - np.cumsum(row)).max() < 0.2 * np.abs(np.cumsum(moved) - np.cumsum(row)).max()


def test_stretching_leaves_what_is_below_and_spreads_what_is_above() -> None:
    row = np.zeros(STEPS)
    row[[100, 200, 210]] = 1
    found = spectra.stretched(row, 200, 2)
    assert found.sum() == pytest.approx(3)
    np.testing.assert_allclose(found[[100, 200, 201, 220, 221]], [1, 0.5, 0.5, 0.5, 0.5])
    assert spectra.quantile(row, 0.5) == pytest.approx(200.5)
