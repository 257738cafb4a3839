"""Pairs of a block's largest and other magnitudes have the counts as margins, and are near the true ones."""

import activations
import kept_magnitudes
import numpy as np
import pytest
from outlier_features.magnitude_bins import CELLS, cell_of
from outlier_features.metrics import spectra
from outlier_features.metrics.channel_blocks import channel_blocks


def true_pairs(size_TC: np.ndarray, size: int) -> np.ndarray:
    blocks = size_TC.reshape(len(size_TC), -1, size)
    largest = np.repeat(blocks.max(2), size)
    others = np.arange(size)[None, None] != blocks.argmax(2)[..., None]
    pairs_KJ = np.zeros((CELLS, CELLS))
    np.add.at(pairs_KJ, (cell_of(largest)[others.ravel()], cell_of(blocks.ravel())[others.ravel()]), 1)
    return pairs_KJ


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("kind", activations.KINDS)
def test_pairs_have_their_margins_and_are_near_the_true_ones(kind: str, size: int) -> None:
    size_TC = np.abs(activations.windows(kind, 1)[0][1:])
    magnitudes_K = kept_magnitudes.counts(size_TC)
    largest_K = kept_magnitudes.counts(kept_magnitudes.largest_of(size_TC, size))
    found = channel_blocks(size, magnitudes_K, largest_K, np.sqrt((size_TC**2).mean(0)))
    total = found.others_K.sum()
    assert np.abs(found.pairs_KJ.sum(0) - found.others_K).sum() < 1e-6 * total
    assert np.abs(found.pairs_KJ.sum(1) - largest_K * (size - 1)).sum() < 0.02 * total
    assert np.triu(found.pairs_KJ, 1).sum() == 0
    assert np.abs(found.pairs_KJ - true_pairs(size_TC, size)).sum() / 2 < 0.08 * total


def test_a_channel_far_above_its_neighbours_is_the_largest_of_its_block() -> None:
    rms_C = np.where(np.arange(64) == 5, 50.0, 1.0)
    found = channel_blocks(16, np.ones(CELLS), np.ones(CELLS), rms_C)
    at = int(spectra.place_of(np.array(40.0)))
    assert found.largest_share(5)[at] == pytest.approx(1, abs=1e-6)
    assert found.largest_share(6)[int(spectra.place_of(np.array(1.0)))] < 0.05
