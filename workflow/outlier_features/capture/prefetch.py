"""Prefetch: the next block's weights are read, converted and brought to the device while the present one computes."""

import os
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from outlier_features.models.weights import Weights

READERS = 4
"""Threads that read a block's bytes; the ranges of several files, or of one, are shared out among them."""
PIECE = 8 << 20


@dataclass(frozen=True)
class Reading:
    """How a block's weights came: bytes, seconds in the background, and seconds the pass stood still for them."""

    bytes: int
    seconds: float
    waited: float


@dataclass(frozen=True)
class _Block:
    tensors: dict[str, torch.Tensor]
    bytes: int
    seconds: float
    ready: "torch.cuda.Event | None"


class Prefetch:
    """Reads one block ahead, on a thread of its own; at most two blocks exist at a time."""

    def __init__(self, weights: Weights, first: int) -> None:
        """Begin with block `first`."""
        self._weights = weights
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._readers = ThreadPoolExecutor(READERS, "read")
        self._stream = torch.cuda.Stream(weights.device) if weights.device.type == "cuda" else None
        self._next: Future[_Block] | None = None
        self._start(first)

    def take(self, block: int) -> tuple[dict[str, torch.Tensor], Reading]:
        """Return the tensors of `block`, the one begun last, and begin the next."""
        start = time.perf_counter()
        assert self._next is not None
        found = self._next.result()
        if found.ready is not None:
            present = torch.cuda.current_stream(self._weights.device)
            found.ready.wait(present)
            for tensor in found.tensors.values():
                tensor.record_stream(present)  # their memory is not given to the next block while this one computes
        waited = time.perf_counter() - start
        self._start(block + 1)
        return found.tensors, Reading(found.bytes, found.seconds, waited)

    def close(self) -> None:
        """Wait for the threads; what was begun and not taken is dropped."""
        self._thread.shutdown(cancel_futures=True)
        self._readers.shutdown()

    def _start(self, block: int) -> None:
        exists = block < len(self._weights.blocks)
        self._next = self._thread.submit(self._read, block) if exists else None

    def _read(self, block: int) -> _Block:
        start = time.perf_counter()
        size = self._page_in(self._weights.ranges(block))
        if self._stream is None:
            tensors, ready = self._weights.read(block), None
        else:
            with torch.cuda.stream(self._stream):  # copies and conversions overlap what computes
                tensors = self._weights.read(block)
                ready = self._stream.record_event()
        return _Block(tensors, size, time.perf_counter() - start, ready)

    def _page_in(self, ranges: Iterable[tuple[Path, int, int]]) -> int:
        """Bring ranges of files into the page cache, from which the tensors are then mapped; return their bytes.

        A mapping alone would read page by page, and only when the forward pass asks for it.
        """
        pieces = [(p, at, min(end, at + PIECE)) for p, start, end in ranges for at in range(start, end, PIECE)]
        return sum(self._readers.map(_touch, pieces))


def _touch(piece: tuple[Path, int, int]) -> int:
    path, start, end = piece
    handle = os.open(path, os.O_RDONLY)
    try:
        return len(os.pread(handle, end - start, start))
    finally:
        os.close(handle)
