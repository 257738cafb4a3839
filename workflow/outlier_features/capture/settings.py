"""Settings: what a capture keeps, as the library takes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from outlier_features.artefacts import remedies
from outlier_features.kernels.reference import Grids
from outlier_features.site_names import SiteName
from outlier_features.thresholds import grid


@dataclass(frozen=True)
class Settings:
    """What a capture keeps."""

    sites: tuple[SiteName, ...]
    counted: tuple[SiteName, ...]
    """The sites whose hits are counted."""
    coverages: tuple[tuple[SiteName, ...], ...]
    """The sets of sites over which a position counts as hit when any of their tensors is."""
    grids: Grids
    dtype: torch.dtype
    count_nonfinite: bool = False
    """Count NaN and infinity and continue, where the default is to stop."""
    experts_implementation: str | None = None
    """The way of transformers in which experts run, by default the fastest that can."""
    is_full: bool = True
    """Keep more than the criteria of outlier features need."""

    @property
    def against_nonfinite(self) -> str:
        """What can be done about NaN and infinity, said after what was found."""
        dtype = str(self.dtype).removeprefix("torch.")
        wider = {"float16": "bfloat16 or float32", "bfloat16": "float32"}.get(dtype)
        remedy = f"{remedies.setting('dtype', wider)}, or " if wider else ""
        return f"in a {dtype} pass; {remedy}{remedies.setting('capture.nonfinite', 'count')} to leave them out."

    @classmethod
    def of(
        cls,
        entry: Any,
        counted: Sequence[SiteName],
        coverages: Sequence[tuple[SiteName, ...]],
        dtype: str,
        experts_implementation: str | None = None,
    ) -> "Settings":
        """Return the settings of a `capture` entry of the configuration."""
        is_full = entry.statistics == "all"
        return cls(
            sites=entry.sites if is_full else tuple(counted),
            counted=tuple(counted),
            coverages=tuple(coverages),
            grids=Grids(grid(entry.thresholds), grid(entry.rms_thresholds)),
            dtype=getattr(torch, dtype),
            count_nonfinite=entry.nonfinite == "count",
            experts_implementation=experts_implementation,
            is_full=is_full,
        )
