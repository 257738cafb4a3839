"""Plain block: what the plain model shows of a block before variants run through it."""

# Shapes: T position, C channel, R row, S pair of a token and an expert.

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from outlier_features.capture import expert_outputs, hooks
from outlier_features.errors import ArchitectureError
from outlier_features.models import fused_experts, sites
from outlier_features.variants.matrices import Learner, Matrix
from outlier_features.variants.options.treatment import Known


@dataclass(frozen=True)
class Inputs:
    """What matrices read in one window: the rows of each, and which expert's they are."""

    x_RC: torch.Tensor
    rows_S: torch.Tensor | None = None
    """Which row of `x_RC` a pair of a token and an expert reads; None where every row is read once, in order."""
    experts_S: torch.Tensor | None = None


@dataclass
class PlainBlock:
    """A block while the plain model runs through it, and what is known of it afterwards."""

    block: nn.Module
    calibrating: int
    """How many of the windows, the first, are calibration windows."""
    compared: Collection[int]
    """The windows whose inputs are kept."""
    window: int = 0
    matrices: list[Matrix] = field(default_factory=list)
    inputs: dict[str, dict[int, Inputs]] = field(default_factory=dict)
    """By the source of matrices, and window."""
    largest: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)
    """The largest |x| of each channel, by source and calibration window."""
    means: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)
    """The mean of each channel at attn_in and mlp_in, by calibration window."""
    _last: tuple[Any, torch.Tensor] | None = None

    def __post_init__(self) -> None:
        self._learner = Learner(self.block)
        self._by_owner: dict[str, dict[int, Inputs]] = {}
        self._largest_by_owner: dict[str, dict[int, torch.Tensor]] = {}
        self.fused = fused_experts.of_block(self.block)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at what the plain model does while the context is open."""
        with ExitStack() as stack:
            for name, module in self._learner.owners.items():
                stack.enter_context(hooks.changed(module, self._keeping(name)))
            for probe in sites.probes(self.block, ("attn_in", "mlp_in")):
                stack.enter_context(hooks.changed(probe.module, self._averaging(probe.site)))
            if self.fused is not None:
                stack.enter_context(expert_outputs.observed(self.fused, self._keep_experts))
            yield

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Learn which matrices the block has while its first window runs."""
        with self._learner.watched():
            yield
        self.matrices = self._learner.found()

    def finish(self) -> None:
        """Put what was kept of modules under what they read."""
        for matrix in self.matrices:
            if not matrix.is_routed and matrix.source not in self.inputs:
                self.inputs[matrix.source] = self._by_owner.get(matrix.owner, {})
                self.largest[matrix.source] = self._largest_by_owner.get(matrix.owner, {})
        self._by_owner.clear()
        self._last = None

    def known(self, source: str, windows: Sequence[int]) -> Known:
        """Return what some calibration windows showed of what matrices read."""
        own = [matrix for matrix in self.matrices if matrix.source == source]
        weights = {matrix: matrix.of(self.block) for matrix in own}  # before any of them is rounded

        def largest_weight() -> torch.Tensor:
            return torch.stack([_largest_weight(values) for values in weights.values()]).amax(0)

        largest = self.largest.get(source, {})
        if not all(window in largest for window in windows):
            raise ArchitectureError(f"no input of {own[0].name} was seen on the calibration windows.")
        return Known(own[0].site, torch.stack([largest[w] for w in windows]).amax(0), largest_weight)

    def mean(self, site: str, windows: Sequence[int]) -> torch.Tensor:
        """Return the mean of each channel of a site (C,) over some calibration windows, float32."""
        return torch.stack([self.means[site][window] for window in windows]).mean(0)

    def _keeping(self, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def keep(x: torch.Tensor) -> torch.Tensor:
            if self.window < self.calibrating or self.window in self.compared:
                rows_RC = x.reshape(-1, x.shape[-1])
                self._keep(self._by_owner, self._largest_by_owner, name, Inputs(self._copied(x, rows_RC)))
            return x

        return keep

    def _copied(self, x: torch.Tensor, rows_RC: torch.Tensor) -> torch.Tensor:
        """Return a copy, one for all that are handed the same tensor; a module may change it in place afterwards."""
        if self._last is None or self._last[0] is not x:
            self._last = x, rows_RC.clone()
        return self._last[1]

    def _keep(
        self,
        inputs: dict[str, dict[int, Inputs]],
        largest: dict[str, dict[int, torch.Tensor]],
        name: str,
        found: Inputs,
    ) -> None:
        if self.window in self.compared:
            inputs.setdefault(name, {})[self.window] = found
        if self.window < self.calibrating and len(found.x_RC):
            seen_C = found.x_RC.abs().amax(0).float()
            before = largest.setdefault(name, {}).get(self.window)
            largest[name][self.window] = seen_C if before is None else torch.maximum(before, seen_C)

    def _averaging(self, site: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def average(x: torch.Tensor) -> torch.Tensor:
            if self.window < self.calibrating:
                self.means.setdefault(site, {})[self.window] = x.reshape(-1, x.shape[-1]).double().mean(0).float()
            return x

        return average

    def _keep_experts(self, found: expert_outputs.Pass) -> None:
        if self.window >= self.calibrating and self.window not in self.compared:
            return
        if found.rows is None:
            raise ArchitectureError("which tokens the rows of experts belong to was not seen in their forward.")
        tokens_S, experts_S = found.rows.tokens_S, found.rows.experts_S
        every = torch.arange(len(experts_S), device=experts_S.device)
        for site, x_RC, rows_S in (("mlp_in", found.hidden_TC, tokens_S), ("down_in", found.rows.inputs_SI, every)):
            self._keep(self.inputs, self.largest, site, Inputs(x_RC.clone(), rows_S, experts_S))


def _largest_weight(values: torch.Tensor) -> torch.Tensor:
    """Return the largest |w| of each channel (C,) of a matrix, or of all experts."""
    return torch.linalg.vector_norm(values.float(), torch.inf, dim=tuple(range(values.dim() - 1)))
