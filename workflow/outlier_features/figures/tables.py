"""What figures are drawn from: the tables of an experiment, or of one of its models."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Sweep:
    """All models of an experiment."""

    summary: pd.DataFrame
    """One row per model and definition."""
    trends: pd.DataFrame
    """One row per definition, measure, group of models and axis, with the columns of `inference`."""
    published: Mapping[str, pd.DataFrame]
    """The published tables, by the names of their files."""


@dataclass(frozen=True)
class Portrait:
    """One model."""

    label: str
    hidden_size: int
    blocks: int
    channels: pd.DataFrame
    """One row per pooled definition, tensor and channel with a hit."""
    layers: pd.DataFrame
    """One row per block, site and token class."""
    outliers: pd.DataFrame
    """One row per outlier feature, definition and (where it is not pooled) sequence."""
    convergence: pd.DataFrame
    """One row per definition and number of windows."""
    positions: pd.DataFrame
    """One row per site and position."""
    damage: pd.DataFrame
    """One row per block, matrix input and format; none where the capture did not keep what predictions need."""
    sequences: int
    hit_threshold: float
    """The magnitude that `positions` and `layers` count hits at."""
    hub: str | None
    """The name of the model on the hub, if it came from there."""
    published: Mapping[str, pd.DataFrame]
    """The published tables, by the names of their files."""

    @property
    def has_experts(self) -> bool:
        """Whether routers of the model were seen: a dense model has none."""
        return "router" in set(self.layers["site"])


def read_published(paths: Iterable[Path]) -> dict[str, pd.DataFrame]:
    """Read published tables, each under the name of its file."""
    return {Path(path).stem: pd.read_csv(path) for path in paths}
