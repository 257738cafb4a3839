"""What a capture keeps of the matrix inputs of a block, in float64 NumPy from the definition of each column."""

# Shapes: S window, T row of a window, C channel.

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from outlier_features.magnitude_bins import CELLS, cell_of
from outlier_features.statistics.schemas import BLOCK_SCHEMA
from outlier_features.statistics.shards import BlockTable


def counts(magnitudes: np.ndarray) -> np.ndarray:
    return np.bincount(cell_of(magnitudes).ravel(), minlength=CELLS).astype(np.int32)


def largest_of(magnitudes_TC: np.ndarray, size: int) -> np.ndarray:
    starts = np.arange(0, magnitudes_TC.shape[1], size)
    return np.maximum.reduceat(magnitudes_TC, starts, axis=1)


def row(block: int, site: str, window: int, x_TC: np.ndarray, first_rows: int = 1) -> dict:
    """Return the columns of one window that predictions read."""
    x = x_TC.astype(np.float32).astype(np.float64)
    first, rest, size = x[:first_rows], x[first_rows:], np.abs(x)
    spreads = {"magnitudes": size, "block16": largest_of(size, 16), "block32": largest_of(size, 32)}
    with np.errstate(divide="ignore", invalid="ignore"):
        mmr_T = (size.max(1) / np.median(size, axis=1)).astype(np.float32)
    found = {
        "block": block, "site": site, "window": window, "first_rows": first_rows, "first": first.ravel(),
        "max": rest.max(0, initial=-np.inf), "min": rest.min(0, initial=np.inf),
        "sum": rest.sum(0), "sum_2": (rest**2).sum(0),
        "rms": np.sqrt((x**2).mean()), "position_max_abs": size.max(1), "position_channel": size.argmax(1),
        "position_rms": np.sqrt((x**2).mean(1)), "mmr": mmr_T,
    }  # fmt: skip
    for name, values in spreads.items():
        found[f"{name}_first"], found[f"{name}_rest"] = counts(values[:first_rows]), counts(values[first_rows:])
    return {name: np.asarray(value).tolist() for name, value in found.items()}


class Kept:
    """Statistics of blocks, given the windows of each of their sites."""

    def __init__(
        self, blocks: Sequence[Mapping[str, Sequence[np.ndarray]]], first_rows: Mapping[str, int] = {}
    ) -> None:
        windows = len(next(iter(blocks[0].values())))
        self.facts = {"windows": list(range(windows)), "blocks": len(blocks)}
        self.blocks, self.sequences = len(blocks), windows
        self._rows = [
            [
                row(b, site, s, x, (first_rows or {}).get(site, 1))
                for site, x_STC in sites.items()
                for s, x in enumerate(x_STC)
            ]
            for b, sites in enumerate(blocks)
        ]

    def add(self, block: int, **columns: object) -> None:
        """Add a row to a block, such as one of its router."""
        self._rows[block].append({"block": block} | columns)

    def without(self, *columns: str) -> "Kept":
        """Return what a capture that did not keep some columns has."""
        other = object.__new__(Kept)
        other.__dict__ |= self.__dict__
        other._rows = [[{k: v for k, v in each.items() if k not in columns} for each in rows] for rows in self._rows]
        return other

    def block(self, index: int) -> BlockTable:
        return BlockTable(pa.Table.from_pylist(self._rows[index], BLOCK_SCHEMA), self)


def statistics(**sites: Sequence[np.ndarray]) -> Kept:
    """Return the statistics of one block."""
    return Kept([sites])
