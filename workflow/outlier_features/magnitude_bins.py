"""Magnitude bins: the half octaves in which magnitudes are counted, and how a count is read off the bits of a float.

Edges are 2^k and 1.5 x 2^k for k = -20 ... 16: what the exponent of a float32 and the first bit of its mantissa say.
"""

import numpy as np

FIRST_EXPONENT, LAST_EXPONENT = -20, 16
EDGES = np.array([side * 2.0**k for k in range(FIRST_EXPONENT, LAST_EXPONENT + 1) for side in (1.0, 1.5)])
"""The edges, ascending (74,)."""
CELLS = len(EDGES) + 2
"""Counts: of zeros, of what lies below the first edge, between each two edges, and from the last edge up."""
SPREADS = ("magnitudes", "block16", "block32")
"""What is counted: every |x|, and the largest of every 16 and of every 32 neighbouring channels (the last may be
fewer)."""
BITS = 22
"""The bits of a float32 magnitude below those that tell its half octave."""
HALF_OCTAVES = 1 << (31 - BITS)
"""Half octaves that the bits of a float32 magnitude can tell."""
FIRST_KEY = (127 + FIRST_EXPONENT) << 1
"""The half octave that begins at the first edge."""


def cells(counts: np.ndarray, zeros: int) -> np.ndarray:
    """Return the counts of the cells (CELLS,) int32 from those of all half octaves (HALF_OCTAVES,).

    `zeros` of them are zeros, which share their half octave with the smallest subnormals.
    """
    folded = np.zeros(CELLS, np.int32)
    last = FIRST_KEY + len(EDGES) - 1
    folded[0] = zeros
    folded[1] = counts[:FIRST_KEY].sum() - zeros
    folded[2:-1] = counts[FIRST_KEY:last]
    folded[-1] = counts[last:].sum()
    return folded


def cell_of(magnitudes: np.ndarray) -> np.ndarray:
    """Return the cell of each magnitude: 0 for zeros, else 1 plus the edges it reaches."""
    return np.where(magnitudes == 0, 0, 1 + np.searchsorted(EDGES, magnitudes, side="right"))
