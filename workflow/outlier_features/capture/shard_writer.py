"""Shard writer: what was seen of a block becomes its shard, in the background, while the next block runs."""

# Shapes: T position, C channel, E expert.

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from outlier_features.artefacts import provenance
from outlier_features.capture import expert_outputs
from outlier_features.capture.expert_sums import BlockExperts
from outlier_features.capture.settings import Settings
from outlier_features.errors import ArchitectureError, NonFiniteActivations
from outlier_features.kernels.reference import Columns, Histogram, Reached, hit_columns
from outlier_features.site_names import CACHED, SiteName
from outlier_features.statistics import schemas, shards

ATTENTION = "attention"
ATTENTION_COLUMNS = ("attention_top1", "attention_entropy", "attention_sink")
"""What is found of the attention of sampled queries, a row of its own."""
INPUT_RMS, INPUT_COSINE = "input_rms", "input_cosine"
"""What is found of a block's input; both go to the row of `residual`."""
ROUTER, EXPERTS, MARGIN = "router", "experts", "router_margin"
DISTANCE, SHARED, ROUTED = "router_distance", "shared_energy", "routed_energy"
"""What is found of the choices of a router, the outputs of its experts, the lead of the last choice, the matrix of the
router and what experts add; all go to the row of the router."""


@dataclass(frozen=True)
class Seen:
    """What one block showed, on its way to the host."""

    block: int
    keys: Sequence[tuple[str, int]]
    """A site, ROUTER or EXPERTS, and the index of a window, of each result."""
    collected: Callable[[], list]
    """Waits for the results, in the order of `keys`."""
    router: Columns
    """What is the same in every window of a router; nothing in a dense block."""
    experts: str
    """The class of the experts, for errors."""
    heads: int
    """Key-value heads; 0 where none were seen."""
    sums: BlockExperts | None
    """What each expert read."""


class ShardWriter:
    """Writes the shards of a capture into a folder, one after the other, on a thread of its own."""

    def __init__(
        self,
        folder: Path,
        windows: Sequence[int],
        ids: Sequence[np.ndarray],
        settings: Settings,
        origin: provenance.Provenance,
    ) -> None:
        """Write into `folder`; `windows` are the numbers of the windows and `ids` their token ids, each (T,)."""
        self._folder, self._windows, self._ids, self._settings, self._origin = folder, windows, ids, settings, origin
        self._thread = ThreadPoolExecutor(1, "shards")
        self._writing: Future[None] | None = None

    def write(self, seen: Seen) -> None:
        """Begin to write the shard of a block; `wait` for the one before first."""
        self._writing = self._thread.submit(self._write, seen)

    def wait(self) -> None:
        """Wait for the shard that is being written. Raises what went wrong with it, NonFiniteActivations among it."""
        if self._writing is not None:
            self._writing.result()

    def close(self) -> None:
        """Let the shard that is being written be finished."""
        self._thread.shutdown()

    def write_coverage(self, reached: Mapping[tuple[SiteName, int], Reached], channels: int) -> None:
        """Write at how many positions each channel was hit in any tensor, for every set of sites asked for.

        `reached` has the levels of each site and window; a set with a site that is not `channels` wide has none.
        """
        self.wait()
        rows = []
        for coverage in self._settings.coverages:
            for index, window in enumerate(self._windows):
                parts = [reached[site, index] for site in coverage]
                if all(part.absolute_TC.shape[1] == channels for part in parts):
                    rows.append({"sites": "+".join(sorted(coverage)), "window": window} | self._covered(parts))
        shards.write(self._folder / shards.COVERAGE, schemas.COVERAGE_SCHEMA, rows, self._origin)

    def _write(self, seen: Seen) -> None:
        found = dict(zip(seen.keys, seen.collected(), strict=True))
        rows: dict[tuple[str, int], Columns] = {}
        for (site, index), columns in found.items():
            if site in self._settings.sites:
                self._require_finite(seen.block, site, self._windows[index], columns)
                rows[site, index] = columns
            if site in CACHED:
                columns["heads"] = seen.heads
            if site == "residual":
                columns["massive_token"] = self._ids[index][columns["massive_position"]]
                columns |= {name: found[name, index] for name in (INPUT_RMS, INPUT_COSINE) if (name, index) in found}
            if site == ATTENTION:
                rows[site, index] = dict(zip(ATTENTION_COLUMNS, columns.tolist(), strict=True))
        for index in range(len(self._windows)) if seen.router else ():  # after the sites, whose errors say more
            columns = self._expert_columns(seen, index, found[ROUTER, index], found[EXPERTS, index])
            energies = {n: float(found[n, index][0]) for n in (DISTANCE, SHARED, ROUTED) if (n, index) in found}
            margin = {MARGIN: found[MARGIN, index]} if (MARGIN, index) in found else {}
            rows[ROUTER, index] = seen.router | columns | energies | margin
        ordered = [
            {"block": seen.block, "site": site, "window": self._windows[index]} | rows[site, index]
            for site, index in sorted(rows)
        ]
        shards.write(self._folder / shards.block_name(seen.block), schemas.BLOCK_SCHEMA, ordered, self._origin)
        if seen.sums is not None and (of_experts := [{"block": seen.block} | row for row in seen.sums.rows()]):
            path = self._folder / shards.experts_name(seen.block)
            shards.write(path, schemas.EXPERT_SCHEMA, of_experts, self._origin)

    def _expert_columns(self, seen: Seen, index: int, choices: np.ndarray, largest_E: np.ndarray) -> Columns:
        is_seen_E = largest_E != expert_outputs.NONE
        missed = np.setdiff1d(choices[choices < len(largest_E)], np.flatnonzero(is_seen_E))
        if len(missed) and not self._settings.count_nonfinite:
            raise ArchitectureError(
                f"block {seen.block}, window {self._windows[index]}: experts {', '.join(map(str, missed))} were given "
                "tokens, but no finite output of theirs was seen; if bfloat16 or float32 as dtype of the model does "
                f"not help, teach capture/expert_outputs.py how {seen.experts} runs its experts."
            )
        largest = [value if is_seen else None for value, is_seen in zip(largest_E.tolist(), is_seen_E, strict=True)]
        return {"expert_choices": choices, "expert_max_abs": largest}

    def _covered(self, parts: Sequence[Reached]) -> dict[str, Any]:
        grids = self._settings.grids
        absolute = torch.stack([part.absolute_TC for part in parts]).amax(0)
        relative = torch.stack([part.relative_TC for part in parts]).amax(0)
        histograms = (
            Histogram.of_levels(absolute, len(grids.absolute) + 1),
            Histogram.of_levels(relative, len(grids.relative) + 1),
        )
        return hit_columns(*(vars(histogram).values() for histogram in histograms))

    def _require_finite(self, block: int, site: str, window: int, columns: Columns) -> None:
        nan, inf = columns["nan_count"], columns["inf_count"]
        if nan + inf and not self._settings.count_nonfinite:
            raise NonFiniteActivations(
                f"block {block}, {site}, window {window}: {nan} NaN and {inf} infinite values "
                f"{self._settings.against_nonfinite}"
            )
