"""Observer: changes the model when the variant turns, and keeps what each shows; one shard a block.

The plain model goes first through every block: its windows show which matrices there are, their inputs, ranges and
means. Its own tensors are in place again whenever it runs, and when the block is left.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from outlier_features.artefacts import provenance
from outlier_features.capture import attention, routing
from outlier_features.capture.engine import Outputs
from outlier_features.capture.engine import Variant as Course
from outlier_features.capture.prefetch import Reading
from outlier_features.capture.resume import Unfinished
from outlier_features.config.variants import Intervention, Variant
from outlier_features.models import fused_experts
from outlier_features.models.weights import Weights
from outlier_features.statistics import shards
from outlier_features.variants import sqnr
from outlier_features.variants.effects import EffectsOfBlock
from outlier_features.variants.fake_quantisation import NOISE, QuantisedBlock
from outlier_features.variants.intervened_block import IntervenedBlock
from outlier_features.variants.interventions.experts import switched_off
from outlier_features.variants.matrices import require_handed
from outlier_features.variants.options.treatment import Treatment
from outlier_features.variants.plain_block import PlainBlock
from outlier_features.variants.progress import Progress
from outlier_features.variants.runs import FORMAT, PLAIN, Run
from outlier_features.variants.runs import NOISE as NOISE_KIND
from outlier_features.variants.schemas import EFFECT_SCHEMA, SQNR_SCHEMA
from outlier_features.variants.treatments import treatment

SHARDS = ("sqnr-*.arrow", "effects-*.arrow")


class VariantObserver:
    """The engine's observer of a pass with variants."""

    def __init__(
        self,
        weights: Weights,
        runs: Sequence[Run],
        courses: Sequence[Course],
        windows: Sequence[int],
        compared: Sequence[int],
        calibrations: Mapping[str, Sequence[int]],
        work: Unfinished,
        origin: provenance.Provenance,
        progress: Progress,
    ) -> None:
        """Write to the folder of `work`.

        `windows` are the numbers of the measured windows, which follow the calibration windows; `compared` says at
        which of all windows matrices are compared; `calibrations` which windows a run calibrates on, by its name.
        """
        self._weights, self._runs, self._courses, self._windows = weights, runs, courses, windows
        self._compared, self._calibrations = set(compared), calibrations
        self._calibrating = max((index + 1 for each in calibrations.values() for index in each), default=0)
        self._work, self._origin, self._progress = work, origin, progress
        self._hooks, self._changed = ExitStack(), ExitStack()
        self._plain: PlainBlock | None = None
        self._quantised: QuantisedBlock | None = None
        self._effects: EffectsOfBlock | None = None
        self._rows: list[dict[str, Any]] = []
        self._variant = self._window = 0

    def __enter__(self) -> None:
        """Attach the hooks that stay."""
        for block in self._weights.blocks:
            experts = fused_experts.of_block(block)
            if experts is not None:
                self._hooks.enter_context(routing.observed(block, experts, self._see_routing))
        self._hooks.enter_context(attention.watched(self._see_attention))

    def __exit__(self, *_: object) -> None:
        """Put back what was changed, and take the hooks away."""
        self._changed.close()
        self._hooks.close()
        self._progress.close()

    def begin(self, block: int, reading: Reading) -> None:
        """Prepare for a block."""
        module = self._weights.blocks[block]
        experts = fused_experts.of_block(module)
        self._plain = PlainBlock(module, self._calibrating, self._compared)
        self._effects = EffectsOfBlock(0 if experts is None else fused_experts.expert_count(experts))
        self._rows = []

    def turn(self, block: int, variant: int) -> None:
        """Let the model be another one."""
        run, before = self._runs[variant], self._runs[self._variant]
        is_twin = run.kind == NOISE_KIND and before.kind == FORMAT and before.name == run.name
        if not is_twin or self._quantised is None:
            self._finish_variant(block)
        self._variant = variant
        self._progress.turn(block, run)
        assert self._plain is not None
        if run.kind == PLAIN:
            self._changed.enter_context(self._plain.watched())
        elif run.changes(block):
            self._change(block, run, is_twin)

    def enter(self, block: int, window: int) -> None:
        """Note which window runs; the first of the plain model shows which matrices the block has."""
        assert self._plain is not None
        self._window = self._plain.window = window
        if self._quantised is not None:
            self._quantised.window = window
            self._quantised.is_calibrating = window < self._calibrating
        if self._variant == 0 and window == self._courses[0].windows[0]:
            self._learning = ExitStack()
            self._learning.enter_context(self._plain.learning())

    def passed(self, block: int, window: int) -> None:
        """Count a step."""
        if self._variant == 0 and window == self._courses[0].windows[0]:
            self._learning.close()
        self._progress.step()

    def leave(self, block: int, outputs: Outputs) -> None:
        """Write what the block showed, and save what another run needs to resume after it."""
        self._finish_variant(block)
        effects, self._effects = self._effects, None
        assert effects is not None
        rows = [
            {"run": run, "block": block, "window": self._windows[window - self._calibrating], **found.row()}
            for (run, window), found in sorted(effects.found.items())
            if window >= self._calibrating
        ]
        folder = self._work.directory
        shards.write(folder / f"effects-{block:03d}.arrow", EFFECT_SCHEMA, rows, self._origin)
        shards.write(folder / f"sqnr-{block:03d}.arrow", SQNR_SCHEMA, self._rows, self._origin)
        self._plain = None
        self._variant = 0
        if block + 1 < len(self._weights.blocks) and self._work.is_due():
            self._work.save(block, outputs.all(self._courses), {}, {})

    def _change(self, block: int, run: Run, is_twin: bool) -> None:
        module, plain = self._weights.blocks[block], self._plain
        assert plain is not None
        if run.is_quantised:
            assert isinstance(run.entry, Variant)
            factor = NOISE if run.kind == NOISE_KIND else 1.0
            if is_twin and self._quantised is not None:
                self._write_sqnr(block)
                # what is known is of the model's own matrices, and rounded ones are in their place
                known = {source: each.known for source, each in self._quantised.treatments.items()}
                self._quantised.again({source: treatment(run.entry, each) for source, each in known.items()}, factor)
            else:
                treatments = self._treatments(block, run.entry, run.name)
                self._quantised = QuantisedBlock(module, plain.matrices, treatments, factor)
                self._changed.enter_context(self._quantised.running())
        elif run.experts:
            fused = fused_experts.of_block(module)
            assert fused is not None
            self._changed.enter_context(switched_off(fused, run.experts[block]))
        elif run.change is not None:
            assert isinstance(run.entry, Intervention)
            windows = self._calibrations[run.name]
            means = {site: plain.mean(site, windows) for site in plain.means}
            self._changed.enter_context(IntervenedBlock(module, run.entry.at, run.change, means).running())

    def _treatments(self, block: int, entry: Variant, name: str) -> dict[str, Treatment]:
        """Return what a variant does to each source of inputs of the block."""
        plain = self._plain
        assert plain is not None
        sources = dict.fromkeys(
            matrix.source
            for matrix in plain.matrices
            if (entry.sites is None or matrix.site in entry.sites) and f"{block}.{matrix.site}" not in entry.keep_places
        )
        return {source: treatment(entry, plain.known(source, self._calibrations[name])) for source in sources}

    def _finish_variant(self, block: int) -> None:
        """Take sums of the variant that ran, and put the model's own tensors back."""
        if self._runs[self._variant].kind == FORMAT and self._quantised is not None:
            self._write_sqnr(block)
        self._quantised = None
        self._changed.close()
        if self._variant == 0 and self._plain is not None and self._plain.matrices:
            self._plain.finish()

    def _write_sqnr(self, block: int) -> None:
        run, quantised, plain = self._runs[self._variant], self._quantised, self._plain
        assert quantised is not None
        assert plain is not None
        assert isinstance(run.entry, Variant)
        quantised_matrices = [matrix for matrix in plain.matrices if matrix.source in quantised.treatments]
        require_handed(quantised_matrices, quantised.handed, block)
        for row in sqnr.rows(plain, quantised, has_option=bool(run.entry.option)):
            matrix = row.pop("matrix")
            own = {"variant": run.name, "block": block, "site": matrix.site}
            name = self._weights.stored_name(block, matrix.owner)
            suffix = f".{matrix.parameter}" if matrix.is_routed else ""
            self._rows.append(own | {"matrix": name + suffix, "parameters": matrix.of(plain.block).numel()} | row)

    def _see_attention(self, handed: attention.Handed) -> None:
        if self._effects is not None and self._runs[self._variant].shows_effects:
            self._effects.see_attention(self._variant, self._window, handed)

    def _see_routing(self, choice: routing.Choice) -> None:
        if self._effects is not None and self._runs[self._variant].shows_effects:
            self._effects.see_routing(self._variant, self._window, choice)
