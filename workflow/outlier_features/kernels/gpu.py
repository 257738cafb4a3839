"""GPU reduction: Triton kernels that read an activation once, and again only where something was found.

`moments` reads every value, and `spread` once more where magnitudes are counted; `finish` adds up what the programs of
`moments` left and looks for hits, for which it reads only the segments of a row whose largest magnitude can be one.
Medians of rows take another reading, the median of a hidden state two more, in float32 four. No sum is made with float
atomics, so the same input gives the same bits. Sums are float32 within a tile, where no value passes through more than
256 additions, and float64 beyond: within 256 float32 roundings of the exact one, relative to its sum of magnitudes. A
tile that holds a NaN, an infinity or a value whose fourth power is no float32 is summed again in float64.

Nothing here waits for the device. With TRITON_INTERPRET=1 in the environment before triton is imported the kernels run
on tensors in host memory.
"""

# Shapes: T position in a sequence, C channel, G value of a threshold grid, P program, S segment of a row.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import triton

from outlier_features.kernels import reference
from outlier_features.kernels.gpu_hits import Thresholds, finish
from outlier_features.kernels.gpu_medians import BINS, DIGIT, count_digit, massive, row_medians
from outlier_features.kernels.gpu_moments import moments
from outlier_features.kernels.gpu_record import MASSIVE_ROOM, Record
from outlier_features.kernels.gpu_spread import spread as count_magnitudes
from outlier_features.kernels.reference import ALIKE, FAINT, MASSIVE_FLOOR, MASSIVE_RATIO, ExpertSums, Grids, Reached
from outlier_features.thresholds import SMALLEST_RMS

EXPERT_ROWS = 4096
"""Rows of experts that are summed at once."""


@dataclass(frozen=True)
class Tiles:
    """How much of an activation one program works on: powers of two."""

    rows: int = 512
    """Rows of `moments`, at most; their float32 sums become float64."""
    step: int = 4
    """Rows that are in registers at once, one a warp."""
    bytes: int = 512
    """Channels of `moments` and `finish`, as bytes of a row: what a warp loads in two turns of 8 bytes a lane."""
    finish_rows: int = 16
    """Rows of `finish` and `massive`."""
    partials: int = 16
    """Tiles of `moments` whose sums a program of `finish` loads at once."""
    fill: int = 6
    """Programs of `moments` that there should be for each two processors of the device."""
    segment: int = 64
    """Channels whose largest magnitude is kept, so that `finish` need not read them."""
    batch: int = 32
    """Segments with hits that are worked on at once."""
    spread_rows: int = 16
    """Rows whose magnitudes are counted at once."""
    median_rows: int = 1
    """Rows whose medians are found at once; a row is in registers as a whole."""


INTERPRETED = Tiles(
    rows=256, step=256, bytes=4096, finish_rows=256, partials=64, fill=3, batch=4096, median_rows=256, spread_rows=256
)
"""Few large programs: what an interpreter is quickest at."""


@dataclass(frozen=True)
class _OnDevice:
    """A result on its way: its bytes on the device, as 8-byte numbers, and how to read them on the host."""

    content: torch.Tensor
    read: Callable[[np.ndarray], Any]


class CudaReduction:
    """Reduces activations on a GPU; results stay there until they are collected."""

    def __init__(self, device: torch.device, grids: Grids, tiles: Tiles | None = None) -> None:
        self._device, self._grids = device, grids
        self._is_gpu = device.type != "cpu"
        self._tiles = tiles or (Tiles() if self._is_gpu else INTERPRETED)

    def site(
        self,
        x_TC: torch.Tensor,
        reached: Reached | None = None,
        *,
        medians: bool = False,
        spread: bool = False,
        first: int = 1,
    ) -> _OnDevice:
        """Begin what `reference.reduce` does; sums agree with it to rounding, everything else exactly."""
        positions, channels = x_TC.shape
        if positions == 0:
            nothing = reference.nothing(channels, hits=reached is not None, medians=medians, spread=spread)
            return _OnDevice(self._empty(0), lambda _: nothing)
        if x_TC.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            x_TC = x_TC.float()
        if x_TC.stride(1) != 1:
            x_TC = x_TC.contiguous()
        levels = (0, 0) if reached is None else (len(self._grids.absolute), len(self._grids.relative))
        massive = max(1024, MASSIVE_ROOM * positions) if medians else 0
        record = Record(positions, channels, levels, massive, min(first, positions), spread)
        content = torch.zeros(record.size, dtype=torch.float64, device=self._device)
        real = content[record.wide :].view(torch.float32)
        self._reduce(x_TC, record, content, real, reached)
        if medians or spread:
            self._find_medians(x_TC, record, content, real)
        if spread:
            self._count_magnitudes(x_TC, record, real.view(torch.int32)[record.spread_at :])
        return _OnDevice(content, record.columns)

    def by_expert(self, x_RC: torch.Tensor, rows_S: torch.Tensor, experts_S: torch.Tensor, sums: ExpertSums) -> None:
        """Do what `reference.by_expert` does, a part of the rows at a time: they are widened to float64."""
        for rows, experts in zip(rows_S.split(EXPERT_ROWS), experts_S.split(EXPERT_ROWS), strict=True):
            reference.by_expert(x_RC, rows, experts, sums)

    def keep(self, values: torch.Tensor) -> _OnDevice:
        """Return values (N,) of any type that are kept as they are."""
        count, kind = len(values), torch.empty(0, dtype=values.dtype).numpy().dtype
        content = self._empty((values.nbytes + 7) // 8)
        content.view(values.dtype)[:count].copy_(values)
        return _OnDevice(content, lambda found: found.view(kind)[:count])

    def collect(self, found: Sequence[_OnDevice]) -> Callable[[], list]:
        """Begin one copy of all results to the host, while the device computes."""
        together = torch.cat([part.content for part in found]) if found else self._empty(0)
        arrived = self._copy(together) if self._is_gpu else together.numpy
        sizes = [part.content.numel() for part in found]

        def read() -> list:
            parts = np.split(arrived(), np.cumsum(sizes)[:-1])
            return [one.read(part) for one, part in zip(found, parts, strict=True)]

        return read

    def _copy(self, content: torch.Tensor) -> Callable[[], np.ndarray]:
        host = torch.empty(content.shape, dtype=content.dtype, pin_memory=True)
        self._beside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._beside):
            host.copy_(content, non_blocking=True)
            done = self._beside.record_event()
        content.record_stream(self._beside)

        def arrived() -> np.ndarray:
            done.synchronize()
            return host.numpy()

        return arrived

    @cached_property
    def _beside(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._device)

    def _reduce(
        self, x_TC: torch.Tensor, record: Record, content: torch.Tensor, real: torch.Tensor, reached: Reached | None
    ) -> None:
        tiles, (positions, channels) = self._tiles, x_TC.shape
        block = tiles.bytes // x_TC.itemsize
        blocks = triton.cdiv(channels, block)
        rows = self._rows(positions, blocks)
        row_tiles, finish_tiles = triton.cdiv(positions - record.first, rows), triton.cdiv(positions, tiles.finish_rows)
        programs, segments = (row_tiles + 1) * blocks, blocks * block // tiles.segment
        scratch = (
            self._empty(row_tiles * 3 * channels),
            self._empty(row_tiles * 2 * channels, torch.float32),
            self._empty(blocks * 4 * positions),
            self._empty(4 * programs),
            self._empty(positions * segments, torch.float32),
        )
        x, shape = (x_TC, x_TC.stride(0)), (positions, channels)
        moments[row_tiles + 1, blocks](
            *x, *scratch, *shape, record.first, rows,
            STEP=tiles.step, HALF=block // 2, SEGMENT=tiles.segment, num_warps=min(tiles.step, 8),
        )  # fmt: skip
        absolute, relative = self._thresholds
        levels = (reached.absolute_TC, reached.relative_TC) if reached is not None else (real, real)
        listed = finish_tiles * tiles.finish_rows * segments if reached is not None else 0
        finish[finish_tiles, blocks](
            *x, *scratch, self._empty(listed, torch.int32), content, real, real.view(torch.int32), *levels,
            absolute.values_G, relative.values_G, absolute.levels, relative.levels,
            *shape, record.first, row_tiles, len(absolute.values_G), len(relative.values_G),
            ROWS=tiles.finish_rows, BATCH=tiles.batch, SEGMENTS=triton.next_power_of_2(segments),
            PROGRAMS=triton.next_power_of_2(programs), COUNTING=reached is not None,
            REFINE=max(absolute.refine, relative.refine), SMALLEST=SMALLEST_RMS,
            ALIKE=ALIKE, FAINT=FAINT, BLOCK=block, SEGMENT=tiles.segment, PARTIALS=tiles.partials,
        )  # fmt: skip

    def _find_medians(self, x_TC: torch.Tensor, record: Record, content: torch.Tensor, real: torch.Tensor) -> None:
        tiles, (positions, channels) = self._tiles, x_TC.shape
        bits = 31 if x_TC.dtype == torch.float32 else 15
        digits = triton.cdiv(bits, DIGIT)
        counts = torch.zeros(digits, 2, BINS, dtype=torch.int32, device=self._device)
        x, shape = (x_TC, x_TC.stride(0)), (positions, channels)
        settings = {"BITS": bits, "DIGIT": DIGIT, "CHANNELS": triton.next_power_of_2(channels), "num_warps": 8}
        tiled = (triton.cdiv(positions, tiles.median_rows),)
        row_medians[tiled](*x, real, counts, *shape, record.first, ROWS=tiles.median_rows, **settings)
        if not record.massive:
            return
        for digit in range(1, digits):
            count_digit[tiled](*x, counts, *shape, LEVEL=digit, ROWS=tiles.median_rows, **settings)
        massive[(triton.cdiv(positions, tiles.finish_rows),)](
            *x, content, real, real.view(torch.int32), counts, *shape, record.first, record.narrow - 2 * record.massive,
            record.massive, ROWS=tiles.finish_rows, FLOOR=MASSIVE_FLOOR, RATIO=MASSIVE_RATIO, **settings,
        )  # fmt: skip

    def _count_magnitudes(self, x_TC: torch.Tensor, record: Record, counts: torch.Tensor) -> None:
        tiles, (positions, channels) = self._tiles, x_TC.shape
        block = max(32, tiles.bytes // x_TC.itemsize)
        grid = triton.cdiv(positions, tiles.spread_rows), triton.cdiv(channels, block)
        count_magnitudes[grid](
            x_TC, x_TC.stride(0), counts, positions, channels, record.first, ROWS=tiles.spread_rows, BLOCK=block
        )

    def _rows(self, positions: int, blocks: int) -> int:
        """Return the rows of a program of `moments`: fewer where there would be too few programs for the device."""
        most = self._tiles.rows
        while most > 16 and 2 * triton.cdiv(positions, most) * blocks < self._tiles.fill * self._processors:
            most //= 2
        return most

    @cached_property
    def _processors(self) -> int:
        return torch.cuda.get_device_properties(self._device).multi_processor_count if self._is_gpu else 1

    @cached_property
    def _thresholds(self) -> tuple["Thresholds", "Thresholds"]:
        absolute, relative = (
            Thresholds.of(values, self._device) for values in (self._grids.absolute, self._grids.relative)
        )
        return absolute, relative

    def _empty(self, size: int, kind: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(size, dtype=kind, device=self._device)
