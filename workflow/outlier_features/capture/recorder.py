"""Recorder: reduces what hooks see while the engine runs; what was seen of a block goes to the shard writer.

While a block runs, its results stay where they are; after it they come to the host in one piece, while the next runs.
"""

# Shapes: T position, C channel, k expert a token is routed to, E expert, S pair of a token and an expert.

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from outlier_features.artefacts import provenance
from outlier_features.capture import attention, expert_outputs, hooks, routing
from outlier_features.capture.engine import Outputs
from outlier_features.capture.expert_sums import BlockExperts
from outlier_features.capture.matrix_readers import MatrixReaders
from outlier_features.capture.prefetch import Reading
from outlier_features.capture.progress import Progress
from outlier_features.capture.resume import State, Unfinished
from outlier_features.capture.settings import Settings
from outlier_features.capture.shard_writer import (
    ATTENTION,
    DISTANCE,
    EXPERTS,
    INPUT_COSINE,
    INPUT_RMS,
    MARGIN,
    ROUTED,
    ROUTER,
    SHARED,
    Seen,
    ShardWriter,
)
from outlier_features.errors import ArchitectureError, ConfigError
from outlier_features.kernels import dispatch
from outlier_features.kernels.reference import Columns, Reached
from outlier_features.models import fused_experts, sites
from outlier_features.models.fused_experts import expert_count
from outlier_features.models.weights import Weights
from outlier_features.site_names import CACHED, MATRIX_INPUTS, SiteName
from outlier_features.statistics.timings import Timings


@dataclass
class _Running:
    """A block while windows run through it."""

    block: int
    reading: Reading
    readers: MatrixReaders
    experts: BlockExperts | None
    began: float = field(default_factory=time.perf_counter)
    window: int = 0
    observed: float = 0.0
    """Seconds that looking took."""
    found: dict[tuple[str, int], Any] = field(default_factory=dict)
    router: Columns = field(default_factory=dict)
    heads: int = 0
    routed: torch.Tensor | None = None
    """What the routed experts returned for the window that runs, (T, C)."""
    distance: torch.Tensor | None = None
    """Between rows of the router's matrix; None where no one matrix is its."""
    watching: ExitStack = field(default_factory=ExitStack)
    """Holds the hooks of `readers`, while the first window runs."""

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Count what the context takes as time of looking."""
        start = time.perf_counter()
        yield
        self.observed += time.perf_counter() - start


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
        self._probes = [sites.probes(block, settings.sites) for block in weights.blocks]
        self._reached: dict[tuple[SiteName, int], Reached] = dict(state.reached) if state else {}
        self._running: _Running | None = None
        self._shards = ShardWriter(work.directory, windows, ids, settings, origin)
        self._hooks = ExitStack()
        known = state.facts if state else {"timings": [], "consumers": {}, "absent": {}}
        first, timings = (state.block + 1 if state else 0), known["timings"]
        self._progress = Progress(len(weights.blocks), len(windows), first, timings)
        self.consumers: dict[str, list[str]] = dict(known["consumers"])
        """The names, as the checkpoint has them, of the modules that read each tensor, under `{block}.{site}`."""
        self.absent: dict[str, str] = dict(known["absent"])
        """What a block does not have, under `{block}.{what}`, and why."""

    @property
    def timings(self) -> Timings:
        """Where the time went, block by block, of earlier runs too."""
        return self._progress.timings

    def __enter__(self) -> None:
        """Attach the hooks."""
        enter, is_full = self._hooks.enter_context, self._settings.is_full
        for block, probes, experts in zip(self._weights.blocks, self._probes, self._experts, strict=True):
            enter(hooks.observed(probes, self._record))
            if is_full and "residual" in self._settings.sites:
                enter(hooks.passing(block, self._record_passing))
            if experts is not None:
                enter(routing.observed(block, experts, self._record_routing))
                enter(expert_outputs.observed(experts, self._record_experts))
            if is_full and (mixture := sites.mixture(block)) is not None:
                enter(hooks.passing(mixture, self._record_shared))
        if is_full:
            enter(attention.watched(self._record_attention))

    def __exit__(self, *_: object) -> None:
        """Take the hooks away, and let the shard that is being written be finished."""
        if self._running is not None:
            self._running.watching.close()
        self._hooks.close()
        self._progress.close()
        self._shards.close()

    def begin(self, block: int, reading: Reading) -> None:
        """Note how the weights of a block came, and when it began."""
        module, experts = self._weights.blocks[block], self._experts[block]
        of_experts = None if experts is None else BlockExperts(expert_count(experts), self._reduction)
        self._running = _Running(block, reading, MatrixReaders(module), of_experts)

    def turn(self, block: int, variant: int) -> None:
        """Do nothing: a capture runs the model as it is."""

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
            for site, names in (running.readers.names() | self._routed_readers(block)).items():
                self.consumers[f"{block}.{site}"] = [self._weights.stored_name(block, name) for name in names]
        self._progress.step()

    def leave(self, block: int, outputs: Outputs) -> None:
        """Let the shard of a finished block be written, and save what another run needs to resume after it.

        Raises what went wrong with the shard of the block before, NonFiniteActivations among it.
        """
        running, self._running = self._block(), None
        self._require_every_site(running)
        self._note_absent(running)
        computed = time.perf_counter()
        self._shards.wait()
        collected = self._reduction.collect(list(running.found.values()))
        experts = type(self._experts[block]).__name__
        seen = Seen(block, list(running.found), collected, running.router, experts, running.heads, running.experts)
        self._shards.write(seen)
        self._note_timing(running, computed)
        if block + 1 < len(self._weights.blocks) and self._work.is_due():
            self._shards.wait()
            trees = [outputs.of(window) for window in range(len(self._ids))]
            facts = {"timings": self.timings.rows, "consumers": self.consumers, "absent": self.absent}
            self._work.save(block, trees, self._reached, facts)
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

    def _routed_readers(self, block: int) -> dict[SiteName, list[str]]:
        """Return the name inside the block of the fused experts, which read what no module of theirs is handed."""
        experts, modules = self._experts[block], self._weights.blocks[block].named_modules()
        if experts is None or "down_in" not in self._settings.sites:
            return {}
        return {"down_in": [name for name, module in modules if module is experts]}

    def _require_every_site(self, running: _Running) -> None:
        experts = self._experts[running.block]
        routed = () if experts is None else (ROUTER, EXPERTS)
        seen = {site for site in CACHED if any((site, index) in running.found for index in range(len(self._ids)))}
        names = {*self._settings.sites, *routed} - (set(CACHED) - seen)
        if "shared_down_in" not in {probe.site for probe in self._probes[running.block]}:
            names -= {"shared_down_in"}  # a block without a shared expert
        missing = sorted(
            {name for name in names for index in range(len(self._ids)) if (name, index) not in running.found}
        )
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

    def _note_absent(self, running: _Running) -> None:
        """Say why a block has no row of something that other blocks have."""
        if not self._settings.is_full:
            return
        mixer = type(sites.attention(self._weights.blocks[running.block])).__name__
        of_attention = [site for site in CACHED if site in self._settings.sites] + [ATTENTION]
        reasons = dict.fromkeys(
            of_attention,
            f"{mixer} hands no keys and values of a window's positions to transformers' attention interface: it is "
            "linear attention, or computes attention by itself",
        )
        if self._experts[running.block] is not None:
            reasons[MARGIN] = "no top-k over all experts of the block made the choice"
        for name, reason in reasons.items():
            if (name, 0) not in running.found:
                self.absent[f"{running.block}.{name}"] = reason

    def _record(self, site: SiteName, x_TC: torch.Tensor) -> None:
        running = self._running
        if running is None:
            return  # a block that an earlier run has finished only returns what it returned then
        with running.looking():
            if running.window == 0:
                running.readers.saw(site, x_TC)
            self._reduce(running, site, x_TC)

    def _reduce(self, running: _Running, site: SiteName, x_TC: torch.Tensor, per_position: int = 1) -> None:
        """Begin to reduce a tensor, which has some rows for each position."""
        positions = len(self._ids[running.window])
        if x_TC.shape[0] != positions * per_position:
            raise ArchitectureError(f"block {running.block}: {site} has {x_TC.shape[0]} rows for {positions} tokens.")
        reached = self._reached_at(running, site, x_TC) if site in self._settings.counted else None
        is_spread = self._settings.is_full and site in (*MATRIX_INPUTS, *CACHED)
        running.found[site, running.window] = self._reduction.site(
            x_TC, reached, medians=site == "residual", spread=is_spread, first=per_position
        )

    def _keep(self, running: _Running, name: str, values: torch.Tensor) -> None:
        running.found[name, running.window] = self._reduction.keep(values)

    def _record_passing(self, x_TC: torch.Tensor, y_TC: torch.Tensor) -> None:
        """Keep how large what a block was handed is at each position, and its cosine with what the block returns."""
        if (running := self._running) is None or x_TC.shape != y_TC.shape:
            return
        with running.looking():
            x_TC, y_TC = x_TC.float(), y_TC.float()
            norms_T = [torch.linalg.vector_norm(each, dim=1) for each in (x_TC, y_TC)]
            cosine_T = torch.linalg.vecdot(x_TC, y_TC) / norms_T[0] / norms_T[1]
            self._keep(running, INPUT_RMS, norms_T[0] / x_TC.shape[1] ** 0.5)
            self._keep(running, INPUT_COSINE, cosine_T)

    def _record_attention(self, handed: attention.Handed) -> None:
        if (running := self._running) is None or (ATTENTION, running.window) in running.found:
            return
        with running.looking():
            running.heads = handed.heads
            if handed.keys_GTD.shape[1] != len(self._ids[running.window]):
                return  # keys of other positions than those of the window, which would be counted as its own
            for site, heads_GTD in zip(CACHED, (handed.keys_GTD, handed.values_GTD), strict=True):
                if site in self._settings.sites:
                    self._reduce(running, site, attention.rows(heads_GTD))
            self._keep(running, ATTENTION, attention.sampled(handed))

    def _record_routing(self, choice: routing.Choice) -> None:
        if (running := self._running) is None:
            return
        assert running.experts is not None
        running.experts.choice = choice
        running.router = {"expert_count": running.experts.count, "top_k": choice.experts_Tk.shape[-1]}
        self._keep(running, ROUTER, choice.experts_Tk.reshape(-1).short())
        if not self._settings.is_full:
            return
        with running.looking():
            if choice.margin_T is not None:
                self._keep(running, MARGIN, choice.margin_T)
            if (
                running.window == 0
                and (matrix_EC := sites.router_matrix(self._weights.blocks[running.block])) is not None
            ):
                running.distance = routing.router_distance(matrix_EC)
            if running.distance is not None:
                self._keep(running, DISTANCE, running.distance)

    def _record_experts(self, found: expert_outputs.Pass) -> None:
        if (running := self._running) is None:
            return
        assert running.experts is not None
        running.observed += found.seconds
        with running.looking():
            self._keep(running, EXPERTS, found.largest_E)
            if self._settings.is_full:
                self._keep(running, ROUTED, _energy(found.output))
                running.routed = found.output.reshape(
                    -1, found.output.shape[-1]
                ).clone()  # the shared one may add to it
            if (rows := running.experts.whole(found)) is None:
                return  # an error once the block is done, which names the experts whose rows were not seen
            if "down_in" in self._settings.sites:
                self._reduce(running, "down_in", rows.inputs_SI, int(running.router["top_k"]))
            if self._settings.is_full:
                running.experts.add(found.hidden_TC, rows)

    def _record_shared(self, _: torch.Tensor, y_TC: torch.Tensor) -> None:
        """Keep what a mixture returns beyond its routed experts: the shared one, with whatever gate it has."""
        if (running := self._running) is not None and running.routed is not None:
            with running.looking():
                self._keep(running, SHARED, _energy(y_TC.float() - running.routed.float()))
            running.routed = None

    def _reached_at(self, running: _Running, site: SiteName, x_TC: torch.Tensor) -> Reached:
        key = (site, running.window)
        if key not in self._reached:
            self._reached[key] = Reached.nothing(x_TC.shape[0], x_TC.shape[1], x_TC.device)
        elif self._reached[key].absolute_TC.shape != x_TC.shape:
            raise ConfigError(
                f"block {running.block}: {site} has another width than in the blocks before; drop the site."
            )
        return self._reached[key]


def _energy(x: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares of an activation, float64 (1,)."""
    return torch.linalg.vector_norm(x, dtype=torch.float64).square()[None]
