"""Recorder: reduces what the probes see while the engine runs, and writes a shard whenever a block is done.

While a block runs, its results stay where they are; behind it they come to the host in one piece, and a thread beside
writes them while the next block runs.
"""

# Shapes: T position, C channel.

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from outlier_features.artefacts import provenance
from outlier_features.capture import expert_outputs
from outlier_features.capture.engine import Outputs
from outlier_features.capture.matrix_readers import Consumers
from outlier_features.capture.prefetch import Reading
from outlier_features.capture.resume import State, Unfinished
from outlier_features.capture.settings import Settings
from outlier_features.errors import ArchitectureError, ConfigError, NonFiniteActivations
from outlier_features.kernels import dispatch
from outlier_features.kernels.reference import Columns, Histogram, Reached, hit_columns
from outlier_features.models import sites
from outlier_features.models.sites import SiteName
from outlier_features.models.weights import Weights
from outlier_features.statistics import schemas, shards
from outlier_features.statistics.timings import Timings, progress_line

EXPERTS = "experts"
"""What is found of the outputs of experts; it goes to the row of the router."""


class Recorder:
    """The engine's observer of a capture."""

    def __init__(
        self,
        weights: Weights,
        windows: Sequence[int],
        ids: Sequence[np.ndarray],
        settings: Settings,
        work: Unfinished,
        origin: provenance.Provenance,
        state: State | None,
    ) -> None:
        """Write to the folder of `work`, behind the blocks of `state` that an earlier run has finished."""
        self._weights, self._windows, self._ids, self._settings = weights, windows, ids, settings
        self._work, self._origin = work, origin
        self._block, self._window = 0, -1
        self._reduction = dispatch.reduction(weights.device, settings.grids)
        self._found: dict[tuple[str, int], Any] = {}
        self._banks = [sites.expert_bank(block) for block in weights.blocks]
        self._router: Columns = {}
        self._reached: dict[tuple[SiteName, int], Reached] = dict(state.reached) if state else {}
        self._first = state.block + 1 if state else 0
        self._hooks, self._watching = ExitStack(), ExitStack()
        self._readers: Consumers | None = None
        self._writer = ThreadPoolExecutor(1, "shards")
        self._writing: Future[None] | None = None
        self._began, self._observed, self._reading = time.perf_counter(), 0.0, Reading(0, 0.0, 0.0)
        self._pass_began = self._began
        self.timings = Timings(rows=state.timings if state else [])
        self.consumers: dict[str, list[str]] = dict(state.consumers) if state else {}
        """The names, as the checkpoint has them, of the modules that read each tensor, under `{block}.{site}`."""

    def __enter__(self) -> None:
        """Attach the probes, and show progress."""
        self._progress = self._hooks.enter_context(
            tqdm(
                total=len(self._weights.blocks) * len(self._windows),
                initial=self._first * len(self._windows),
                desc="capture",
                unit="window",
                mininterval=2,
            )
        )
        for block, bank in zip(self._weights.blocks, self._banks, strict=True):
            self._hooks.enter_context(sites.observed(sites.probes(block, self._settings.sites), self._record))
            if bank is not None:
                self._hooks.enter_context(sites.routed(bank, self._record_routing))
                self._hooks.enter_context(expert_outputs.observed(bank, self._record_experts))

    def __exit__(self, *_: object) -> None:
        """Take the probes away, and let the shard that is being written be finished."""
        self._watching.close()
        self._hooks.close()
        self._writer.shutdown()

    def begin(self, block: int, reading: Reading) -> None:
        """Note how the weights of a block came, and when it began."""
        self._reading, self._began, self._observed = reading, time.perf_counter(), 0.0

    def enter(self, block: int, window: int) -> None:
        """Note which block and window the next tensors belong to."""
        self._block, self._window = block, window
        if window == 0:
            self._readers = Consumers(self._weights.blocks[block])
            self._watching.enter_context(self._readers.watched())

    def passed(self, block: int, window: int) -> None:
        """Count a finished step, and note what the first window showed of who reads which tensor."""
        if self._readers is not None:
            self._watching.close()
            for site, names in self._readers.names().items():
                self.consumers[f"{block}.{site}"] = [self._weights.stored_name(block, name) for name in names]
            self._readers = None
        self._progress.update()

    def leave(self, block: int, outputs: Outputs) -> None:
        """Let the shard of a finished block be written, and save what the next run needs to go on behind it.

        Raises what went wrong with the shard of the block before, NonFiniteActivations among it.
        """
        self._require_every_site(block)
        computed = time.perf_counter()
        self._wait_for_shard()
        collected = self._reduction.collect(list(self._found.values()))
        self._writing = self._writer.submit(self._write_shard, block, list(self._found), collected, self._router)
        self._found.clear()
        self._note_timing(block, computed)
        if block + 1 < len(self._weights.blocks) and self._work.is_due():
            self._wait_for_shard()
            trees = [outputs.of(window) for window in range(len(self._windows))]
            self._work.save(block, trees, self._reached, self.timings.rows, self.consumers)
        self._say(self.timings.record(block=block, saved_seconds=time.perf_counter() - computed))

    def _wait_for_shard(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write_shard(
        self, block: int, keys: Sequence[tuple[str, int]], collected: Callable[[], list], router: Columns
    ) -> None:
        found = dict(zip(keys, collected(), strict=True))
        rows: dict[tuple[str, int], Columns] = {}
        for (site, index), columns in found.items():
            if site in self._settings.sites:
                self._check_finite(block, site, self._windows[index], columns)
                rows[site, index] = columns
            if site == "residual":
                columns["massive_token"] = self._ids[index][columns["massive_position"]]
        routed = [] if self._banks[block] is None else self._windows
        for index, window in enumerate(routed):  # behind the sites, whose errors say more
            columns = self._expert_columns(block, window, found["router", index], found[EXPERTS, index])
            rows["router", index] = router | columns
        ordered = [
            {"block": block, "site": site, "window": self._windows[index]} | rows[site, index]
            for site, index in sorted(rows)
        ]
        shards.write(self._work.directory / shards.block_name(block), schemas.BLOCK_SCHEMA, ordered, self._origin)

    def _expert_columns(self, block: int, window: int, choices: np.ndarray, largest_E: np.ndarray) -> Columns:
        is_seen_E = largest_E != expert_outputs.NONE
        missed = np.setdiff1d(choices[choices < len(largest_E)], np.flatnonzero(is_seen_E))
        if len(missed) and not self._settings.count_nonfinite:
            raise ArchitectureError(
                f"block {block}, window {window}: experts {', '.join(map(str, missed))} were given tokens, but no "
                f"finite output of theirs was seen; if bfloat16 or float32 as dtype of the model does not help, teach "
                f"capture/expert_outputs.py how {type(self._banks[block]).__name__} runs its experts."
            )
        largest = [value if is_seen else None for value, is_seen in zip(largest_E.tolist(), is_seen_E, strict=True)]
        return {"expert_choices": choices, "expert_max_abs": largest}

    def _note_timing(self, block: int, computed: float) -> None:
        reading = self._reading
        self.timings.record(
            block=block,
            read_seconds=reading.seconds,
            waited_seconds=reading.waited,
            computed_seconds=computed - self._began,
            observed_seconds=self._observed,
            read_bytes=reading.bytes,
            started=self._began - self._pass_began,
            resumed=False,
        )

    def _say(self, row: Mapping[str, Any]) -> None:
        block = row["block"]
        blocks, took = len(self._weights.blocks), time.perf_counter() - self._pass_began
        left = took / (block + 1 - self._first) * (blocks - block - 1)
        tqdm.write(progress_line(row, blocks, left), file=sys.stderr)

    def _require_every_site(self, block: int) -> None:
        routed = () if self._banks[block] is None else ("router", EXPERTS)
        wanted = [(site, index) for site in (*self._settings.sites, *routed) for index in range(len(self._windows))]
        missing = sorted({site for site, index in wanted if (site, index) not in self._found})
        if EXPERTS in missing:
            raise ArchitectureError(
                f"block {block}: no product with a down projection of the experts was seen in the forward of "
                f"{type(self._banks[block]).__name__}; teach capture/expert_outputs.py how it runs its experts."
            )
        if missing:
            raise ArchitectureError(
                f"block {block}: no activation was seen at {', '.join(missing)}; declare the site for this "
                "architecture in outlier_features/models/sites.py or leave it out of capture.sites."
            )

    def write_coverage(self) -> None:
        """Write at how many positions each channel was hit in any tensor, for every set of sites asked for."""
        self._wait_for_shard()
        channels = self._weights.model.config.get_text_config().hidden_size
        rows = []
        for coverage in self._settings.coverages:
            for index, window in enumerate(self._windows):
                reached = [self._reached[site, index] for site in coverage]
                if all(part.absolute_TC.shape[1] == channels for part in reached):
                    rows.append({"sites": "+".join(sorted(coverage)), "window": window} | self._covered(reached))
        shards.write(self._work.directory / shards.COVERAGE, schemas.COVERAGE_SCHEMA, rows, self._origin)

    def _covered(self, parts: Sequence[Reached]) -> dict[str, Any]:
        grids = self._settings.grids
        absolute = torch.stack([part.absolute_TC for part in parts]).amax(0)
        relative = torch.stack([part.relative_TC for part in parts]).amax(0)
        histograms = (
            Histogram.of_levels(absolute, len(grids.absolute) + 1),
            Histogram.of_levels(relative, len(grids.relative) + 1),
        )
        return hit_columns(*(vars(histogram).values() for histogram in histograms))

    def _record(self, site: SiteName, x_TC: torch.Tensor) -> None:
        if self._window < 0:
            return  # a block that an earlier run has finished only returns what it returned then
        start = time.perf_counter()
        if self._readers is not None:
            self._readers.saw(site, x_TC)
        self._reduce(site, x_TC)
        self._observed += time.perf_counter() - start

    def _reduce(self, site: SiteName, x_TC: torch.Tensor) -> None:
        ids_T = self._ids[self._window]
        if x_TC.shape[0] != len(ids_T):
            raise ArchitectureError(f"block {self._block}: {site} has {x_TC.shape[0]} rows for {len(ids_T)} tokens.")
        reached = self._reached_at(site, x_TC)
        self._found[site, self._window] = self._reduction.site(x_TC, reached, medians=site == "residual")

    def _record_routing(self, choices_Tk: torch.Tensor) -> None:
        bank = self._banks[self._block]
        assert bank is not None
        self._router = {"expert_count": sites.expert_count(bank), "top_k": choices_Tk.shape[-1]}
        self._found["router", self._window] = self._reduction.keep(choices_Tk.reshape(-1).short())

    def _record_experts(self, largest_E: torch.Tensor, seconds: float) -> None:
        self._found[EXPERTS, self._window] = self._reduction.keep(largest_E)
        self._observed += seconds

    def _reached_at(self, site: SiteName, x_TC: torch.Tensor) -> Reached | None:
        if site not in self._settings.counted:
            return None
        key = (site, self._window)
        if key not in self._reached:
            self._reached[key] = Reached.nothing(x_TC.shape[0], x_TC.shape[1], x_TC.device)
        elif self._reached[key].absolute_TC.shape != x_TC.shape:
            raise ConfigError(
                f"block {self._block}: {site} has another width than in the blocks before; drop the site."
            )
        return self._reached[key]

    def _check_finite(self, block: int, site: str, window: int, columns: Columns) -> None:
        nan, inf = columns["nan_count"], columns["inf_count"]
        if nan + inf and not self._settings.count_nonfinite:
            raise NonFiniteActivations(
                f"block {block}, {site}, window {window}: {nan} NaN and {inf} infinite values "
                f"{self._settings.against_nonfinite}"
            )
