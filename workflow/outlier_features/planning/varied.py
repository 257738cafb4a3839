"""Varied: what a pass with variants takes beside a capture: hidden states of every run, and rounded matrices."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from outlier_features.config.config import Config
from outlier_features.config.variants import Calibrated, Intervention
from outlier_features.models.sizes import BYTES, Footprint
from outlier_features.planning import estimate as plain
from outlier_features.planning.estimate import Estimate, Pass

COMPARED_TWICE = 2
"""A compared window goes through each rounded matrix once for its own output and once for the plain one."""


@dataclass(frozen=True)
class Runs:
    """How many runs a pass has, and over how many windows besides those that are measured."""

    total: int
    """The plain model, formats, their noise, interventions, and every draw of controls."""
    calibrating: int
    """Windows that the plain model runs besides."""
    compared: int
    """Windows whose inputs are kept."""
    formats: int

    @classmethod
    def of(cls, config: Config, model: str) -> "Runs":
        """Return the runs of a model of the configuration."""
        variants, interventions = config.variants_of(model), config.interventions_of(model)
        entries: list[Calibrated] = [*variants.values(), *interventions.values()]
        return cls(
            1 + len(variants) * (1 + config.vary.noise) + sum(_draws(each) for each in interventions.values()),
            _calibrating(config, [Calibrated(), *entries]),
            config.vary.sqnr_windows,
            len(variants),
        )


def estimate(footprint: Footprint, run: Pass, runs: Runs) -> Estimate:
    """Return what one pass takes; weights are read once, however many runs there are."""
    width = BYTES[run.dtype]
    windows = runs.total * run.sequences + runs.calibrating
    alone = plain.estimate(footprint, replace(run, sites=0, counted=0, inner=0))
    hidden = 2 * windows * run.length * footprint.channels * width
    rounded = footprint.block_params * width + CONVERSION * min(footprint.block_params, LARGEST_PIECE) * 4
    kept = min(runs.compared, run.sequences) * run.length * (3 * footprint.channels + footprint.inner_channels) * width
    share = windows / run.sequences + COMPARED_TWICE * runs.formats * min(runs.compared, run.sequences) / run.sequences
    return Estimate(
        device_bytes=alone.device_bytes - alone.hidden_bytes + hidden + rounded * bool(runs.formats) + kept,
        hidden_bytes=hidden,
        host_bytes=alone.host_bytes,
        read_bytes=alone.read_bytes,
        statistics_bytes=4.0 * runs.total * run.sequences * run.length,
        operations=alone.operations * share,
    )


CONVERSION = 3
"""Copies in float32 of what is rounded at once."""
LARGEST_PIECE = 1 << 26
"""Values that are rounded at once; a single matrix may be larger."""


def most_runs(footprint: Footprint, run: Pass, runs: Runs, memory: float) -> int:
    """Return how many runs fit into so many bytes beside the weights; hidden states of more are offloaded."""
    one = estimate(footprint, run, replace(runs, total=1)).device_bytes
    each = 2 * run.tokens * footprint.channels * BYTES[run.dtype]
    return max(0, 1 + math.floor((memory - one) / each))


def _draws(entry: Intervention) -> int:
    return len(entry.set_to) * (1 + entry.controls.random + entry.controls.equal_size)


def _calibrating(config: Config, entries: Iterable[Calibrated]) -> int:
    """Return how many windows calibrate: as many of each text as any of the entries asks for."""
    windows: dict[str, int] = {}
    for entry in entries:
        kind = config.calibrates_on(entry)
        windows[kind] = max(windows.get(kind, 0), entry.windows)
    return sum(windows.values())
