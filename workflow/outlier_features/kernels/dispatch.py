"""Dispatch: the fast form of the reduction by device, `reference.reduce` of one activation after the other."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from outlier_features.kernels.reference import Columns, ExpertSums, Grids, Reached


class Reduction(Protocol):
    """Reduces activations on one device, without making the host wait for it.

    What `site` and `keep` return stands for a result; `collect` turns a block's worth of them into the results.
    """

    def site(
        self,
        x_TC: torch.Tensor,
        reached: Reached | None = None,
        *,
        medians: bool = False,
        spread: bool = False,
        first: int = 1,
    ) -> Any:
        """Begin what `reference.reduce` does with one activation (T, C) of any float type."""

    def by_expert(self, x_RC: torch.Tensor, rows_S: torch.Tensor, experts_S: torch.Tensor, sums: ExpertSums) -> None:
        """Add rows of an activation to what is kept of each expert, as `reference.by_expert` does."""

    def keep(self, values: torch.Tensor) -> Any:
        """Take values (N,) along as they are, numbers of any type, such as the experts a router chose."""

    def collect(self, found: Sequence[Any]) -> Callable[[], list[Columns | Any]]:
        """Begin to bring results to the host; the function returned waits for them, and may be called on any thread."""


def reduction(device: torch.device, grids: Grids) -> Reduction:
    """Return the reduction for activations on `device`: one pass compiled for the CPU, or kernels for a GPU."""
    if device.type == "cpu":
        from outlier_features.kernels.cpu import CpuReduction

        return CpuReduction(grids)
    from outlier_features.kernels.gpu import CudaReduction

    return CudaReduction(device, grids)
