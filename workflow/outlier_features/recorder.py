"""Recorder: reduces what the probes see while the engine runs, and writes a shard whenever a block is done."""

# Shapes: T position, C channel.

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from outlier_features import kernels, provenance, shards, sites
from outlier_features.engine import Outputs
from outlier_features.errors import ArchitectureError, ConfigError, NonFiniteActivations
from outlier_features.reading import Reading
from outlier_features.settings import Settings
from outlier_features.sites import SiteName
from outlier_features.statistics import Histogram, Reached, SiteStatistics
from outlier_features.timings import Timings, progress_line
from outlier_features.unfinished import State, Unfinished
from outlier_features.weights import Weights


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
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        self._reached: dict[tuple[SiteName, int], Reached] = dict(state.reached) if state else {}
        self._first = state.block + 1 if state else 0
        self._hooks = ExitStack()
        self._began, self._observed, self._reading = time.perf_counter(), 0.0, Reading(0, 0.0, 0.0)
        self._pass_began = self._began
        self.timings = Timings(rows=state.timings if state else [])

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
        for block in self._weights.blocks:
            self._hooks.enter_context(sites.observed(sites.probes(block, self._settings.sites), self._record))
            bank = sites.expert_bank(block)
            if bank is not None:
                self._hooks.enter_context(sites.routed(bank, self._record_routing))

    def __exit__(self, *_: object) -> None:
        """Take the probes away."""
        self._hooks.close()

    def begin(self, block: int, reading: Reading) -> None:
        """Note how the weights of a block came, and when it began."""
        self._reading, self._began, self._observed = reading, time.perf_counter(), 0.0

    def enter(self, block: int, window: int) -> None:
        """Note which block and window the next tensors belong to."""
        self._block, self._window = block, window

    def passed(self, block: int, window: int) -> None:
        """Count a finished step."""
        self._progress.update()

    def leave(self, block: int, outputs: Outputs) -> None:
        """Write the shard of a finished block, and what the next run needs to go on behind it."""
        self._require_every_site(block)
        computed = time.perf_counter()
        rows = [self._rows[key] for key in sorted(self._rows)]
        shards.write(self._work.directory / shards.block_name(block), shards.BLOCK_SCHEMA, rows, self._origin)
        self._rows.clear()
        self._note_timing(block, computed)
        if block + 1 < len(self._weights.blocks) and self._work.is_due():
            trees = [outputs.of(window) for window in range(len(self._windows))]
            self._work.save(block, trees, self._reached, self.timings.rows)
        self._say(self.timings.record(block=block, saved_seconds=time.perf_counter() - computed))

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
        wanted = [(site, index) for site in self._settings.sites for index in range(len(self._windows))]
        missing = sorted({site for site, index in wanted if (site, index) not in self._rows})
        if missing:
            raise ArchitectureError(
                f"block {block}: no activation was seen at {', '.join(missing)}; declare the site for this "
                "architecture in outlier_features/sites.py or leave it out of capture.sites."
            )

    def write_coverage(self) -> None:
        """Write at how many positions each channel was hit in any tensor, for every set of sites asked for."""
        channels = self._weights.model.config.get_text_config().hidden_size
        rows = []
        for coverage in self._settings.coverages:
            for index, window in enumerate(self._windows):
                reached = [self._reached[site, index] for site in coverage]
                if all(part.absolute_TC.shape[1] == channels for part in reached):
                    rows.append({"sites": "+".join(sorted(coverage)), "window": window} | self._covered(reached))
        shards.write(self._work.directory / shards.COVERAGE, shards.COVERAGE_SCHEMA, rows, self._origin)

    def _covered(self, parts: Sequence[Reached]) -> dict[str, Any]:
        grids = self._settings.grids
        absolute = torch.stack([part.absolute_TC for part in parts]).amax(0)
        relative = torch.stack([part.relative_TC for part in parts]).amax(0)
        return _cells("hit", Histogram.of_levels(absolute, len(grids.absolute) + 1)) | _cells(
            "rms_hit", Histogram.of_levels(relative, len(grids.relative) + 1)
        )

    def _record(self, site: SiteName, x_TC: torch.Tensor) -> None:
        if self._window < 0:
            return  # a block that an earlier run has finished only returns what it returned then
        start = time.perf_counter()
        self._reduce(site, x_TC)
        self._observed += time.perf_counter() - start

    def _reduce(self, site: SiteName, x_TC: torch.Tensor) -> None:
        ids_T = self._ids[self._window]
        if x_TC.shape[0] != len(ids_T):
            raise ArchitectureError(f"block {self._block}: {site} has {x_TC.shape[0]} rows for {len(ids_T)} tokens.")
        statistics = kernels.reduce_site(x_TC, self._settings.grids, self._reached_at(site, x_TC))
        self._check_finite(site, statistics)
        row = self._row(site) | _site_columns(statistics)
        if site == "residual":
            medians = asdict(kernels.reduce_medians(x_TC, statistics))
            row |= {name.removesuffix("_N").removesuffix("_T"): _host(value) for name, value in medians.items()}
            row["massive_token"] = ids_T[row["massive_position"]]
        self._rows[site, self._window] = row

    def _record_routing(self, choices_Tk: torch.Tensor) -> None:
        bank = sites.expert_bank(self._weights.blocks[self._block])
        assert bank is not None
        row = self._row("router")
        row["expert_count"], row["top_k"] = sites.expert_count(bank), choices_Tk.shape[-1]
        row["expert_choices"] = _host(choices_Tk.reshape(-1).short())
        self._rows["router", self._window] = row

    def _row(self, site: str) -> dict[str, Any]:
        return {"block": self._block, "site": site, "window": self._windows[self._window]}

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

    def _check_finite(self, site: SiteName, statistics: SiteStatistics) -> None:
        if statistics.nan_count + statistics.inf_count and not self._settings.count_nonfinite:
            raise NonFiniteActivations(
                f"block {self._block}, {site}, window {self._windows[self._window]}: {statistics.nan_count} NaN and "
                f"{statistics.inf_count} infinite values in a {str(self._settings.dtype).removeprefix('torch.')} pass; "
                "choose bfloat16 or float32 as dtype of the model, or set capture.nonfinite to count to leave them out."
            )


def _site_columns(statistics: SiteStatistics) -> dict[str, Any]:
    plain = {name: value for name, value in vars(statistics).items() if name not in ("hits", "rms_hits")}
    columns = {name.removesuffix("_C").removesuffix("_T"): _host(value) for name, value in plain.items()}
    for prefix, histogram in (("hit", statistics.hits), ("rms_hit", statistics.rms_hits)):
        if histogram is not None:
            columns |= _cells(prefix, histogram)
    return columns


def _cells(prefix: str, histogram: Histogram) -> dict[str, Any]:
    return {f"{prefix}_{name.removesuffix('_N')}": _host(value) for name, value in vars(histogram).items()}


def _host(value: Any) -> Any:
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value
