"""Magnitude bins: the cell of a magnitude, by its bits and by a search, is that of the definition."""

import numpy as np
from outlier_features.magnitude_bins import BITS, CELLS, EDGES, HALF_OCTAVES, cell_of, cells


def test_edges_are_two_an_octave_from_minus_20_to_16() -> None:
    assert len(EDGES) == 74
    assert (EDGES[0], EDGES[1], EDGES[2], EDGES[-1]) == (2.0**-20, 1.5 * 2.0**-20, 2.0**-19, 1.5 * 2.0**16)
    assert (np.diff(EDGES) > 0).all()


def test_the_cell_of_a_magnitude_is_told_by_its_bits() -> None:
    around = np.float32(np.concatenate([EDGES, np.nextafter(EDGES, 0, dtype=np.float32), [0, 1e-45, 1e-38, 3e38]]))
    keys = around.view(np.uint32) >> BITS
    for magnitude, key in zip(around, keys, strict=True):
        counts = np.zeros(HALF_OCTAVES, np.int64)
        counts[key] = 1
        found = cells(counts, zeros=int(magnitude == 0))
        assert found.sum() == 1
        assert found.argmax() == cell_of(np.float64(magnitude)), magnitude


def test_zeros_what_lies_below_and_what_lies_above_are_apart() -> None:
    assert cell_of(np.array([0.0, 1e-9, 2.0**-20, 1.4, 1.5, 2.0, 98304.0, 1e9])).tolist() == [
        0, 1, 2, 42, 43, 44, CELLS - 1, CELLS - 1,
    ]  # fmt: skip
