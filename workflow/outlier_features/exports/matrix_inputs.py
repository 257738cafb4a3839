"""Matrix inputs: what each matrix of a model reads, under the name that the checkpoint has for it.

Experts have names of their own: the fused module's, the number of the expert, and what Mixtral or all others call its
three matrices.
"""

# Shapes: S sequence, C channel, E expert.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outlier_features.errors import StaleFile
from outlier_features.site_names import MATRIX_INPUTS
from outlier_features.statistics.shards import BlockTable, SiteTable, Statistics

ABSENT = (
    "matrices that read a tensor which is not captured have no entry, never zeros: inner projections of a low-rank "
    "attention, the output head, an expert without tokens, experts where a capture did not keep them apart"
)
EXPERTS = (
    "experts are apart, each over the tokens that the router sent to it; maxima without position 0 are not kept of them"
)
GATE, UP, DOWN = "gate_proj", "up_proj", "down_proj"
PARTS = {"mlp_in": (GATE, UP), "down_in": (DOWN,)}
"""The matrices of an expert that read a site."""
OF_MIXTRAL = {GATE: "w1", UP: "w3", DOWN: "w2"}


@dataclass(frozen=True)
class MatrixInput:
    """What one matrix reads."""

    name: str
    block: int
    site: str
    rows: int
    """Tokens it was handed."""
    max_abs_C: np.ndarray
    square_C: np.ndarray
    """Sum of squares over those rows, float64."""
    rest_max_abs_C: np.ndarray | None
    """Without position 0 of each sequence; None for an expert, and where sequences have no other."""
    expert: int | None = None
    fused: str | None = None
    """The module that holds the expert."""
    part: str | None = None
    """Which of the expert's matrices it is: GATE, UP or DOWN."""


class MatrixInputs:
    """The inputs of all matrices, block by block."""

    def __init__(self, statistics: Statistics, source: Path) -> None:
        """Take the names of the matrices from the facts of `statistics`, which `source` holds.

        Raises StaleFile where an older capture did not note them.
        """
        if "consumers" not in statistics.facts:
            raise StaleFile(
                f"{source}: from a capture that did not note which matrices read each tensor (no `consumers` among its "
                "facts); capture the model again."
            )
        self._consumers: Mapping[str, Sequence[str]] = statistics.facts["consumers"]

    def of(self, block: int, site: str) -> list[str]:
        """Return the full names of the matrices that read a tensor; `residual` has none."""
        return list(self._consumers.get(f"{block}.{site}", ()))

    def of_block(self, block: int, table: BlockTable) -> Iterator[MatrixInput]:
        """Yield what each matrix of a block reads."""
        fused = self._fused(block, table)
        for site in (site for site in MATRIX_INPUTS if site in table.sites):
            if names := [name for name in self.of(block, site) if name not in fused]:
                yield from _of_site(table.site(site), block, site, names)
        for name, read in ((name, read) for name in fused for read in PARTS):
            yield from _of_experts(table, block, read, name)

    def _fused(self, block: int, table: BlockTable) -> list[str]:
        """Return what holds the routed experts of a block: what reads `down_in`, by its name where that is not kept."""
        if "router" not in table.sites:
            return []
        by_name = [name for name in self.of(block, "mlp_in") if name.rpartition(".")[2] == "experts"]
        return self.of(block, "down_in") or by_name

    def attention_module(self, block: int) -> str | None:
        """Return the name of the attention of a block: what holds its output projection."""
        names = self.of(block, "out_proj_in")
        return names[0].rpartition(".")[0] if names else None


def part_name(fused: str, part: str) -> str:
    """Return what the checkpoint calls a matrix of an expert."""
    return OF_MIXTRAL[part] if "block_sparse_moe" in fused else part


def _of_experts(table: BlockTable, block: int, site: str, fused: str) -> Iterator[MatrixInput]:
    found = table.experts.get(site)
    if found is None:
        return
    for expert in np.flatnonzero(found.tokens_E):
        for part in PARTS[site]:
            yield MatrixInput(
                f"{fused}.{expert}.{part_name(fused, part)}",
                block,
                site,
                rows=int(found.tokens_E[expert]),
                max_abs_C=found.max_abs_EC[expert],
                square_C=found.sum_2_EC[expert],
                rest_max_abs_C=None,
                expert=int(expert),
                fused=fused,
                part=part,
            )


def _of_site(site: SiteTable, block: int, name: str, readers: Sequence[str]) -> Iterator[MatrixInput]:
    first_SFC, largest_C = site.first, site.max_abs.max(0)
    rest_C = site.rest_max_abs.max(0) if site.statistics.lengths.max() > 1 else None
    square_C = site.matrix("sum_2").sum(0) + (first_SFC.astype(np.float64) ** 2).sum((0, 1))
    rows = int(first_SFC.shape[1] * site.statistics.lengths.sum())
    for reader in readers:
        yield MatrixInput(reader, block, name, rows, largest_C, square_C, rest_C)
