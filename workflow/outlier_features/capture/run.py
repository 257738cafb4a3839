"""Capture: one pass of a model over its windows, observed at every site and written block by block."""

# Shapes: S sequence (window), T position, C channel, V vocabulary.

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from outlier_features.artefacts import provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.capture import engine
from outlier_features.capture.offload import Offload, budgets
from outlier_features.capture.recorder import Recorder
from outlier_features.capture.resume import Unfinished, finished_bytes, identity
from outlier_features.capture.scores import Scores, require_finite
from outlier_features.capture.settings import Settings
from outlier_features.errors import ConfigError, OutOfMemory
from outlier_features.machine import devices, memory
from outlier_features.machine.disk import explained, require_room
from outlier_features.machine.file_lock import alone
from outlier_features.models import checkpoints, parameters
from outlier_features.models.weights import Weights
from outlier_features.planning.estimate import Estimate, Pass, estimate
from outlier_features.statistics import schemas, shards, timings
from outlier_features.text.windows import TokenWindows, read_windows


def capture(
    checkpoint: Path,
    tokens: Path,
    manifest: Path,
    settings: Settings,
    lineage: Lineage,
    *,
    windows: Sequence[int] | None = None,
    device: torch.device | None = None,
    memory_budget: float | None = None,
) -> None:
    """Run the model in `checkpoint` over the windows in `tokens`; write its shards and the `manifest` beside them.

    The shards go to the directory of the manifest's name without suffix; the manifest is written last. An older result
    stays until the new one is whole, and an interrupted run resumes after the last saved block.
    `windows` picks some of the windows, all by default; `device` is a CUDA device where there is one, else the CPU;
    hidden states that `memory_budget` bytes (by default what is free) cannot hold beside the weights are offloaded.
    Raises NonFiniteActivations naming block, site and window, or window and position of logits and losses, OutOfMemory
    naming the block, and SourceError where the disk has no room.
    """
    device = device or devices.best_device()
    memory.return_freed_memory()
    source = checkpoints.read_source(checkpoint, lineage.get("checkpoint"))
    packed = read_windows(tokens, lineage.get("tokens"))
    chosen = sorted(range(len(packed.ids_ST)) if windows is None else windows)
    plan = _plan(checkpoint, settings, len(chosen), packed)
    final = manifest.with_suffix("")
    leftovers = final.with_name(f".{final.name}.unfinished")
    rest = plan.statistics_bytes - finished_bytes(leftovers)
    require_room(manifest.parent, rest, f"the statistics of {checkpoint.name}")
    room = budgets(device, plan, memory_budget)
    weights = Weights(checkpoint, settings.dtype, device, experts_implementation=settings.experts_implementation)
    _check_vocabulary(weights, packed, tokens)
    if weights.left_out:
        parts = ", ".join(name.rstrip(".") for name in weights.left_out)
        print(f"{checkpoint.name} sees images too: its text part is measured, without {parts}")
    if weights.experts_note:
        print(f"{checkpoint.name}: {weights.experts_note}")
    origin = provenance.record(
        lineage,
        model=checkpoint.name,
        source=source,
        dtype=str(settings.dtype).removeprefix("torch."),
        device=devices.name(device),
        threads=devices.threads(device),
        attention=weights.model.config._attn_implementation,
        experts_implementation=getattr(weights.model.config, "_experts_implementation", None),
        left_out=list(weights.left_out),
    )
    with explained(leftovers), alone(final), Unfinished(leftovers, identity(origin, windows=chosen)) as work:
        offload = Offload(*room, folder=work.directory)  # a run that is killed leaves its files to the next
        with _memory_explained(checkpoint.name, plan):
            scores, recorder = _pass(weights, packed, chosen, settings, work, origin, offload)
        recorder.write_coverage()
        nonfinite = require_finite(scores, chosen, settings, checkpoint.name)  # after the sites, whose errors say more
        rows = [{"window": window, "loss": score.host_losses} for window, score in zip(chosen, scores, strict=True)]
        shards.write(work.directory / shards.LOSSES, schemas.LOSS_SCHEMA, rows, origin)
        recorder.timings.write(work.directory / timings.FILE, origin)
        facts = {
            **_facts(weights, packed, chosen, settings),
            "consumers": recorder.consumers,
            "absent": recorder.absent,
        }
        facts |= nonfinite
        shards.write_manifest(manifest.with_name(f".{manifest.name}.new"), work.directory, facts, origin)
        work.finish(final)
        manifest.with_name(f".{manifest.name}.new").replace(manifest)
    say_memory(checkpoint.name, device, plan, offload)


def say_memory(name: str, device: torch.device, plan: Estimate, offload: Offload) -> None:
    """Print the peak of memory beside what was planned, and what was offloaded."""
    planned = plan.device_bytes + (plan.host_bytes if device.type == "cpu" else 0)
    peak = memory.peak_memory(device)
    print(f"{name}: peak memory {peak / 1e9:.2f} GB on {devices.name(device)} ({planned / 1e9:.2f} GB planned)")
    for place in ("host", "disk"):
        if offload.most[place]:
            print(f"{name}: up to {offload.most[place] / 1e9:.2f} GB of hidden states were offloaded to {place}")


@contextmanager
def _memory_explained(name: str, plan: Estimate) -> Iterator[None]:
    """Add to an error of memory what the pass takes by the plan, and what to do."""
    try:
        yield
    except OutOfMemory as error:
        raise OutOfMemory(
            f"{name}: {error}; by the plan the pass takes {plan.device_bytes / 1e9:.2f} GB on the device and "
            f"{plan.host_bytes / 1e9:.2f} GB on the host. Lower sequences or length of the corpus, or give it more "
            "memory, then run again: blocks that are saved are kept."
        ) from error


def _pass(
    weights: Weights,
    packed: TokenWindows,
    chosen: Sequence[int],
    settings: Settings,
    work: Unfinished,
    origin: provenance.Provenance,
    offload: Offload,
) -> tuple[list[Scores], Recorder]:
    """Run the windows through the blocks that no earlier run has finished; return their scores and the recorder."""
    state = work.load(weights.device)
    if state is not None:
        blocks = len(weights.blocks)
        print(f"{origin['model']}: resuming after block {state.block + 1} of {blocks}, which an earlier run finished")
    arrays = [packed.ids(window) for window in chosen]
    ids = [torch.from_numpy(row).long() for row in arrays]
    recorder = Recorder(weights, chosen, arrays, settings, work, origin, state)
    passed = None if state is None else engine.Passed(state.block, state.outputs)
    with recorder:
        found = engine.run(
            weights,
            ids,
            lambda index, logits: Scores.of(logits, ids[index]),
            recorder,
            passed=passed,
            offload=offload,
        )
    return found, recorder


def _plan(checkpoint: Path, settings: Settings, windows: int, packed: TokenWindows) -> Estimate:
    """Return what the pass takes."""
    dtype = str(settings.dtype).removeprefix("torch.")
    run = Pass.over(windows, packed.ids_ST.shape[1], dtype, settings.sites, settings.counted)
    return estimate(checkpoints.read_footprint(checkpoint), run)


def _facts(weights: Weights, packed: TokenWindows, windows: Sequence[int], settings: Settings) -> Mapping[str, Any]:
    """Return what readers of the shards need to know about the model and the pass."""
    return {
        **parameters.count(weights.model).facts(),
        "architecture": type(weights.model).__name__,
        "model_type": weights.model.config.get_text_config().model_type,
        "blocks": len(weights.blocks),
        "channels": weights.model.config.get_text_config().hidden_size,
        "dtype": str(settings.dtype).removeprefix("torch."),
        "windows": list(windows),
        "positions": packed.ids_ST.shape[1],
        "positions_per_window": packed.lengths[list(windows)].tolist(),
        "sites": list(settings.sites),
        "grids": asdict(settings.grids),
    }


def _check_vocabulary(weights: Weights, packed: TokenWindows, tokens: Path) -> None:
    size = weights.model.get_input_embeddings().weight.shape[0]
    largest = int(packed.ids_ST.max())
    if largest >= size:
        raise ConfigError(
            f"{tokens}: holds token {largest}, but the embedding of {weights.directory.name} has {size} rows; "
            "tokenizer and model do not belong together."
        )
