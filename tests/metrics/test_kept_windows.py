"""What is kept of a window says where its values are, how its rows differ, and on which side of zero they lie."""

import activations
import numpy as np
import pytest
from kept_magnitudes import statistics
from outlier_features.metrics import kept_windows, spectra
from outlier_features.metrics.spectra import OCTAVE


def kept(x_TC: np.ndarray) -> kept_windows.KeptWindow:
    return kept_windows.read(statistics(attn_in=[x_TC]).block(0).site("attn_in"))[0]


@pytest.mark.parametrize("kind", activations.KINDS)
def test_extremes_and_the_largest_channel_are_exact(kind: str) -> None:
    (x_TC,) = activations.windows(kind, 1)
    window = kept(x_TC)
    assert (window.high, window.low, window.peak) == (x_TC.max(), x_TC.min(), np.abs(x_TC).max())
    assert window.top == np.abs(x_TC).max(0).argmax()
    assert (window.rows, window.channels) == (len(x_TC) - 1, x_TC.shape[1])


@pytest.mark.parametrize("kind", activations.KINDS)
def test_the_share_of_positive_values_is_near_the_true_one(kind: str) -> None:
    (x_TC,) = activations.windows(kind, 1)
    window, rest = kept(x_TC), x_TC[1:]
    positive_N, all_N = spectra.of_values(rest[rest > 0]), spectra.of_values(np.abs(rest))
    assert window.everything @ window.positive_share == pytest.approx(positive_N.sum(), rel=0.03)
    high_N = np.arange(spectra.STEPS) >= spectra.place_of(np.quantile(np.abs(rest), 0.95))
    found = (window.everything * window.positive_share)[high_N].sum() / window.everything[high_N].sum()
    assert found == pytest.approx(positive_N[high_N].sum() / all_N[high_N].sum(), abs=0.06)


def test_rows_are_moved_by_their_medians() -> None:
    x_TC = np.random.default_rng(0).normal(size=(65, 512)) * np.repeat([1.0, 4.0, 16.0], [22, 22, 21])[:, None]
    found = kept(x_TC).shifts / OCTAVE
    medians_T = np.median(np.abs(x_TC[1:]), axis=1)
    np.testing.assert_allclose(found, np.log2(medians_T / 2 ** np.median(np.log2(medians_T))), atol=1e-4)


def test_rows_of_mostly_zeros_are_moved_by_their_rms() -> None:
    x_TC = np.random.default_rng(0).normal(size=(9, 64)) * (np.arange(64) < 16)
    rms_T = np.sqrt((x_TC[1:] ** 2).mean(1))
    expected = np.log2(rms_T) - np.median(np.log2(rms_T))
    np.testing.assert_allclose(kept(x_TC).shifts / OCTAVE, expected, atol=1e-4)


def test_channels_that_stand_out_have_spectra_of_their_own() -> None:
    (x_TC,) = activations.windows("planted", 1)
    window = kept(x_TC)
    for channel in (5, 9, 40):
        own_N = window.own_spectra[channel]
        true_N = spectra.of_values(np.abs(x_TC[1:, channel]))
        assert own_N.sum() == pytest.approx(window.rows, rel=0.01)
        assert np.abs(np.cumsum(own_N) - np.cumsum(true_N)).max() < 0.1 * window.rows
