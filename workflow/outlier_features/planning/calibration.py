"""Calibration: how fast this machine computes and reads, measured in about a second, to tell how long a pass takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from outlier_features.models.sizes import Footprint
from outlier_features.planning.estimate import Estimate, Pass

COMPUTING, READING = 0.6, 0.3
"""Seconds spent on measuring each."""
PIECE = 8 << 20
"""Bytes read at once."""
CALL = 3e-3
"""Seconds a window takes in a block besides arithmetic: what transformers and the hooks do in Python."""
VALUE = 6e-9
"""Seconds a value takes to be observed on a CPU (docs/benchmarks.md); on a GPU it hides behind the calls."""
REST = 9.0
"""Seconds for what is no pass: tokens, tables, figures and the page."""


@dataclass(frozen=True)
class Rates:
    """What a device and a disk sustain."""

    flops: float
    """Operations a second in matrix products of the model's width and precision."""
    bandwidth: float
    """Bytes a second of the checkpoint, as it lies now: in memory or on the disk."""


def rates(checkpoint: Path, device: torch.device, dtype: str, channels: int, tokens: int) -> Rates:
    """Measure both for a model of so many `channels` whose windows have so many `tokens`."""
    precision = getattr(torch, dtype)
    x_TC = torch.randn(tokens, channels, device=device).to(precision)
    w_OC = torch.randn(4 * channels, channels, device=device).to(precision)
    products = _rate(lambda: _product(x_TC, w_OC), COMPUTING)
    return Rates(2 * tokens * 4 * channels * channels * products, _bandwidth(checkpoint))


def seconds(plan: Estimate, footprint: Footprint, run: Pass, found: Rates, device: torch.device) -> float:
    """Return about how long a measurement takes, from its tokens to its page."""
    calls = footprint.blocks * run.sequences
    values = footprint.blocks * run.tokens * footprint.channels * run.sites
    beside = calls * CALL + (values * VALUE if device.type == "cpu" else 0)
    return max(plan.operations / found.flops + beside, plan.read_bytes / found.bandwidth) + REST


def _product(x_TC: torch.Tensor, w_OC: torch.Tensor) -> None:
    torch.mm(x_TC, w_OC.T)
    if x_TC.is_cuda:
        torch.cuda.synchronize(x_TC.device)


def _rate(work: Callable[[], object], budget: float) -> float:
    """Return how often a second `work` can be done, after it was done once to warm up."""
    work()
    began, count = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < budget or count == 0:
        work()
        count += 1
    return count / took


def _bandwidth(checkpoint: Path) -> float:
    files = sorted(checkpoint.glob("*.safetensors"), key=lambda path: -path.stat().st_size)
    began, size = time.perf_counter(), 0
    with files[0].open("rb", buffering=0) as opened:
        while time.perf_counter() - began < READING and (piece := opened.read(PIECE)):
            size += len(piece)
    return size / (time.perf_counter() - began)
