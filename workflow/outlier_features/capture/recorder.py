"""Recorder: reduces what hooks see while the engine runs; what was seen of a block goes to the shard writer.

While a block runs, its results stay where they are; after it they come to the host in one piece, while the next runs.
"""

# Shapes: T position, C channel, k expert a token is routed to, E expert.

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from outlier_features.artefacts import provenance
from outlier_features.capture import expert_outputs, hooks
from outlier_features.capture.engine import Outputs
from outlier_features.capture.matrix_readers import MatrixReaders
from outlier_features.capture.prefetch import Reading
from outlier_features.capture.progress import Progress
from outlier_features.capture.resume import State, Unfinished
from outlier_features.capture.settings import Settings
from outlier_features.capture.shard_writer import EXPERTS, ROUTER, Seen, ShardWriter
from outlier_features.errors import ArchitectureError, ConfigError
from outlier_features.kernels import dispatch
from outlier_features.kernels.reference import Columns, Reached
from outlier_features.models import fused_experts, sites
from outlier_features.models.fused_experts import expert_count
from outlier_features.models.weights import Weights
from outlier_features.site_names import SiteName
from outlier_features.statistics.timings import Timings


@dataclass
class _Running:
    """A block while windows run through it."""

    block: int
    reading: Reading
    readers: MatrixReaders
    began: float = field(default_factory=time.perf_counter)
    window: int = 0
    observed: float = 0.0
    """Seconds that looking took."""
    found: dict[tuple[str, int], Any] = field(default_factory=dict)
    router: Columns = field(default_factory=dict)
    watching: ExitStack = field(default_factory=ExitStack)
    """Holds the hooks of `readers`, while the first window runs."""


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
        """Write to the folder of `work`, after the blocks of `state` that an earlier run has finished."""
        self._weights, self._ids, self._settings, self._work = weights, ids, settings, work
        self._reduction = dispatch.reduction(weights.device, settings.grids)
        self._experts = [fused_experts.of_block(block) for block in weights.blocks]
        self._reached: dict[tuple[SiteName, int], Reached] = dict(state.reached) if state else {}
        self._running: _Running | None = None
        self._shards = ShardWriter(work.directory, windows, ids, settings, origin)
        self._hooks = ExitStack()
        first, timings = (state.block + 1, state.timings) if state else (0, [])
        self._progress = Progress(len(weights.blocks), len(windows), first, timings)
        self.consumers: dict[str, list[str]] = dict(state.consumers) if state else {}
        """The names, as the checkpoint has them, of the modules that read each tensor, under `{block}.{site}`."""

    @property
    def timings(self) -> Timings:
        """Where the time went, block by block, of earlier runs too."""
        return self._progress.timings

    def __enter__(self) -> None:
        """Attach the hooks."""
        for block, experts in zip(self._weights.blocks, self._experts, strict=True):
            self._hooks.enter_context(hooks.observed(sites.probes(block, self._settings.sites), self._record))
            if experts is not None:
                self._hooks.enter_context(hooks.routed(experts, self._record_routing))
                self._hooks.enter_context(expert_outputs.observed(experts, self._record_experts))

    def __exit__(self, *_: object) -> None:
        """Take the hooks away, and let the shard that is being written be finished."""
        if self._running is not None:
            self._running.watching.close()
        self._hooks.close()
        self._progress.close()
        self._shards.close()

    def begin(self, block: int, reading: Reading) -> None:
        """Note how the weights of a block came, and when it began."""
        self._running = _Running(block, reading, MatrixReaders(self._weights.blocks[block]))

    def enter(self, block: int, window: int) -> None:
        """Note which window the next tensors belong to; in the first, watch who reads them."""
        running = self._block()
        running.window = window
        if window == 0:
            running.watching.enter_context(running.readers.watched())

    def passed(self, block: int, window: int) -> None:
        """Count a finished step, and note what the first window showed of who reads which tensor."""
        if window == 0:
            running = self._block()
            running.watching.close()
            for site, names in running.readers.names().items():
                self.consumers[f"{block}.{site}"] = [self._weights.stored_name(block, name) for name in names]
        self._progress.step()

    def leave(self, block: int, outputs: Outputs) -> None:
        """Let the shard of a finished block be written, and save what another run needs to resume after it.

        Raises what went wrong with the shard of the block before, NonFiniteActivations among it.
        """
        running, self._running = self._block(), None
        self._require_every_site(running)
        computed = time.perf_counter()
        self._shards.wait()
        collected = self._reduction.collect(list(running.found.values()))
        experts = type(self._experts[block]).__name__
        self._shards.write(Seen(block, list(running.found), collected, running.router, experts))
        self._note_timing(running, computed)
        if block + 1 < len(self._weights.blocks) and self._work.is_due():
            self._shards.wait()
            trees = [outputs.of(window) for window in range(len(self._ids))]
            self._work.save(block, trees, self._reached, self.timings.rows, self.consumers)
        self._progress.say(self.timings.record(block=block, saved_seconds=time.perf_counter() - computed))

    def write_coverage(self) -> None:
        """Write at how many positions each channel was hit in any tensor, for every set of sites asked for."""
        self._shards.write_coverage(self._reached, self._weights.model.config.get_text_config().hidden_size)

    def _block(self) -> _Running:
        assert self._running is not None, "no block runs"
        return self._running

    def _note_timing(self, running: _Running, computed: float) -> None:
        reading = running.reading
        self.timings.record(
            block=running.block,
            read_seconds=reading.seconds,
            waited_seconds=reading.waited,
            computed_seconds=computed - running.began,
            observed_seconds=running.observed,
            read_bytes=reading.bytes,
            started=running.began - self._progress.began,
            resumed=False,
        )

    def _require_every_site(self, running: _Running) -> None:
        experts = self._experts[running.block]
        routed = () if experts is None else (ROUTER, EXPERTS)
        wanted = [(site, index) for site in (*self._settings.sites, *routed) for index in range(len(self._ids))]
        missing = sorted({site for site, index in wanted if (site, index) not in running.found})
        if EXPERTS in missing:
            raise ArchitectureError(
                f"block {running.block}: no product with a down projection of the experts was seen in the forward of "
                f"{type(experts).__name__}; teach capture/expert_outputs.py how it runs its experts."
            )
        if missing:
            raise ArchitectureError(
                f"block {running.block}: no activation was seen at {', '.join(missing)}; declare the site for this "
                "architecture in outlier_features/models/sites.py or leave it out of capture.sites."
            )

    def _record(self, site: SiteName, x_TC: torch.Tensor) -> None:
        running = self._running
        if running is None:
            return  # a block that an earlier run has finished only returns what it returned then
        start = time.perf_counter()
        if running.window == 0:
            running.readers.saw(site, x_TC)
        self._reduce(running, site, x_TC)
        running.observed += time.perf_counter() - start

    def _reduce(self, running: _Running, site: SiteName, x_TC: torch.Tensor) -> None:
        ids_T = self._ids[running.window]
        if x_TC.shape[0] != len(ids_T):
            raise ArchitectureError(f"block {running.block}: {site} has {x_TC.shape[0]} rows for {len(ids_T)} tokens.")
        reached = self._reached_at(running, site, x_TC) if site in self._settings.counted else None
        running.found[site, running.window] = self._reduction.site(x_TC, reached, medians=site == "residual")

    def _record_routing(self, choices_Tk: torch.Tensor) -> None:
        if (running := self._running) is not None:
            experts = self._experts[running.block]
            assert experts is not None
            running.router = {"expert_count": expert_count(experts), "top_k": choices_Tk.shape[-1]}
            running.found[ROUTER, running.window] = self._reduction.keep(choices_Tk.reshape(-1).short())

    def _record_experts(self, largest_E: torch.Tensor, seconds: float) -> None:
        if (running := self._running) is not None:
            running.found[EXPERTS, running.window] = self._reduction.keep(largest_E)
            running.observed += seconds

    def _reached_at(self, running: _Running, site: SiteName, x_TC: torch.Tensor) -> Reached:
        key = (site, running.window)
        if key not in self._reached:
            self._reached[key] = Reached.nothing(x_TC.shape[0], x_TC.shape[1], x_TC.device)
        elif self._reached[key].absolute_TC.shape != x_TC.shape:
            raise ConfigError(
                f"block {running.block}: {site} has another width than in the blocks before; drop the site."
            )
        return self._reached[key]
