"""Evidence: what the statistics of a model say about a criterion, gathered in one reading of the shards."""

# Shapes: N tensor (one block and site), S sequence, C channel, G grid value.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outlier_features.errors import ConfigError
from outlier_features.metrics.criteria import Criterion, Gap
from outlier_features.statistics.shards import BlockTable, HitTable, SiteTable, Statistics
from outlier_features.thresholds import exact, inverse_rms, round_to_bfloat16


@dataclass(frozen=True)
class Evidence:
    """What the statistics of a model say about one criterion."""

    criterion: Criterion
    length_S: np.ndarray
    """Tokens of each sequence."""
    grid: tuple[float, ...]
    tensors: list[tuple[int, str]]
    hits_NSC: np.ndarray
    """Positions of each tensor at which the channel hits."""
    covered_SC: np.ndarray
    """Positions at which it hits in any tensor."""
    levels_SCG: np.ndarray
    """Values, over all tensors, that reach exactly the first k values of the grid."""
    high_NSC: np.ndarray
    low_NSC: np.ndarray
    """Largest and smallest activation."""
    scale_NS: np.ndarray
    """What activations are multiplied by before they meet the threshold: 1, or 1 / RMS."""

    @property
    def everything(self) -> list[int]:
        """All sequences."""
        return list(range(self.hits_NSC.shape[1]))

    def sides(self, members: Sequence[int], channel: int) -> int:
        """Return how many signs the hits of a channel have: 2 if both."""
        scale = self.scale_NS[:, members]
        threshold = exact(self.criterion.definition.threshold)
        above = (self.high_NSC[:, members, channel] * scale >= threshold).any()
        below = (self.low_NSC[:, members, channel] * scale <= -threshold).any()
        return int(above) + int(below)


def gather(statistics: Statistics, wanted: Sequence[Criterion]) -> list[Evidence | Gap]:
    """Read every block once and return the evidence on each criterion."""
    gatherings = [_Gathering(criterion, statistics) for criterion in wanted]
    for block in range(statistics.blocks):
        table = statistics.block(block)
        for gathering in gatherings:
            gathering.add(block, table)
    return [gathering.result() for gathering in gatherings]


class _Gathering:
    """Collects the evidence on one criterion, block by block."""

    def __init__(self, criterion: Criterion, statistics: Statistics) -> None:
        self._criterion, self._statistics = criterion, statistics
        self._gap: Gap | None = None
        self._tensors: list[tuple[int, str]] = []
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in ("hits", "high", "low", "scale")}
        self._levels: np.ndarray | int = 0

    def add(self, block: int, table: BlockTable) -> None:
        """Take in one block."""
        width = self._statistics.facts["channels"]
        for name in self._criterion.definition.sites:
            site = table.site(name)
            if site.width != width:
                reason = (
                    f"{name} has {site.width} channels in block {block} and the residual stream {width}: "
                    "they are not the same coordinates"
                )
                self._gap = Gap(self._criterion, reason)
            if self._gap is None:
                self._add(block, name, site)

    def result(self) -> Evidence | Gap:
        """Return what was collected."""
        if self._gap is not None:
            return self._gap
        coverage = self._statistics.coverage(self._criterion.definition.sites)
        parts = {name: np.stack(values) for name, values in self._parts.items()}
        return Evidence(
            criterion=self._criterion,
            length_S=self._statistics.lengths,
            grid=tuple(self._statistics.facts["grids"]["relative" if self._criterion.relative else "absolute"]),
            tensors=self._tensors,
            hits_NSC=parts["hits"],
            covered_SC=self._reaching(coverage),
            levels_SCG=np.asarray(self._levels),
            high_NSC=parts["high"],
            low_NSC=parts["low"],
            scale_NS=parts["scale"],
        )

    def _add(self, block: int, name: str, site: SiteTable) -> None:
        hits = site.hits
        if hits is None:
            raise ConfigError(f"hits were not counted at {name} in this capture; capture again with this definition.")
        first, rms = site.matrix("first"), site.values("rms")
        high, low = np.maximum(first, site.matrix("max")), np.minimum(first, site.matrix("min"))
        if self._criterion.rounded:
            high, low = round_to_bfloat16(high), round_to_bfloat16(low)
        scale = inverse_rms(rms) if self._criterion.relative else np.ones(len(rms), np.float32)
        found = {"hits": self._reaching(hits), "high": high, "low": low, "scale": scale}
        for key, values in found.items():
            self._parts[key].append(values)
        self._tensors.append((block, name))
        self._levels = self._levels + hits.levels(relative=self._criterion.relative)

    def _reaching(self, hits: HitTable) -> np.ndarray:
        criterion = self._criterion
        return hits.reaching(criterion.definition.threshold, relative=criterion.relative, rounded=criterion.rounded)


def largest(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return of each pair of a largest and a smallest value the one of the larger magnitude."""
    return np.where(np.abs(high) >= np.abs(low), high, low)
