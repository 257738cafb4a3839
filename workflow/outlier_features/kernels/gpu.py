"""The reduction on a GPU: Triton kernels that read an activation once, and again only where something was found.

`_moments` reads every value; `_finish` adds up what its programs left and looks for hits, for which it reads only the
segments of a row whose largest magnitude can be one. The medians of a hidden state take two more readings, in float32
four. No sum is made with float atomics, so the same input gives the same bits. Sums are float32 within a tile, where
no value passes through more than 256 additions, and float64 beyond: within 256 float32 roundings of the exact one,
relative to its sum of magnitudes. A tile that holds a NaN, an infinity or a value whose fourth power is no float32 is
summed again in float64.

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
import triton.language as tl

from outlier_features.errors import ConfigError
from outlier_features.kernels import reference
from outlier_features.kernels.cpu import filled
from outlier_features.kernels.reference import ALIKE, FAINT, MASSIVE_FLOOR, MASSIVE_RATIO, Columns, Grids, Reached
from outlier_features.thresholds import SMALLEST_RMS

MASSIVE_ROOM = 8
"""Massive activations that are kept, as a multiple of the number of positions; published models have a handful."""
_DIGIT = 8  # bits of a magnitude that one pass of the tensor's median decides
_BINS = 1 << _DIGIT
_NONE = tl.constexpr(0x7FFFFFFF)  # stands for no magnitude


@dataclass(frozen=True)
class Tiles:
    """How much of an activation one program works on: powers of two."""

    rows: int = 512
    """Rows of `_moments`, at most; their float32 sums become float64."""
    step: int = 4
    """Rows that are in registers at once, one a warp."""
    bytes: int = 512
    """Channels of `_moments` and `_finish`, as bytes of a row: what a warp loads in two turns of 8 bytes a lane."""
    finish_rows: int = 16
    """Rows of `_finish` and `_massive`."""
    partials: int = 16
    """Tiles of `_moments` whose sums a program of `_finish` loads at once."""
    fill: int = 6
    """Programs of `_moments` that there should be for each two processors of the device."""
    segment: int = 64
    """Channels whose largest magnitude is kept, so that `_finish` need not read them."""
    batch: int = 32
    """Segments with hits that are worked on at once."""
    median_rows: int = 1
    """Rows whose medians are found at once; a row is in registers as a whole."""


INTERPRETED = Tiles(rows=256, step=256, bytes=4096, finish_rows=256, partials=64, fill=3, batch=4096, median_rows=256)
"""Few large programs: what an interpreter is quickest at."""


@dataclass(frozen=True)
class Record:
    """Where the results of one site tensor lie, in 8 bytes and behind them in 4 bytes a number."""

    positions: int
    channels: int
    levels: tuple[int, int] = (0, 0)
    """Thresholds of the absolute and of the relative grid; 0 where hits are not counted."""
    massive: int = 0
    """Room for massive activations; 0 without medians."""

    @property
    def wide(self) -> int:
        """Numbers of 8 bytes: sums of x, x^2, x^4 a channel, sum of x^3, RMS, median."""
        return 3 * self.channels + 3

    @property
    def narrow(self) -> int:
        """Numbers of 4 bytes."""
        return 3 * self.channels + 5 * self.positions + 3 + self.channels * sum(self.levels) + 2 * self.massive

    @property
    def size(self) -> int:
        """Numbers of 8 bytes that hold everything."""
        return self.wide + (self.narrow + 1) // 2

    def columns(self, content: np.ndarray) -> Columns:
        """Return what the kernels wrote (float64, of this size) by the names of a shard."""
        positions, channels = self.positions, self.channels
        real = content[self.wide :].view(np.float32)[: self.narrow]
        whole = real.view(np.int32)
        sum_C, sum_2_C, sum_4_C = content[: 3 * channels].reshape(3, channels)
        first_C, max_C, min_C = real[: 3 * channels].reshape(3, channels)
        of_T = slice(3 * channels, 3 * channels + 5 * positions)
        max_abs_T, rms_T, kurtosis_T, mmr_T, _ = real[of_T].reshape(5, positions)
        rest = whole[of_T.stop :]
        found: Columns = {
            "first": first_C,
            "max": max_C,
            "min": min_C,
            "sum": sum_C,
            "sum_2": sum_2_C,
            "sum_4": sum_4_C,
            "sum_3": float(content[3 * channels]),
            "rms": float(content[3 * channels + 1]),
            "position_max_abs": max_abs_T,
            "position_channel": whole[of_T].reshape(5, positions)[4],
            "position_rms": rms_T,
            "position_kurtosis": kurtosis_T,
            "nan_count": int(rest[0]),
            "inf_count": int(rest[1]),
        }
        if any(self.levels):
            absolute, relative = (channels * levels for levels in self.levels)
            counts = rest[3 : 3 + absolute], rest[3 + absolute : 3 + absolute + relative]
            tables = (count.reshape(channels, -1) for count in counts)
            found |= reference.hit_columns(*(filled(table) for table in tables))
        if self.massive:
            found |= {"median_abs": float(content[3 * channels + 2]), "mmr": mmr_T}
            found |= self._massive(rest[-2 * self.massive :], int(rest[2]))
        return found

    def _massive(self, listed: np.ndarray, count: int) -> Columns:
        if count > self.massive:
            raise ConfigError(
                f"a hidden state of {self.positions} positions has {count} massive activations, more than the "
                f"{self.massive} there is room for on a GPU; leave residual out of capture.sites, or capture on a CPU."
            )
        place, value = listed[: self.massive][:count], listed[self.massive :].view(np.float32)[:count]
        order = np.lexsort((place, -np.abs(value)))  # programs came to the list in any order
        position, channel = np.divmod(place[order], self.channels)
        return {
            "massive_position": position.astype(np.int32),
            "massive_channel": channel.astype(np.int32),
            "massive_value": value[order],
        }


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

    def site(self, x_TC: torch.Tensor, reached: Reached | None = None, *, medians: bool = False) -> _OnDevice:
        """Begin what `statistics.reduce` does; extremes, medians and hits agree with it exactly, sums to rounding."""
        positions, channels = x_TC.shape
        if positions == 0:
            nothing = reference.nothing(channels, hits=reached is not None, medians=medians)
            return _OnDevice(self._empty(0), lambda _: nothing)
        if x_TC.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            x_TC = x_TC.float()
        if x_TC.stride(1) != 1:
            x_TC = x_TC.contiguous()
        levels = (0, 0) if reached is None else (len(self._grids.absolute), len(self._grids.relative))
        record = Record(positions, channels, levels, max(1024, MASSIVE_ROOM * positions) if medians else 0)
        content = torch.zeros(record.size, dtype=torch.float64, device=self._device)
        real = content[record.wide :].view(torch.float32)
        self._reduce(x_TC, record, content, real, reached)
        if medians:
            self._find_medians(x_TC, record, content, real)
        return _OnDevice(content, record.columns)

    def keep(self, values: torch.Tensor) -> _OnDevice:
        """Return values (N,) of any type that are kept as they are."""
        count, kind = len(values), torch.empty(0, dtype=values.dtype).numpy().dtype
        content = self._empty((values.nbytes + 7) // 8)
        content.view(values.dtype)[:count].copy_(values)
        return _OnDevice(content, lambda found: found.view(kind)[:count])

    def collect(self, found: Sequence[_OnDevice]) -> Callable[[], list]:
        """Begin one copy of all results to the host, beside what the device does next."""
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
        row_tiles, finish_tiles = triton.cdiv(positions - 1, rows), triton.cdiv(positions, tiles.finish_rows)
        programs, segments = (row_tiles + 1) * blocks, blocks * block // tiles.segment
        scratch = (
            self._empty(row_tiles * 3 * channels),
            self._empty(row_tiles * 2 * channels, torch.float32),
            self._empty(blocks * 4 * positions),
            self._empty(4 * programs),
            self._empty(positions * segments, torch.float32),
        )
        x, shape = (x_TC, x_TC.stride(0)), (positions, channels)
        _moments[row_tiles + 1, blocks](
            *x, *scratch, *shape, rows,
            STEP=tiles.step, HALF=block // 2, SEGMENT=tiles.segment, num_warps=min(tiles.step, 8),
        )  # fmt: skip
        absolute, relative = self._thresholds
        levels = (reached.absolute_TC, reached.relative_TC) if reached is not None else (real, real)
        listed = finish_tiles * tiles.finish_rows * segments if reached is not None else 0
        _finish[finish_tiles, blocks](
            *x, *scratch, self._empty(listed, torch.int32), content, real, real.view(torch.int32), *levels,
            absolute.values_G, relative.values_G, absolute.levels, relative.levels,
            *shape, row_tiles, len(absolute.values_G), len(relative.values_G),
            ROWS=tiles.finish_rows, BATCH=tiles.batch, SEGMENTS=triton.next_power_of_2(segments),
            PROGRAMS=triton.next_power_of_2(programs), COUNTING=reached is not None,
            REFINE=max(absolute.refine, relative.refine), SMALLEST=SMALLEST_RMS,
            ALIKE=ALIKE, FAINT=FAINT, BLOCK=block, SEGMENT=tiles.segment, PARTIALS=tiles.partials,
        )  # fmt: skip

    def _find_medians(self, x_TC: torch.Tensor, record: Record, content: torch.Tensor, real: torch.Tensor) -> None:
        tiles, (positions, channels) = self._tiles, x_TC.shape
        bits = 31 if x_TC.dtype == torch.float32 else 15
        digits = triton.cdiv(bits, _DIGIT)
        counts = torch.zeros(digits, 2, _BINS, dtype=torch.int32, device=self._device)
        x, shape = (x_TC, x_TC.stride(0)), (positions, channels)
        settings = {"BITS": bits, "DIGIT": _DIGIT, "CHANNELS": triton.next_power_of_2(channels), "num_warps": 8}
        tiled = (triton.cdiv(positions, tiles.median_rows),)
        _row_medians[tiled](*x, real, counts, *shape, ROWS=tiles.median_rows, **settings)
        for digit in range(1, digits):
            _count_digit[tiled](*x, counts, *shape, LEVEL=digit, ROWS=tiles.median_rows, **settings)
        _massive[(triton.cdiv(positions, tiles.finish_rows),)](
            *x, content, real, real.view(torch.int32), counts, *shape, record.narrow - 2 * record.massive,
            record.massive, ROWS=tiles.finish_rows, FLOOR=MASSIVE_FLOOR, RATIO=MASSIVE_RATIO, **settings,
        )  # fmt: skip

    def _rows(self, positions: int, blocks: int) -> int:
        """Return the rows of a program of `_moments`: fewer where there would be too few programs for the device."""
        most = self._tiles.rows
        while most > 16 and 2 * triton.cdiv(positions, most) * blocks < self._tiles.fill * self._processors:
            most //= 2
        return most

    @cached_property
    def _processors(self) -> int:
        return torch.cuda.get_device_properties(self._device).multi_processor_count if self._is_gpu else 1

    @cached_property
    def _thresholds(self) -> tuple["_Thresholds", "_Thresholds"]:
        absolute, relative = (
            _Thresholds.of(values, self._device) for values in (self._grids.absolute, self._grids.relative)
        )
        return absolute, relative

    def _empty(self, size: int, kind: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(size, dtype=kind, device=self._device)


@dataclass(frozen=True)
class _Thresholds:
    """A grid on the device, and what finds the level of a magnitude in it without a search."""

    values_G: torch.Tensor
    levels: torch.Tensor
    """For the upper half of every float32 magnitude, how many thresholds the smallest such value reaches."""
    refine: int
    """How many further thresholds a value of the same upper half can reach."""

    @classmethod
    def of(cls, values: Sequence[float], device: torch.device) -> "_Thresholds":
        upper = np.arange(1 << 15, dtype=np.uint32) << 16
        smallest = np.where(upper < 0x7F800000, upper, 0x7F800000).astype(np.uint32).view(np.float32)
        levels = np.searchsorted(np.array(values, np.float32), smallest, side="right")
        table = torch.from_numpy(levels.astype(np.uint8)).to(device)
        return cls(torch.tensor(values, dtype=torch.float32, device=device), table, int(np.diff(levels).max()))


@triton.jit
def _moments(
    x, stride, sums_C, extremes_C, sums_T, totals_P, largest_TS, positions, channels, rows,
    STEP: tl.constexpr, HALF: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """Leave sums and extremes of a tile of rows and channels; the last program along T has position 0 alone.

    A tile is worked on in two halves, each as wide as what a warp loads at once: a row is then in one warp, whose lanes
    add up two values of it before they add up among themselves.
    """
    tile, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    is_first = tile == tl.num_programs(0) - 1
    start = tl.where(is_first, 0, 1 + tile * rows)
    stop = tl.where(is_first, 1, tl.minimum(1 + (tile + 1) * rows, positions))
    left = block * 2 * HALF + tl.arange(0, HALF)
    right = left + HALF
    sums_T += block.to(tl.int64) * 4 * positions
    zero = tl.zeros((STEP, HALF), tl.float32)
    high, low = zero - float("inf"), zero + float("inf")
    a1, a2, a4, a_high, a_low = zero, zero, zero, high, low
    b1, b2, b4, b_high, b_low = zero, zero, zero, high, low
    cubes = zero
    whole = start + (stop - start) // STEP * STEP
    for first in range(start, whole, STEP):
        a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes = _add_rows(
            x, stride, first, stop, left, right, sums_T, largest_TS, positions, channels,
            a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes, STEP, HALF, SEGMENT, False,
        )  # fmt: skip
    if whole < stop:
        a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes = _add_rows(
            x, stride, whole, stop, left, right, sums_T, largest_TS, positions, channels,
            a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes, STEP, HALF, SEGMENT, True,
        )  # fmt: skip
    total_2 = tl.sum(tl.sum(a2 + b2, 1), 0).to(tl.float64)
    total_3 = tl.sum(tl.sum(cubes, 1), 0).to(tl.float64)
    nan, inf = tl.full((), 0, tl.int32), tl.full((), 0, tl.int32)
    sums, extremes = sums_C + tile * 3 * channels, extremes_C + tile * 2 * channels
    if tl.sum(tl.sum(a4 + b4, 1), 0) < float("inf"):
        _store_channels(sums, extremes, left, is_first, channels, a1, a2, a4, a_high, a_low)
        _store_channels(sums, extremes, right, is_first, channels, b1, b2, b4, b_high, b_low)
    else:
        total_2, total_3, nan, inf = _sum_rows_wide(
            x, stride, start, stop, left, right, sums_T, largest_TS, positions, channels, STEP, HALF, SEGMENT
        )
        for segment in range(2 * HALF // SEGMENT):
            c = block * 2 * HALF + segment * SEGMENT + tl.arange(0, SEGMENT)
            _sum_channels_wide(x, stride, start, stop, c, is_first, sums, extremes, channels, STEP, SEGMENT)
    programs = tl.num_programs(0) * tl.num_programs(1)
    totals = totals_P + tile * tl.num_programs(1) + block
    tl.store(totals, total_2)
    tl.store(totals + programs, total_3)
    tl.store(totals + 2 * programs, nan.to(tl.float64))
    tl.store(totals + 3 * programs, inf.to(tl.float64))


@triton.jit
def _add_rows(
    x, stride, first, stop, left, right, sums_T, largest_TS, positions, channels,
    a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes,
    STEP: tl.constexpr, HALF: tl.constexpr, SEGMENT: tl.constexpr, IS_LAST: tl.constexpr,
):  # fmt: skip
    """Add STEP rows to what is kept per channel in float32, and store what is kept of each row."""
    t = first + tl.arange(0, STEP)
    is_row = t < stop
    a = _load(x, stride, t, is_row, left, channels, IS_LAST)
    b = _load(x, stride, t, is_row, right, channels, IS_LAST)
    _store_largest(tl.abs(a), tl.abs(b), t, is_row, largest_TS, STEP, HALF, SEGMENT)
    a_square, b_square = a * a, b * b
    _store_sums(sums_T, t, is_row, a + b, a_square + b_square, tl.fma(a_square, a_square, b_square * b_square))
    cubes = tl.fma(a_square, a, tl.fma(b_square, b, cubes))
    a1, a2, a4 = a1 + a, a2 + a_square, tl.fma(a_square, a_square, a4)
    b1, b2, b4 = b1 + b, b2 + b_square, tl.fma(b_square, b_square, b4)
    if IS_LAST:
        a_high = tl.maximum(a_high, tl.where(is_row[:, None], a, -float("inf")))
        b_high = tl.maximum(b_high, tl.where(is_row[:, None], b, -float("inf")))
        a_low = tl.minimum(a_low, tl.where(is_row[:, None], a, float("inf")))
        b_low = tl.minimum(b_low, tl.where(is_row[:, None], b, float("inf")))
    else:
        a_high, a_low = tl.maximum(a_high, a), tl.minimum(a_low, a)
        b_high, b_low = tl.maximum(b_high, b), tl.minimum(b_low, b)
    return a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes


@triton.jit
def _load(x, stride, t, is_row, c, channels, IS_LAST: tl.constexpr = True):
    """Return rows as float32, 0 where there is no value; without IS_LAST there are STEP rows."""
    mask = (c < channels)[None, :]
    if IS_LAST:
        mask = mask & is_row[:, None]
    return tl.load(x + t[:, None] * stride + c[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store_sums(sums_T, t, is_row, value, square, fourth):
    """Store the sums of rows in float64, in one piece: a store has its price however small it is."""
    sum_2 = tl.sum(square, 1)
    sums = tl.join(tl.join(tl.sum(value, 1), sum_2), tl.join(tl.sum(fourth, 1), sum_2))  # the last is not read
    pair = tl.arange(0, 2)
    at = t[:, None, None] * 4 + pair[None, :, None] + 2 * pair[None, None, :]
    tl.store(sums_T + at, sums.to(tl.float64), mask=is_row[:, None, None])


@triton.jit
def _store_channels(sums, extremes, c, is_first, channels, value, square, fourth, high, low):
    """Store what is kept per channel of a tile, which position 0 is no part of."""
    mask = (c < channels) & (not is_first)
    tl.store(sums + c, tl.sum(value, 0).to(tl.float64), mask=mask)
    tl.store(sums + channels + c, tl.sum(square, 0).to(tl.float64), mask=mask)
    tl.store(sums + 2 * channels + c, tl.sum(fourth, 0).to(tl.float64), mask=mask)
    tl.store(extremes + c, tl.max(high, 0), mask=mask)
    tl.store(extremes + channels + c, tl.min(low, 0), mask=mask)


@triton.jit
def _sum_rows_wide(
    x, stride, start, stop, left, right, sums_T, largest_TS, positions, channels,
    STEP: tl.constexpr, HALF: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """Store what is kept of rows, summed in float64; return the sums of x^2 and x^3, and how many NaN and inf."""
    total_2, total_3 = tl.full((), 0, tl.float64), tl.full((), 0, tl.float64)
    nan, inf = tl.full((), 0, tl.int32), tl.full((), 0, tl.int32)
    for first in range(start, stop, STEP):
        t = first + tl.arange(0, STEP)
        is_row = t < stop
        raw_a, raw_b = _load(x, stride, t, is_row, left, channels), _load(x, stride, t, is_row, right, channels)
        nan += _how_many(raw_a != raw_a) + _how_many(raw_b != raw_b)
        inf += _how_many(tl.abs(raw_a) == float("inf")) + _how_many(tl.abs(raw_b) == float("inf"))
        a, b = _finite(raw_a), _finite(raw_b)
        _store_largest(tl.abs(a), tl.abs(b), t, is_row, largest_TS, STEP, HALF, SEGMENT)
        a_wide, b_wide = a.to(tl.float64), b.to(tl.float64)
        a_square, b_square = a_wide * a_wide, b_wide * b_wide
        fourth = a_square * a_square + b_square * b_square
        _store_sums(sums_T, t, is_row, a_wide + b_wide, a_square + b_square, fourth)
        total_2 += tl.sum(tl.sum(a_square + b_square, 1), 0)
        total_3 += tl.sum(tl.sum(a_square * a_wide + b_square * b_wide, 1), 0)
    return total_2, total_3, nan, inf


@triton.jit
def _sum_channels_wide(
    x, stride, start, stop, c, is_first, sums, extremes, channels, STEP: tl.constexpr, SEGMENT: tl.constexpr
):  # fmt: skip
    """Store what is kept of a segment's channels, summed in float64."""
    sum_1, sum_2 = tl.zeros((STEP, SEGMENT), tl.float64), tl.zeros((STEP, SEGMENT), tl.float64)
    sum_4, zero = tl.zeros((STEP, SEGMENT), tl.float64), tl.zeros((STEP, SEGMENT), tl.float32)
    high, low = zero - float("inf"), zero + float("inf")
    for first in range(start, stop, STEP):
        t = first + tl.arange(0, STEP)
        is_row = t < stop
        value = _finite(_load(x, stride, t, is_row, c, channels))
        square = value.to(tl.float64) * value.to(tl.float64)
        sum_1, sum_2, sum_4 = sum_1 + value.to(tl.float64), sum_2 + square, sum_4 + square * square
        high = tl.maximum(high, tl.where(is_row[:, None], value, -float("inf")))
        low = tl.minimum(low, tl.where(is_row[:, None], value, float("inf")))
    _store_channels(sums, extremes, c, is_first, channels, sum_1, sum_2, sum_4, high, low)


@triton.jit
def _how_many(mask):
    return tl.sum(tl.sum(mask.to(tl.int32), 1), 0)


@triton.jit
def _store_largest(a, b, t, is_row, largest_TS, STEP: tl.constexpr, HALF: tl.constexpr, SEGMENT: tl.constexpr):
    """Store the largest magnitude of every segment of these rows."""
    OF_HALF: tl.constexpr = HALF // SEGMENT
    of_a = tl.max(tl.reshape(a, (STEP, OF_HALF, SEGMENT)), 2)
    of_b = tl.max(tl.reshape(b, (STEP, OF_HALF, SEGMENT)), 2)
    s = (tl.program_id(1) * 2 * OF_HALF + tl.arange(0, OF_HALF))[None, :, None] + OF_HALF * tl.arange(0, 2)[
        None, None, :
    ]
    at = t[:, None, None] * (tl.num_programs(1) * 2 * OF_HALF) + s
    tl.store(largest_TS + at, tl.join(of_a, of_b), mask=is_row[:, None, None])


@triton.jit
def _finite(value):
    """Return values (float32) with NaN and infinity read as 0."""
    return tl.where(tl.abs(value) < float("inf"), value, 0.0)


@triton.jit
def _finish(
    x, stride, sums_C, extremes_C, sums_T, totals_P, largest_TS, wanted, content, real, whole,
    absolute_TC, relative_TC, absolute_G, relative_G, absolute_levels, relative_levels,
    positions, channels, row_tiles, absolutes, relatives,
    ROWS: tl.constexpr, BATCH: tl.constexpr, SEGMENTS: tl.constexpr, PROGRAMS: tl.constexpr, COUNTING: tl.constexpr,
    REFINE: tl.constexpr, SMALLEST: tl.constexpr, ALIKE: tl.constexpr, FAINT: tl.constexpr,
    BLOCK: tl.constexpr, SEGMENT: tl.constexpr, PARTIALS: tl.constexpr,
):  # fmt: skip
    """Add up what `_moments` left, and count hits where a segment's largest magnitude says that there are any."""
    tile, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    programs = (row_tiles + 1) * tl.num_programs(1)
    total_2 = _total(totals_P, programs, PROGRAMS)
    rms = tl.sqrt(total_2 / (tl.cast(positions, tl.float64) * channels))
    narrow = 3 * channels + 5 * positions
    if (tile == 0) & (block == 0):
        tl.store(content + 3 * channels, _total(totals_P + programs, programs, PROGRAMS))
        tl.store(content + 3 * channels + 1, rms)
        tl.store(whole + narrow, _total(totals_P + 2 * programs, programs, PROGRAMS).to(tl.int32))
        tl.store(whole + narrow + 1, _total(totals_P + 3 * programs, programs, PROGRAMS).to(tl.int32))
    own = (tile * tl.num_programs(1) + block) * SEGMENT
    for first in range(own, channels, tl.num_programs(0) * tl.num_programs(1) * SEGMENT):
        _finish_channels(x, sums_C, extremes_C, content, real, first, channels, row_tiles, SEGMENT, PARTIALS)
    if block == 0:
        _finish_positions(
            x, stride, tile, sums_T, largest_TS, real, whole, positions, channels,
            ROWS, SEGMENTS, ALIKE, FAINT, BLOCK, SEGMENT,
        )  # fmt: skip
    if COUNTING:
        inverse = tl.where(rms > SMALLEST, 1.0 / tl.maximum(rms, SMALLEST), 0.0).to(tl.float32)
        found = _list_segments(
            tile, largest_TS, wanted, absolute_G, relative_G, inverse, positions, ROWS, BLOCK, SEGMENT
        )
        counts = whole + narrow + 3
        wanted += _own(tile, ROWS, BLOCK, SEGMENT)
        for first in range(0, found, BATCH):
            n = first + tl.arange(0, BATCH)
            entry = tl.load(wanted + n, mask=n < found, other=0)
            t = tile * ROWS + entry // (BLOCK // SEGMENT)
            c = block * BLOCK + entry % (BLOCK // SEGMENT) * SEGMENT
            c = c[:, None] + tl.arange(0, SEGMENT)[None, :]
            mask = (n < found)[:, None] & (c < channels)
            raw = tl.load(x + t[:, None] * stride + c, mask=mask, other=0.0).to(tl.float32)
            magnitude = tl.abs(_finite(raw))
            place = t[:, None] * channels + c
            _count(magnitude, place, c, mask, absolute_G, absolute_levels, absolute_TC, counts, absolutes, REFINE)
            _count(
                magnitude * inverse, place, c, mask, relative_G, relative_levels, relative_TC,
                counts + channels * absolutes, relatives, REFINE,
            )  # fmt: skip


@triton.jit
def _total(values, programs, PROGRAMS: tl.constexpr):
    p = tl.arange(0, PROGRAMS)
    return tl.sum(tl.load(values + p, mask=p < programs, other=0.0), 0)


@triton.jit
def _finish_channels(
    x, sums_C, extremes_C, content, real, first, channels, row_tiles, SEGMENT: tl.constexpr, PARTIALS: tl.constexpr
):  # fmt: skip
    """Add up a segment of channels over all tiles of rows, many tiles at once: one after another they only wait."""
    c = first + tl.arange(0, SEGMENT)
    mask = c < channels
    zero = tl.zeros((PARTIALS, SEGMENT), tl.float64)
    sum_1, sum_2, sum_4 = zero, zero, zero
    high = tl.full((PARTIALS, SEGMENT), -float("inf"), tl.float32)
    low = tl.full((PARTIALS, SEGMENT), float("inf"), tl.float32)
    for begin in range(0, row_tiles, PARTIALS):
        tile = begin + tl.arange(0, PARTIALS).to(tl.int64)
        is_there = (tile < row_tiles)[:, None] & mask[None, :]
        at = sums_C + tile[:, None] * 3 * channels + c[None, :]
        sum_1 += tl.load(at, mask=is_there, other=0.0)
        sum_2 += tl.load(at + channels, mask=is_there, other=0.0)
        sum_4 += tl.load(at + 2 * channels, mask=is_there, other=0.0)
        at_extremes = extremes_C + tile[:, None] * 2 * channels + c[None, :]
        high = tl.maximum(high, tl.load(at_extremes, mask=is_there, other=-float("inf")))
        low = tl.minimum(low, tl.load(at_extremes + channels, mask=is_there, other=float("inf")))
    tl.store(content + c, tl.sum(sum_1, 0), mask=mask)
    tl.store(content + channels + c, tl.sum(sum_2, 0), mask=mask)
    tl.store(content + 2 * channels + c, tl.sum(sum_4, 0), mask=mask)
    tl.store(real + c, _finite(tl.load(x + c, mask=mask, other=0.0).to(tl.float32)), mask=mask)
    tl.store(real + channels + c, tl.max(high, 0), mask=mask)
    tl.store(real + 2 * channels + c, tl.min(low, 0), mask=mask)


@triton.jit
def _finish_positions(
    x, stride, tile, sums_T, largest_TS, real, whole, positions, channels,
    ROWS: tl.constexpr, SEGMENTS: tl.constexpr, ALIKE: tl.constexpr, FAINT: tl.constexpr,
    BLOCK: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    t = tile * ROWS + tl.arange(0, ROWS)
    is_row = t < positions
    sum_1, sum_2 = tl.zeros((ROWS,), tl.float64), tl.zeros((ROWS,), tl.float64)
    sum_4 = tl.zeros((ROWS,), tl.float64)
    for block in range(tl.num_programs(1)):
        at = sums_T + tl.cast(block, tl.int64) * 4 * positions + 4 * t
        sum_1 += tl.load(at, mask=is_row, other=0.0)
        sum_2 += tl.load(at + 1, mask=is_row, other=0.0)
        sum_4 += tl.load(at + 2, mask=is_row, other=0.0)
    mean, square, fourth = sum_1 / channels, sum_2 / channels, sum_4 / channels
    variance = square - mean * mean
    is_unclear = is_row & ((variance <= ALIKE * square) | (fourth < FAINT))
    if tl.sum(is_unclear.to(tl.int32), 0) > 0:
        of_unclear, fourth_of_unclear = _spread(x, stride, t, is_unclear, channels, ROWS, SEGMENT)
        variance = tl.where(is_unclear, of_unclear, variance)
        fourth = tl.where(is_unclear, fourth_of_unclear, fourth)
    ratio = fourth / tl.where(variance > 0, variance * variance, 1.0)
    kurtosis = tl.where(variance > 0, tl.maximum(ratio - 3, 0.0), 0.0)
    segments = tl.num_programs(1) * (BLOCK // SEGMENT)
    s = tl.arange(0, SEGMENTS)
    of_row = largest_TS + t[:, None] * segments + s[None, :]
    largest = tl.load(of_row, mask=is_row[:, None] & (s < segments)[None, :], other=-1.0)
    top = tl.max(largest, 1)
    segment = tl.min(tl.where(largest == top[:, None], s[None, :], SEGMENTS), 1)
    c = segment[:, None] * SEGMENT + tl.arange(0, SEGMENT)[None, :]
    mask = is_row[:, None] & (c < channels)
    raw = tl.load(x + t[:, None] * stride + c, mask=mask, other=0.0).to(tl.float32)
    same = mask & (tl.abs(_finite(raw)) == top[:, None])
    channel = tl.min(tl.where(same, c, channels), 1)
    out = real + 3 * channels + t
    tl.store(out, top, mask=is_row)
    tl.store(out + positions, tl.sqrt(sum_2 / channels).to(tl.float32), mask=is_row)
    tl.store(out + 2 * positions, kurtosis.to(tl.float32), mask=is_row)
    tl.store(whole + 3 * channels + 4 * positions + t, channel, mask=is_row)


@triton.jit
def _spread(x, stride, t, is_wanted, channels, ROWS: tl.constexpr, SEGMENT: tl.constexpr):
    """Return the variance of rows, from their deviations, and their mean of x^4; the mean of equal values is exact."""
    total, squares = tl.zeros((ROWS,), tl.float64), tl.zeros((ROWS,), tl.float64)
    fourths = tl.zeros((ROWS,), tl.float64)
    for first in range(0, channels, SEGMENT):
        c = first + tl.arange(0, SEGMENT)
        total += tl.sum(_finite(_load(x, stride, t, is_wanted, c, channels)).to(tl.float64), 1)
    mean = total / channels
    for first in range(0, channels, SEGMENT):
        c = first + tl.arange(0, SEGMENT)
        value = _finite(_load(x, stride, t, is_wanted, c, channels)).to(tl.float64)
        deviation = tl.where((c < channels)[None, :], value - mean[:, None], 0.0)
        squares += tl.sum(deviation * deviation, 1)
        fourths += tl.sum(value * value * value * value, 1)
    return squares / channels, fourths / channels


@triton.jit
def _own(tile, ROWS: tl.constexpr, BLOCK: tl.constexpr, SEGMENT: tl.constexpr):
    """Return where a program's part of a table of segments (T, S) begins, if every program had one piece of it."""
    programs = tl.num_programs(1)
    return (tile * programs + tl.program_id(1)) * (ROWS * (BLOCK // SEGMENT))


@triton.jit
def _list_segments(
    tile, largest_TS, wanted, absolute_G, relative_G, inverse, positions,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """List the segments of a tile that hold any hit, as row times segments of a block plus segment; return how many."""
    PER_ROW: tl.constexpr = BLOCK // SEGMENT
    entry = tl.arange(0, ROWS * PER_ROW)
    t = tile * ROWS + entry // PER_ROW
    at = t * (tl.num_programs(1) * PER_ROW) + tl.program_id(1) * PER_ROW + entry % PER_ROW
    largest = tl.load(largest_TS + at, mask=t < positions, other=0.0)
    is_hit = (largest >= tl.load(absolute_G)) | (largest * inverse >= tl.load(relative_G))
    is_hit = (is_hit & (t < positions)).to(tl.int32)
    place = _own(tile, ROWS, BLOCK, SEGMENT) + tl.cumsum(is_hit, 0) - 1
    tl.store(wanted + place, entry, mask=is_hit > 0)
    tl.debug_barrier()  # the list is read by other threads than those that wrote it
    return tl.sum(is_hit, 0)


@triton.jit
def _count(magnitude, place, c, mask, grid_G, levels, reached_TC, counts, thresholds, REFINE: tl.constexpr):
    """Count hits per channel and level, and raise the levels reached."""
    mask = mask & (magnitude >= tl.load(grid_G))
    level = tl.load(levels + (magnitude.to(tl.int32, bitcast=True) >> 16), mask=mask, other=0).to(tl.int32)
    for _ in tl.static_range(REFINE):
        following = tl.load(grid_G + level, mask=mask & (level < thresholds), other=float("inf"))
        level += (magnitude >= following).to(tl.int32)
    tl.atomic_add(counts + c * thresholds + level - 1, 1, mask=mask, sem="relaxed")
    before = tl.load(reached_TC + place, mask=mask, other=0).to(tl.int32)
    tl.store(reached_TC + place, level.to(tl.uint8), mask=mask & (level > before))


@triton.jit
def _keys(x, stride, t, positions, channels, CHANNELS: tl.constexpr, BITS: tl.constexpr):
    """Return the magnitudes of rows as integers that order as they do; NaN and infinity as 0, and none as _NONE."""
    c = tl.arange(0, CHANNELS)
    mask = (t < positions)[:, None] & (c < channels)[None, :]
    value = tl.load(x + t[:, None] * stride + c[None, :], mask=mask, other=0.0)
    is_finite = tl.abs(value.to(tl.float32)) < float("inf")
    if BITS == 31:
        key = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    else:
        key = value.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    return tl.where(mask, tl.where(is_finite, key, 0), _NONE)


@triton.jit
def _value(x, key, BITS: tl.constexpr):
    """Return the magnitude, in float64, that a key of the activation `x` stands for."""
    if BITS == 31:
        value = key.to(tl.float32, bitcast=True)
    else:
        value = key.to(tl.int16).to(x.dtype.element_ty, bitcast=True).to(tl.float32)
    return value.to(tl.float64)


@triton.jit
def _row_medians(
    x, stride, real, counts, positions, channels,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr,
):  # fmt: skip
    """Find the median magnitude of rows by bisection, and count the first digit of all their magnitudes."""
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    key = _keys(x, stride, t, positions, channels, CHANNELS, BITS)
    rank = (channels - 1) // 2
    low = tl.zeros((ROWS,), tl.int32)
    high = tl.full((ROWS,), 0, tl.int32) + ((1 << BITS) - 1)
    for _ in range(BITS):
        middle = low + (high - low) // 2
        is_above = tl.sum((key <= middle[:, None]).to(tl.int32), 1) <= rank
        low = tl.where(is_above, middle + 1, low)
        high = tl.where(is_above, high, middle)
    count = tl.sum((key <= low[:, None]).to(tl.int32), 1)
    following = tl.min(tl.where(key > low[:, None], key, _NONE), 1)
    upper = tl.where(count > channels // 2, low, following)
    median = (_value(x, low, BITS) + _value(x, upper, BITS)) / 2
    of_row = real + 3 * channels + t
    top = tl.load(of_row, mask=t < positions, other=0.0).to(tl.float64)
    tl.store(of_row + 3 * positions, (top / median).to(tl.float32), mask=t < positions)
    _add_digits(key, key != _NONE, counts, 0, BITS, DIGIT)


@triton.jit
def _count_digit(
    x, stride, counts, positions, channels,
    LEVEL: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr,
):  # fmt: skip
    """Count a further digit of the magnitudes that begin as the two middle ones do."""
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    key = _keys(x, stride, t, positions, channels, CHANNELS, BITS)
    size = tl.cast(positions, tl.int64) * channels
    lower = _prefix(counts, (size - 1) // 2, 0, LEVEL, BITS, DIGIT)
    upper = _prefix(counts, size // 2, 1, LEVEL, BITS, DIGIT)
    begun = tl.where(key == _NONE, -1, key >> (BITS - LEVEL * DIGIT))
    own = counts + LEVEL * 2 * (1 << DIGIT)
    _add_digits(key, begun == lower, own, LEVEL, BITS, DIGIT)
    if upper != lower:
        _add_digits(key, begun == upper, own + (1 << DIGIT), LEVEL, BITS, DIGIT)


@triton.jit
def _add_digits(key, mask, counts, LEVEL: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr):
    BINS: tl.constexpr = 1 << DIGIT
    LEFT: tl.constexpr = BITS - LEVEL * DIGIT
    WIDTH: tl.constexpr = DIGIT if LEFT >= DIGIT else LEFT
    digit = tl.where(mask, (key >> (LEFT - WIDTH)) & ((1 << WIDTH) - 1), BINS)
    found = tl.histogram(tl.reshape(digit, (key.shape[0] * key.shape[1],)), 2 * BINS)
    n = tl.arange(0, 2 * BINS)
    tl.atomic_add(counts + n, found, mask=(n < BINS) & (found > 0), sem="relaxed")


@triton.jit
def _prefix(counts, rank, WHICH: tl.constexpr, LEVEL: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr):
    """Return how the magnitude of a rank begins, by LEVEL digits that were counted.

    Digits behind the lower of the two middle magnitudes are in the first row of a level, those behind the upper one
    (WHICH = 1) in the second, if the two part before.
    """
    BINS: tl.constexpr = 1 << DIGIT
    n = tl.arange(0, BINS)
    prefix = tl.full((), 0, tl.int32)
    for level in tl.static_range(LEVEL):
        found = tl.load(counts + level * 2 * BINS + n).to(tl.int64)
        if WHICH == 1:
            apart = tl.load(counts + (level * 2 + 1) * BINS + n).to(tl.int64)
            found = tl.where(tl.sum(apart, 0) > 0, apart, found)
        digit = tl.sum((tl.cumsum(found, 0) <= rank).to(tl.int32), 0)
        rank -= tl.sum(tl.where(n < digit, found, 0), 0)
        prefix = (prefix << (DIGIT if BITS - level * DIGIT >= DIGIT else BITS - level * DIGIT)) | digit
    return prefix


@triton.jit
def _massive(
    x, stride, content, real, whole, counts, positions, channels, list_at, room,
    ROWS: tl.constexpr, FLOOR: tl.constexpr, RATIO: tl.constexpr,
    CHANNELS: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr,
):  # fmt: skip
    """Store the median magnitude of the whole tensor, and list its massive activations."""
    DIGITS: tl.constexpr = (BITS + DIGIT - 1) // DIGIT
    size = tl.cast(positions, tl.int64) * channels
    lower = _prefix(counts, (size - 1) // 2, 0, DIGITS, BITS, DIGIT)
    upper = _prefix(counts, size // 2, 1, DIGITS, BITS, DIGIT)
    median = (_value(x, lower, BITS) + _value(x, upper, BITS)) / 2
    tile = tl.program_id(0).to(tl.int64)
    if tile == 0:
        tl.store(content + 3 * channels + 2, median)
    c = tl.arange(0, CHANNELS)
    rows = tile * ROWS + tl.arange(0, ROWS)
    tops = tl.load(real + 3 * channels + rows, mask=rows < positions, other=0.0)
    if tl.max(tops, 0) > FLOOR:  # else none of the rows is looked at, each of which would wait for memory
        for t in range(tile * ROWS, tl.minimum((tile + 1) * ROWS, positions)):
            top = tl.load(real + 3 * channels + t)
            if (top > FLOOR) & (top.to(tl.float64) >= RATIO * median):
                value = _finite(tl.load(x + t * stride + c, mask=c < channels, other=0.0).to(tl.float32))
                magnitude = tl.abs(value)
                is_massive = ((magnitude > FLOOR) & (magnitude.to(tl.float64) >= RATIO * median)).to(tl.int32)
                begin = tl.atomic_add(whole + 3 * channels + 5 * positions + 2, tl.sum(is_massive, 0))
                place = begin + tl.cumsum(is_massive, 0) - 1
                mask = (is_massive > 0) & (place < room)
                tl.store(whole + list_at + place, (t * channels + c).to(tl.int32), mask=mask)
                tl.store(real + list_at + room + place, value, mask=mask)
