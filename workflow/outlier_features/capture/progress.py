"""Progress: how far a capture is, as a bar and a line a block, and where its time went."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from outlier_features.statistics.timings import Timings, progress_line


class Progress:
    """The progress of a capture from its first block to its last."""

    def __init__(self, blocks: int, windows: int, first: int, timings: list[dict[str, Any]]) -> None:
        """Begin at block `first`; `timings` are those of the blocks before, which an earlier run has finished."""
        self._blocks, self._first = blocks, first
        self._bar = tqdm(total=blocks * windows, initial=first * windows, desc="capture", unit="window", mininterval=2)
        self.began = time.perf_counter()
        self.timings = Timings(rows=timings)

    def step(self) -> None:
        """Count a window that has passed a block."""
        self._bar.update()

    def say(self, row: Mapping[str, Any]) -> None:
        """Write a line about a finished block, with the time left."""
        block = row["block"]
        left = (time.perf_counter() - self.began) / (block + 1 - self._first) * (self._blocks - block - 1)
        tqdm.write(progress_line(row, self._blocks, left), file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
