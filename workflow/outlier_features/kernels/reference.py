"""Reference: what one pass keeps of an activation, and the plain torch function that computes it.

Everything that a definition or a metric needs is here in small form: per channel extremes, sums and hits over a grid of
thresholds; per position its largest value and its moments. float32 while an activation is read, float64 once summed.
`dispatch` chooses the fast form of `reduce` for a device.
"""

# Shapes: T position in a sequence, C channel, G value of a threshold grid, N entry of a sparse list.

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from outlier_features import exact_sums
from outlier_features.magnitude_bins import CELLS, EDGES, SPREADS
from outlier_features.thresholds import inverse_rms

Columns = dict[str, Any]
"""What is kept of one site tensor in one window, by the names that a shard gives it: numbers and NumPy arrays."""

MASSIVE_FLOOR = 100.0
"""A massive activation exceeds this magnitude (Sun et al. 2024) ..."""
MASSIVE_RATIO = 1000.0
"""... and is at least so many times the median magnitude of its hidden state."""


@dataclass(frozen=True)
class Grids:
    """The thresholds at which hits are counted: ascending float32 values, at most 255 of each."""

    absolute: tuple[float, ...]
    relative: tuple[float, ...]
    """In units of the site tensor's own RMS."""

    def tensors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both grids as float32 tensors on `device`."""
        return _float32(self.absolute, device), _float32(self.relative, device)


@dataclass(frozen=True)
class Reached:
    """The highest value of each grid that |x| reached at each position and channel, over the tensors of one site.

    uint8; 0 where no value of the grid was reached, k where the first k were.
    """

    absolute_TC: torch.Tensor
    relative_TC: torch.Tensor

    @classmethod
    def nothing(cls, positions: int, channels: int, device: torch.device) -> "Reached":
        """Return the state before any tensor was seen."""
        empty = torch.zeros(2, positions, channels, dtype=torch.uint8, device=device)
        return cls(empty[0], empty[1])


@dataclass(frozen=True)
class Histogram:
    """Magnitudes per channel, counted between the values of a grid; only cells that hold any.

    Entry `i` says: `count_N[i]` values of channel `channel_N[i]` reach the first `level_N[i]` (1..G) values of the
    grid and no more.
    """

    channel_N: torch.Tensor
    level_N: torch.Tensor
    count_N: torch.Tensor

    @classmethod
    def of_levels(cls, level_TC: torch.Tensor, cells: int) -> "Histogram":
        """Count levels (T, C), each 0..cells-1, per channel; level 0 is left out."""
        channels = level_TC.shape[1]
        key_TC = level_TC.long() + torch.arange(channels, device=level_TC.device) * cells
        count = torch.bincount(key_TC.flatten(), minlength=channels * cells)
        return cls.of_counts(count.view(channels, cells))

    @classmethod
    def of_counts(cls, count_CG: torch.Tensor) -> "Histogram":
        """Keep what is not zero of a full table of counts (C, 1 + G), whose first column is left out."""
        channel_N, level_N = count_CG[:, 1:].nonzero(as_tuple=True)
        return cls(channel_N.int(), (level_N + 1).to(torch.uint8), count_CG[channel_N, level_N + 1].int())


@dataclass(frozen=True)
class SiteStatistics:
    """What is kept of one site tensor (T, C) in one window.

    The `_C` sums and extremes run over the rows after those of position 0, which are kept whole in `first_C`, row after
    row, so each metric can be given with and without it. NaN and infinite values are counted and read as 0 everywhere
    else.
    """

    first_C: torch.Tensor
    max_C: torch.Tensor
    min_C: torch.Tensor
    sum_C: torch.Tensor
    sum_2_C: torch.Tensor
    sum_4_C: torch.Tensor
    sum_3: float
    """Sum of cubes over all positions."""
    rms: float
    """Root mean square over all positions."""
    position_max_abs_T: torch.Tensor
    position_channel_T: torch.Tensor
    position_rms_T: torch.Tensor
    position_kurtosis_T: torch.Tensor
    """`kurtosis_token_excess` of each position; 0 where all channels are alike."""
    nan_count: int = 0
    inf_count: int = 0
    hits: Histogram | None = None
    rms_hits: Histogram | None = None


@dataclass(frozen=True)
class MedianStatistics:
    """What is kept of a hidden state (T, C) besides SiteStatistics, because it takes a median.

    `mmr_T` is the max-median ratio of each position (He et al. 2024); `massive_*_N` list the massive activations with
    their value (Sun et al. 2024), largest magnitude first.
    """

    median_abs: float
    mmr_T: np.ndarray
    massive_position_N: np.ndarray
    massive_channel_N: np.ndarray
    massive_value_N: np.ndarray


@dataclass
class ExpertSums:
    """What a capture keeps of the inputs (rows, C) of each expert, over the rows it was sent; device tensors."""

    tokens_E: torch.Tensor
    sum_2_EC: torch.Tensor
    sum_2_low_EC: torch.Tensor
    max_abs_EC: torch.Tensor

    @classmethod
    def nothing(cls, experts: int, channels: int, device: torch.device) -> "ExpertSums":
        """Return the sums of no row."""
        sums = torch.zeros(2, experts, channels, dtype=torch.float64, device=device)
        tokens = torch.zeros(experts, dtype=torch.int64, device=device)
        return cls(tokens, sums[0], sums[1], torch.zeros(experts, channels, device=device))

    def add(self, square_EC: torch.Tensor, experts_S: torch.Tensor) -> None:
        """Add the sums of squares of a window, whose rows belong to `experts_S`."""
        zero = torch.zeros_like(square_EC)
        self.sum_2_EC, self.sum_2_low_EC = exact_sums.add(self.sum_2_EC, self.sum_2_low_EC, square_EC, zero)
        self.tokens_E.scatter_add_(0, experts_S, torch.ones_like(experts_S))


def by_expert(x_RC: torch.Tensor, rows_S: torch.Tensor, experts_S: torch.Tensor, sums: ExpertSums) -> None:
    """Add rows of an activation to `sums`: row `rows_S[s]` belongs to expert `experts_S[s]`. In place."""
    x_SC = x_RC[rows_S].float().nan_to_num(0.0, 0.0, 0.0)
    of_expert_SC = experts_S[:, None].expand(x_SC.shape)
    sums.max_abs_EC.scatter_reduce_(0, of_expert_SC, x_SC.abs(), "amax")
    sums.add(summed_by_expert(x_SC.double().square(), experts_S, len(sums.tokens_E)), experts_S)


def summed_by_expert(values_S: torch.Tensor, experts_S: torch.Tensor, experts: int) -> torch.Tensor:
    """Return the sums of float64 values (S, ...) of each expert (E, ...), in the same bits on every run."""
    # a product: a sum by index would add in another order on each run of a GPU
    return torch.nn.functional.one_hot(experts_S, experts).T.double() @ values_S


def reduce(
    x_TC: torch.Tensor,
    grids: Grids,
    reached: Reached | None = None,
    *,
    medians: bool = False,
    spread: bool = False,
    first: int = 1,
) -> Columns:
    """Reduce one activation (T, C) of any float type to what a shard keeps of it.

    With `reached` given, hits are counted and folded into it in place; `medians` adds what takes a median, `spread` the
    max-median ratio and how magnitudes are spread. The first `first` rows are those of position 0.
    """
    if len(x_TC) == 0:
        return nothing(x_TC.shape[1], hits=reached is not None, medians=medians, spread=spread)
    site = reduce_site(x_TC, grids, reached, first)
    plain = {name: value for name, value in vars(site).items() if name not in ("hits", "rms_hits")}
    columns = _named(plain)
    if site.hits is not None and site.rms_hits is not None:
        columns |= hit_columns(vars(site.hits).values(), vars(site.rms_hits).values())
    columns["first_rows"] = min(first, len(x_TC))
    if medians:
        columns |= median_columns(reduce_medians(x_TC, site))
    if spread:
        magnitude_TC = x_TC.float().nan_to_num(0.0, 0.0, 0.0).abs()
        median_T = middle(magnitude_TC.sort(dim=1).values).cpu().numpy()
        columns |= {"mmr": max_median_ratio(columns["position_max_abs"], median_T)} | _spreads(magnitude_TC, first)
    return columns


def nothing(channels: int, *, hits: bool = False, medians: bool = False, spread: bool = False) -> Columns:
    """Return what is kept of an activation without any position: sums of 0, and extremes that any value exceeds."""
    real, index = np.zeros(0, np.float32), np.zeros(0, np.int32)
    columns: Columns = {
        "first": np.full(channels, np.nan, np.float32),
        "max": np.full(channels, -np.inf, np.float32),
        "min": np.full(channels, np.inf, np.float32),
        **{name: np.zeros(channels) for name in ("sum", "sum_2", "sum_4")},
        "sum_3": 0.0,
        "rms": np.nan,
        **dict.fromkeys(("position_max_abs", "position_rms", "position_kurtosis"), real),
        "position_channel": index,
        "nan_count": 0,
        "inf_count": 0,
        "first_rows": 1,
    }
    if hits:
        columns |= hit_columns(*[(index, index.astype(np.uint8), index)] * 2)
    if medians:
        columns |= median_columns(MedianStatistics(np.nan, real, index, index, real))
    if spread:
        columns |= {"mmr": real} | spread_columns(np.zeros((2, len(SPREADS), CELLS), np.int32))
    return columns


def spread_columns(counts: np.ndarray) -> Columns:
    """Name the counts (2, 3, CELLS) of the rows of position 0 and of all others as a shard does."""
    parts = zip(("first", "rest"), counts, strict=True)
    return {f"{name}_{part}": cells for part, of_part in parts for name, cells in zip(SPREADS, of_part, strict=True)}


def max_median_ratio(max_abs_T: np.ndarray, median_T: np.ndarray) -> np.ndarray:
    """Return the largest magnitude of each row over its median (He et al. 2024); infinite or NaN where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (max_abs_T / median_T).astype(np.float32)


def hit_columns(hits: Iterable[Any], rms_hits: Iterable[Any]) -> Columns:
    """Name channel, level and count of both histograms as a shard does."""
    parts = {"hit": hits, "rms_hit": rms_hits}
    names = ("channel", "level", "count")
    return {f"{kind}_{n}": _host(v) for kind, part in parts.items() for n, v in zip(names, part, strict=True)}


def median_columns(found: "MedianStatistics") -> Columns:
    """Name what takes a median as a shard does."""
    return _named(vars(found))


def reduce_site(x_TC: torch.Tensor, grids: Grids, reached: Reached | None = None, first: int = 1) -> SiteStatistics:
    """Reduce one activation (T, C) of any float type; with `reached` given, count hits and fold them into it in place.

    A value hits a threshold of `grids.relative` when |x| / RMS, rounded to float32, is at least that.
    """
    x_TC = x_TC.float()
    nan_count, inf_count = int(x_TC.isnan().sum()), int(x_TC.isinf().sum())
    if nan_count + inf_count:
        x_TC = x_TC.nan_to_num(0.0, 0.0, 0.0)
    # float64: beside one outlier of 1e4 (1e16 once squared twice) a float32 sum drops every ordinary value
    square_TC = x_TC.double() ** 2
    magnitude_TC, rest_TC = x_TC.abs(), x_TC[first:]
    energy_T = square_TC.sum(1)
    rms = float((energy_T.sum() / x_TC.numel()).sqrt())
    maximum_T, channel_T = magnitude_TC.max(1)
    channels = x_TC.shape[1]
    statistics = SiteStatistics(
        first_C=x_TC[:first].flatten().clone(),
        max_C=torch.cat([rest_TC, torch.full_like(x_TC[:1], -torch.inf)]).amax(0),
        min_C=torch.cat([rest_TC, torch.full_like(x_TC[:1], torch.inf)]).amin(0),
        sum_C=rest_TC.double().sum(0),
        sum_2_C=square_TC[first:].sum(0),
        sum_4_C=(square_TC[first:] ** 2).sum(0),
        sum_3=float((square_TC * x_TC).sum()),
        rms=rms,
        position_max_abs_T=maximum_T,
        position_channel_T=channel_T.int(),
        position_rms_T=(energy_T / channels).sqrt().float(),
        position_kurtosis_T=excess_kurtosis(x_TC),
        nan_count=nan_count,
        inf_count=inf_count,
    )
    if reached is None:
        return statistics
    scaled_TC = magnitude_TC * float(inverse_rms(np.float64(rms)))
    absolute_G, relative_G = grids.tensors(x_TC.device)
    return SiteStatistics(
        **vars(statistics)
        | {
            "hits": _count(magnitude_TC, absolute_G, reached.absolute_TC),
            "rms_hits": _count(scaled_TC, relative_G, reached.relative_TC),
        }
    )


def reduce_medians(x_TC: torch.Tensor, site: SiteStatistics) -> MedianStatistics:
    """Reduce a hidden state (T, C) of any float type, whose site statistics are `site`, to what takes a median."""
    magnitude_TC = x_TC.float().nan_to_num(0.0, 0.0, 0.0).abs()
    median_T = middle(magnitude_TC.sort(dim=1).values)
    median_abs = float(middle(magnitude_TC.flatten().sort().values))
    return medians(x_TC, site.position_max_abs_T.cpu().numpy(), median_abs, median_T.cpu().numpy())


def medians(x_TC: torch.Tensor, max_abs_T: np.ndarray, median_abs: float, median_T: np.ndarray) -> MedianStatistics:
    """Put together what follows from the median magnitude of a hidden state, and the largest and median of each row."""
    is_massive_T = (max_abs_T > MASSIVE_FLOOR) & (max_abs_T.astype(np.float64) >= MASSIVE_RATIO * median_abs)
    row_N = np.flatnonzero(is_massive_T)
    mmr_T = max_median_ratio(max_abs_T, median_T)
    if len(row_N) == 0:
        none = np.zeros(0, np.int32)
        return MedianStatistics(median_abs, mmr_T, none, none, np.zeros(0, np.float32))
    value_NC = x_TC[torch.from_numpy(row_N)].float().nan_to_num(0.0, 0.0, 0.0).cpu().numpy()
    magnitude_NC = np.abs(value_NC)
    massive_NC = (magnitude_NC > MASSIVE_FLOOR) & (magnitude_NC.astype(np.float64) >= MASSIVE_RATIO * median_abs)
    within_N, channel_N = massive_NC.nonzero()
    order = np.argsort(-magnitude_NC[within_N, channel_N], stable=True)
    within_N, channel_N = within_N[order], channel_N[order]
    return MedianStatistics(
        median_abs=median_abs,
        mmr_T=mmr_T,
        massive_position_N=row_N[within_N].astype(np.int32),
        massive_channel_N=channel_N.astype(np.int32),
        massive_value_N=value_NC[within_N, channel_N],
    )


def excess_kurtosis(x_TC: torch.Tensor) -> torch.Tensor:
    """Return E[x^4] / std^4 - 3 over the channels of each position, clamped at 0 (Outlier-Safe Pre-Training).

    0 where all channels are alike, which have no variance and of which none stands out.
    """
    wide_TC = x_TC.double()
    # from deviations: E[x^2] - E[x]^2 of a row that is alike is not 0 but what rounding leaves, in float64 as well
    variance_T = (wide_TC - wide_TC.mean(1, keepdim=True)).square().mean(1)
    ratio_T = (wide_TC**4).mean(1) / variance_T**2
    return (ratio_T - 3).clamp(min=0).where(variance_T > 0, 0.0).float()


ALIKE = 0.25
"""Where the variance of a position is at most this share of its mean square, sums of float32 cannot tell it well: the
fast forms read the position again, in float64 ..."""
FAINT = 1e-30
"""... and where the mean of x^4 is below this, for float32 loses the fourth power of small values."""


def middle(ordered: torch.Tensor) -> torch.Tensor:
    """Return the median along the last axis of ascending values (the mean of the two middle ones for an even count)."""
    count = ordered.shape[-1]
    return (ordered[..., (count - 1) // 2].double() + ordered[..., count // 2].double()) / 2


def _count(magnitude_TC: torch.Tensor, grid_G: torch.Tensor, reached_TC: torch.Tensor) -> Histogram:
    level_TC = torch.bucketize(magnitude_TC, grid_G, right=True).to(torch.uint8)
    torch.maximum(reached_TC, level_TC, out=reached_TC)
    return Histogram.of_levels(level_TC, len(grid_G) + 1)


def _spreads(magnitude_TC: torch.Tensor, first: int) -> Columns:
    """Count magnitudes, and the largest of every 16 and 32 neighbouring channels, in cells, by token class."""
    tables = [[_cells(part), *(_cells(_block_largest(part, width)) for width in (16, 32))]
              for part in (magnitude_TC[:first], magnitude_TC[first:])]  # fmt: skip
    return spread_columns(np.array(tables, np.int32))


def _cells(magnitudes: torch.Tensor) -> np.ndarray:
    edges = _float32(EDGES.tolist(), magnitudes.device)
    cell = torch.bucketize(magnitudes, edges, right=True) + 1
    return torch.bincount(cell.where(magnitudes > 0, 0).flatten(), minlength=CELLS).cpu().numpy()


def _block_largest(magnitude_TC: torch.Tensor, width: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(magnitude_TC, (0, -magnitude_TC.shape[1] % width))
    return padded.unflatten(1, (-1, width)).amax(2)


def _float32(values: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _named(values: Mapping[str, Any]) -> Columns:
    return {name.removesuffix("_C").removesuffix("_T").removesuffix("_N"): _host(v) for name, v in values.items()}


def _host(value: Any) -> Any:
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value
