"""Lists of unequal length as one rectangular array, for windows that are not all equally long."""

# Shapes: S list (window), T entry (position).

import numpy as np
import pyarrow as pa
import pyarrow.compute


def rectangle(lists: pa.ChunkedArray, fill: float) -> np.ndarray:
    """Return a column of lists as an array (S, T), T the longest; what a shorter list lacks is `fill`."""
    whole = lists.combine_chunks()
    values = whole.flatten().to_numpy()
    length_S = pyarrow.compute.list_value_length(whole).to_numpy()
    filled_ST = np.full((len(length_S), length_S.max(initial=0)), fill, values.dtype)
    filled_ST[np.arange(filled_ST.shape[1]) < length_S[:, None]] = values
    return filled_ST
