"""Lists of unequal length as one array: what a shorter list lacks is the fill."""

import numpy as np
import pyarrow as pa
from outlier_features.artefacts.ragged import rectangle


def test_shorter_lists_are_filled_at_their_end() -> None:
    lists = pa.chunked_array([[[1, 2, 3], []], [[4]]], pa.list_(pa.int32()))
    found = rectangle(lists, -1)
    assert found.tolist() == [[1, 2, 3], [-1, -1, -1], [4, -1, -1]]
    assert found.dtype == np.int32


def test_a_slice_of_a_column_has_its_own_lists_only() -> None:
    lists = pa.chunked_array([[[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]], pa.list_(pa.float32())).slice(1, 1)
    assert rectangle(lists, 0).tolist() == [[3.0]]


def test_no_list_is_an_array_without_rows() -> None:
    assert rectangle(pa.chunked_array([], pa.list_(pa.int32())), 0).shape == (0, 0)
