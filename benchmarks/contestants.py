"""Contestants: ways to find the outlier features of a checkpoint, or only to run it.

All of them run the same windows one by one through the same weights and return the losses. Those that look for outlier
features count them by the definition `arb8020`.
"""

# Shapes: N tensor (one block and site), T position, C channel, V vocabulary.

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from accelerate.utils.offload import OffloadedWeightsLoader
from outlier_features.capture import engine
from outlier_features.capture.run import capture
from outlier_features.capture.scores import token_losses
from outlier_features.capture.settings import Settings
from outlier_features.config.config import Config
from outlier_features.machine.devices import best_device
from outlier_features.metrics import criteria, evidence, outlier_features
from outlier_features.models.weights import Weights
from outlier_features.statistics.shards import Statistics
from outlier_features.text.windows import read_windows
from overhead import Nothing
from page_cache import drop, files
from torch import nn
from transformers import AutoModelForCausalLM

RESIDENT = 1 / 3
"""The share of the weights that disk offload may keep in memory."""


@dataclass(frozen=True)
class Job:
    """What every contestant is given; `folder` is empty and its own."""

    checkpoint: Path
    tokens: Path
    folder: Path
    dtype: str
    config: Config

    @property
    def windows(self) -> list[torch.Tensor]:
        """Token ids of each window (T,)."""
        return [torch.from_numpy(ids_T).long() for ids_T in read_windows(self.tokens).ids_ST]

    def load(self, **options: Any) -> nn.Module:
        """Return the model as transformers loads it."""
        return AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=getattr(torch, self.dtype), **options).eval()


@dataclass(frozen=True)
class Outcome:
    """What a contestant found: the mean loss of each window, and outlier features if it looks for them."""

    losses: list[float]
    fetched_bytes: int
    """Bytes of weights it asked for, from storage or page cache, each as often as asked."""
    outlier_count: int | None = None


def ours(job: Job) -> Outcome:
    """Run this project's whole job: statistics at four sites, shards, and the outlier features."""
    config, manifest = job.config, job.folder / "statistics.json"
    settings = Settings.of(config.capture, config.counted_sites, config.coverages, job.dtype)
    with counted(Weights, "read", _nbytes) as fetched:
        capture(job.checkpoint, job.tokens, manifest, settings, {"statistics": "benchmark"})
    found = Statistics([manifest])
    wanted = criteria.criteria({"arb8020": config.definitions["arb8020"]})[:1]
    count = sum(len(outlier_features.features(each)) for each in evidence.gather(found, wanted))
    return Outcome(
        [_mean(loss_T) for loss_T in found.losses()], fetched.bytes + parameter_bytes(fetched.owner.model), count
    )


def ours_engine(job: Job) -> Outcome:
    """Run this project's engine with nothing observed."""
    weights = Weights(job.checkpoint, getattr(torch, job.dtype), best_device())
    ids = job.windows
    with counted(Weights, "read", _nbytes) as fetched:
        losses = engine.run(weights, ids, lambda index, logits: token_losses(logits, ids[index]), Nothing())
    return Outcome([_mean(loss) for loss in losses], fetched.bytes + parameter_bytes(weights.model))


@torch.inference_mode()
def ordinary(job: Job) -> Outcome:
    """Load the whole model and run it."""
    model = job.load()
    return Outcome([forward(model, ids) for ids in job.windows], parameter_bytes(model))


def offloaded(job: Job) -> Outcome:
    """Run with disk offload by accelerate, a third of the weights in memory."""
    return _offloaded(job, lambda: None)


def offloaded_uncached(job: Job) -> Outcome:
    """Do the same where the page cache keeps nothing from one window to the next, as of a model larger than memory."""
    return _offloaded(job, lambda: drop(files(job.checkpoint, job.folder)))


@torch.inference_mode()
def _offloaded(job: Job, before_window: Callable[[], None]) -> Outcome:
    stored = sum(path.stat().st_size for path in job.checkpoint.glob("*.safetensors"))
    limits = {"cpu": int(stored * RESIDENT)}
    model = job.load(device_map="auto", max_memory=limits, offload_folder=str(job.folder))
    saved_again = sum(path.stat().st_size for path in files(job.folder))
    losses = []
    with counted(OffloadedWeightsLoader, "__getitem__", _nbytes) as fetched:
        for ids in job.windows:
            before_window()
            losses.append(forward(model, ids))
    return Outcome(losses, fetched.bytes + parameter_bytes(model) + saved_again)


@torch.inference_mode()
def traced(job: Job) -> Outcome:
    """Cache the four sites of every window with nnsight, then count the features with torch."""
    from nnsight import NNsight  # in an environment of its own

    model = job.load()
    tracer, parameters = NNsight(model), parameter_bytes(model)
    losses, caches = [], []
    for ids in job.windows:
        sites, logits = _trace(tracer, ids[None])
        caches.append(sites)
        losses.append(_mean(token_losses(logits[0], ids)))
    definition = job.config.definitions["arb8020"]
    counts = [
        len(features_at_once([x[0] for x in (*sites["attn_in"], *sites["mlp_in"])], definition)) for sites in caches
    ]
    return Outcome(losses, parameters, sum(counts))


def _trace(tracer: Any, ids: torch.Tensor) -> tuple[dict[str, list[torch.Tensor]], torch.Tensor]:
    with tracer.trace(input_ids=ids, use_cache=False):
        sites = {"attn_in": [], "out_proj_in": [], "mlp_in": [], "residual": []}.save()
        for block in tracer.model.layers:
            sites["attn_in"].append(block.self_attn.input)
            sites["out_proj_in"].append(block.self_attn.o_proj.input)
            sites["mlp_in"].append(block.mlp.input)
            sites["residual"].append(block.output)
        logits = tracer.output.logits.save()
    return sites, logits


@torch.inference_mode()
def saved(job: Job) -> Outcome:
    """Save every input of attention and MLP to a file, then loop over the outlier elements of the files in Python."""
    model = job.load()
    losses, count = [], 0
    windows = job.windows
    for window, ids in enumerate(windows):
        with saving(model, job.folder / f"window{window}"):
            losses.append(forward(model, ids))
    for window in range(len(windows)):
        paths = sorted((job.folder / f"window{window}").glob("*.pt"))
        count += len(features_by_loop((torch.load(path) for path in paths), job.config.definitions["arb8020"]))
    return Outcome(losses, parameter_bytes(model), count)


@contextmanager
def saving(model: nn.Module, folder: Path) -> Iterator[None]:
    """Save what the norms before attention and MLP return, one file each, while the context is open."""
    folder.mkdir()
    with ExitStack() as hooks:
        for index, block in enumerate(model.model.layers):
            for site, norm in (("attn_in", block.input_layernorm), ("mlp_in", block.post_attention_layernorm)):
                hooks.callback(norm.register_forward_hook(_saver(folder / f"{index:03}.{site}.pt")).remove)
        yield


def _saver(path: Path) -> Callable[[nn.Module, Any, torch.Tensor], None]:
    return lambda _module, _arguments, output: torch.save(output[0].bfloat16(), path)


def features_by_loop(tensors: Iterable[torch.Tensor], definition: Any) -> list[int]:
    """Return the outlier channels of one window, outlier element by outlier element; each tensor is (T, C)."""
    layers, positions, magnitudes = defaultdict(set), defaultdict(set), defaultdict(list)
    count = length = 0
    for layer, x_TC in enumerate(tensors):
        count, length = layer + 1, len(x_TC)
        for position, channel in (x_TC.abs() >= definition.threshold).nonzero().tolist():
            layers[channel].add(layer)
            positions[channel].add(position)
            magnitudes[channel].append(x_TC[position, channel].item())
    return [
        channel
        for channel in layers
        if len(layers[channel]) >= definition.min_layers * count
        and len(positions[channel]) >= definition.min_positions * length
    ]


def features_at_once(tensors: Iterable[torch.Tensor], definition: Any) -> list[int]:
    """Return the outlier channels of one window by array operations; each tensor is (T, C)."""
    hits_NTC = torch.stack([x_TC.bfloat16().abs() >= definition.threshold for x_TC in tensors])
    layers_C = hits_NTC.any(1).float().mean(0)
    positions_C = hits_NTC.any(0).float().mean(0)
    enough_C = (layers_C >= definition.min_layers) & (positions_C >= definition.min_positions)
    return enough_C.nonzero().flatten().tolist()


def forward(model: nn.Module, ids_T: torch.Tensor) -> float:
    """Run one window; return its mean loss."""
    return _mean(token_losses(model(input_ids=ids_T[None], use_cache=False).logits[0], ids_T))


def _mean(loss_T: torch.Tensor | np.ndarray) -> float:
    return float(np.asarray(loss_T, np.float64).mean())


def parameter_bytes(model: nn.Module) -> int:
    """Return the bytes of the parameters that are in memory."""
    return sum(parameter.nbytes for parameter in model.parameters() if not parameter.is_meta)


def _nbytes(found: Any) -> int:
    return sum(tensor.nbytes for tensor in found.values()) if isinstance(found, dict) else found.nbytes


class Fetched:
    """Counts what a method returned."""

    bytes: int = 0
    owner: Any = None


@contextmanager
def counted(owner: type, method: str, size: Callable[[Any], int]) -> Iterator[Fetched]:
    """Add up the sizes of what a method returns while the context is open."""
    original, fetched = getattr(owner, method), Fetched()

    def counting(self: Any, *arguments: Any) -> Any:
        found = original(self, *arguments)
        fetched.bytes, fetched.owner = fetched.bytes + size(found), self
        return found

    with patch.object(owner, method, counting):
        yield fetched


CONTESTANTS: dict[str, Callable[[Job], Outcome]] = {
    "ours": ours,
    "ours-engine": ours_engine,
    "a": ordinary,
    "b": offloaded,
    "b-uncached": offloaded_uncached,
    "c": traced,
    "d": saved,
}
