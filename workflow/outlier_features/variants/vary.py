"""Vary: the plain model and any number of changed ones in one pass over the weights: losses, and sums by block."""

# Shapes: S sequence (window), T position, V vocabulary.

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from outlier_features.artefacts import provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.capture import engine
from outlier_features.capture.engine import Variant as Course
from outlier_features.capture.offload import Offload, budgets
from outlier_features.capture.resume import Unfinished, identity
from outlier_features.capture.run import say_memory
from outlier_features.capture.scores import token_losses
from outlier_features.config.variants import Calibrated, Intervention, Variant, Vary
from outlier_features.errors import ConfigError, NonFiniteActivations, OutOfMemory
from outlier_features.machine import devices, memory
from outlier_features.machine.disk import explained
from outlier_features.machine.file_lock import alone
from outlier_features.models import checkpoints, fused_experts, sites
from outlier_features.models.sizes import Footprint
from outlier_features.models.weights import Weights
from outlier_features.planning import varied
from outlier_features.planning.estimate import Estimate, Pass
from outlier_features.statistics import shards
from outlier_features.text.windows import TokenWindows, read_windows
from outlier_features.variants.observer import SHARDS, VariantObserver
from outlier_features.variants.progress import Progress
from outlier_features.variants.runs import PLAIN, Found, Run, Shape, runs
from outlier_features.variants.schemas import LOSS_SCHEMA
from outlier_features.variants.treatments import format_of


@dataclass(frozen=True)
class Asked:
    """What a pass is to compare."""

    variants: Mapping[str, Variant]
    interventions: Mapping[str, Intervention] = field(default_factory=dict)
    settings: Vary = field(default_factory=Vary)
    found: Found = field(default_factory=Found)
    """What a capture found that interventions name."""

    @property
    def entries(self) -> dict[str, Calibrated]:
        """Everything that has windows to calibrate on, by name."""
        return {**self.variants, **self.interventions}


@dataclass(frozen=True)
class Model:
    """How a model runs."""

    dtype: torch.dtype
    experts_implementation: str | None = None
    device: torch.device | None = None
    memory_budget: float | None = None


@dataclass(frozen=True)
class Text:
    """The windows of a pass: those that are calibrated on, then those that are measured."""

    measured: TokenWindows
    chosen: list[int]
    """The numbers of the measured windows."""
    calibrating: list[np.ndarray]
    by_run: dict[str, list[int]]
    """Which of the calibration windows each entry uses, by name; under "" those that all may use."""

    @property
    def ids(self) -> list[torch.Tensor]:
        """Token ids of every window (T,)."""
        arrays = [*self.calibrating, *(self.measured.ids(window) for window in self.chosen)]
        return [torch.from_numpy(row).long() for row in arrays]

    @property
    def measured_places(self) -> range:
        """Where the measured windows are among all."""
        return range(len(self.calibrating), len(self.calibrating) + len(self.chosen))


def vary(
    checkpoint: Path,
    tokens: Path,
    calibration: Path | None,
    manifest: Path,
    asked: Asked,
    model: Model,
    lineage: Lineage,
    *,
    windows: Sequence[int] | None = None,
) -> None:
    """Run the model in `checkpoint`, plain and changed as `asked`, over the windows in `tokens`; write the `manifest`.

    The shards go to the directory of the manifest's name without suffix; the manifest is written last. An interrupted
    run resumes after the last saved block. `calibration` holds the windows of training text; `windows` picks some of
    those that are measured. Raises ConfigError for what the model or the text cannot have, and NonFiniteActivations
    where the plain model's losses are no numbers; those of a variant are kept as they are.
    """
    device = model.device or devices.best_device()
    memory.return_freed_memory()
    source = checkpoints.read_source(checkpoint, lineage.get("checkpoint"))
    text = _text(tokens, calibration, asked, lineage, windows)
    final = manifest.with_suffix("")
    leftovers = final.with_name(f".{final.name}.unfinished")
    weights = Weights(checkpoint, model.dtype, device, experts_implementation=model.experts_implementation)
    all_runs = runs(asked.variants, asked.interventions, _shape(weights), asked.found, asked.settings.noise)
    courses = _courses(all_runs, text)
    plan = _plan(checkpoint, text, all_runs, asked, model)
    origin = provenance.record(
        lineage,
        model=checkpoint.name,
        source=source,
        dtype=str(model.dtype).removeprefix("torch."),
        device=devices.name(device),
        threads=devices.threads(device),
        experts_implementation=getattr(weights.model.config, "_experts_implementation", None),
    )
    facts = _facts(text, all_runs, asked)
    in_common = identity(origin, **facts)
    with explained(leftovers), alone(final), Unfinished(leftovers, in_common, SHARDS) as work:
        offload = Offload(*budgets(device, plan.estimate, model.memory_budget), folder=work.directory)
        with _memory_explained(checkpoint, plan, device, model.memory_budget):
            losses = _pass(weights, text, all_runs, courses, asked, work, origin, offload)
        rows = _loss_rows(losses, courses, text)
        _require_finite(rows, checkpoint.name)
        shards.write(work.directory / shards.LOSSES, LOSS_SCHEMA, rows, origin)
        new = manifest.with_name(f".{manifest.name}.new")
        shards.write_manifest(new, work.directory, facts, origin)
        work.finish(final)
        new.replace(manifest)
    say_memory(checkpoint.name, device, plan.estimate, offload)


def _courses(all_runs: Sequence[Run], text: Text) -> list[Course]:
    """Return over which windows each run goes, and from which block on it differs from the plain model."""
    result = []
    for run in all_runs:
        every = list(text.measured_places)
        if run.kind == PLAIN:
            every = [*range(len(text.calibrating)), *every]
        elif run.is_quantised and isinstance(run.entry, Variant) and format_of(run.entry).needs_calibration:
            every = [*text.by_run[run.name], *every]
        result.append(Course(every, run.first))
    return result


def _pass(
    weights: Weights,
    text: Text,
    all_runs: Sequence[Run],
    courses: Sequence[Course],
    asked: Asked,
    work: Unfinished,
    origin: provenance.Provenance,
    offload: Offload,
) -> list[torch.Tensor | None]:
    state = work.load(weights.device)
    if state is not None:
        print(f"{origin['model']}: resuming after block {state.block + 1} of {len(weights.blocks)}")
    ids = text.ids
    compared = [
        place for place, w in zip(text.measured_places, text.chosen, strict=True) if w < asked.settings.sqnr_windows
    ]
    progress = Progress(len(weights.blocks), courses, 0 if state is None else state.block + 1)
    observer = VariantObserver(weights, all_runs, courses, text.chosen, compared, text.by_run, work, origin, progress)

    def finish(place: int, logits_TV: torch.Tensor) -> torch.Tensor | None:
        return token_losses(logits_TV, ids[place]).cpu() if place in text.measured_places else None

    passed = None if state is None else engine.Passed(state.block, state.outputs)
    with observer:
        return engine.run(weights, ids, finish, observer, variants=courses, passed=passed, offload=offload)


def _text(
    tokens: Path, calibration: Path | None, asked: Asked, lineage: Lineage, windows: Sequence[int] | None
) -> Text:
    """Read the windows, and say which calibration windows each entry uses."""
    measured = read_windows(tokens, lineage.get("tokens"))
    training = None if calibration is None else read_windows(calibration, lineage.get("calibration"), "calibration")
    chosen = sorted(range(len(measured.ids_ST)) if windows is None else windows)
    places: dict[tuple[str, int], int] = {}
    calibrating: list[np.ndarray] = []
    by_run: dict[str, list[int]] = {}
    for name, entry in {"": Calibrated(), **asked.entries}.items():
        kind = entry.calibration or ("measured" if training is None else "training")
        found = training if kind == "training" else measured
        if found is None or (len(found.ids_ST) < entry.windows and entry.asks_for_windows):
            have = 0 if found is None else len(found.ids_ST)
            raise ConfigError(
                f"{name}: asks for {entry.windows} windows of {kind} text to calibrate on, and there are {have}; lower "
                f"windows{', or give calibration: measured' * (kind == 'training')}."
            )
        for window in range(min(entry.windows, len(found.ids_ST))):
            if (kind, window) not in places:
                places[kind, window] = len(calibrating)
                calibrating.append(found.ids(window))
            by_run.setdefault(name, []).append(places[kind, window])
    return Text(measured, chosen, calibrating, by_run)


def _shape(weights: Weights) -> Shape:
    """Return what of the model decides which runs it can have."""
    fused = {index: fused_experts.of_block(block) for index, block in enumerate(weights.blocks)}
    return Shape(
        weights.directory.name,
        weights.model.config.get_text_config().hidden_size,
        {index: fused_experts.expert_count(each) for index, each in fused.items() if each is not None},
        len(weights.blocks),
        any(sites.routers(block) for block in weights.blocks),
    )


@dataclass(frozen=True)
class _Plan:
    """What the pass takes, and what it follows from."""

    footprint: Footprint
    run: Pass
    runs: varied.Runs

    @property
    def estimate(self) -> Estimate:
        """What the pass takes."""
        return varied.estimate(self.footprint, self.run, self.runs)


def _plan(checkpoint: Path, text: Text, all_runs: Sequence[Run], asked: Asked, model: Model) -> _Plan:
    dtype = str(model.dtype).removeprefix("torch.")
    run = Pass(len(text.chosen), text.measured.ids_ST.shape[1], dtype, sites=0, counted=0)
    compared = min(asked.settings.sqnr_windows, len(text.chosen))
    counts = varied.Runs(len(all_runs), len(text.calibrating), compared, len(asked.variants))
    return _Plan(checkpoints.read_footprint(checkpoint), run, counts)


@contextmanager
def _memory_explained(checkpoint: Path, plan: _Plan, device: torch.device, budget: float | None) -> Iterator[None]:
    """Add to an error of memory how many of the runs would have fitted."""
    try:
        yield
    except OutOfMemory as error:
        free = memory.USABLE * memory.free_memory(device) if budget is None else budget
        fitting = min(plan.runs.total, varied.most_runs(plan.footprint, plan.run, plan.runs, free))
        raise OutOfMemory(
            f"{checkpoint.name}: {error}; by the plan {plan.runs.total} runs take "
            f"{plan.estimate.device_bytes / 1e9:.2f} GB and {fitting} would fit. Ask for fewer variants or draws, or "
            "lower sequences or length of the corpus, or share its windows out (capture.scatter)."
        ) from error


def _loss_rows(losses: Sequence[torch.Tensor | None], courses: Sequence[Course], text: Text) -> list[dict[str, Any]]:
    found = iter(losses)
    rows = []
    for number, course in enumerate(courses):
        for place in course.windows:
            loss = next(found)
            if loss is not None:
                window = text.chosen[place - len(text.calibrating)]
                rows.append({"run": number, "window": window, "loss": loss.numpy()})
    return rows


def _require_finite(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Refuse a plain model without losses; those of variants are reported as they are."""
    for row in rows:
        if row["run"] == 0 and not np.isfinite(row["loss"]).all():
            raise NonFiniteActivations(
                f"{name}: losses of window {row['window']} are NaN or infinite without any change; measure it in a "
                "wider dtype."
            )


def _facts(text: Text, all_runs: Sequence[Run], asked: Asked) -> dict[str, Any]:
    """Return what readers need to know of the runs."""
    return {
        "windows": text.chosen,
        "calibration_windows": {name: len(found) for name, found in text.by_run.items()},
        "sqnr_windows": asked.settings.sqnr_windows,
        "runs": [_described(run) for run in all_runs],
    }


def _described(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {"name": run.name, "kind": run.kind, "draw": run.draw}
    if isinstance(run.entry, Variant):
        form = format_of(run.entry)
        found |= {"format": run.entry.format, "option": run.entry.option}
        found |= {"weight_bits": form.weight_bits, "activation_bits": form.activation_bits}
        found |= {"entry": run.entry.canonical()}
    elif isinstance(run.entry, Intervention):
        found |= {"set_to": run.set_to, "channels": list(run.channels)}
        found |= {"experts": {str(block): list(each) for block, each in run.experts.items()}}
        found |= {"at": "experts off" if run.entry.experts is not None else "+".join(run.entry.at)}
    return found
