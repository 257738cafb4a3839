"""Intervened block: a block whose activations are changed at some places, or some of whose experts are switched off."""

# Shapes: C channel.

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from outlier_features.capture import hooks
from outlier_features.errors import ArchitectureError
from outlier_features.models import sites
from outlier_features.variants.interventions.channels import Change


@dataclass
class IntervenedBlock:
    """Where a block hands activations on, and what takes their place."""

    block: nn.Module
    at: Sequence[str]
    """Of `config.variants.Place`."""
    change: Change
    means: dict[str, torch.Tensor]
    """The mean of each channel (C,) at attn_in and mlp_in."""
    _clean: torch.Tensor | None = None
    """What the MLP of the present window would have been handed."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Change activations while the context is open."""
        parts = {probe.site: probe.module for probe in sites.probes(self.block, ("attn_in", "mlp_in"))}
        routers = sites.routers(self.block)
        if parts["mlp_in"] in routers and {"router", "experts"} & set(self.at):
            raise ArchitectureError(
                f"{type(parts['mlp_in']).__name__} multiplies with its router's matrix itself, so router and experts "
                "cannot be changed apart; use at: [mlp_in]."
            )
        with ExitStack() as stack:
            if "attn_in" in self.at:
                stack.enter_context(hooks.changed(parts["attn_in"], self._changing("attn_in")))
            if self._changes_mlp or "router" in self.at:
                stack.enter_context(hooks.changed(parts["mlp_in"], self._at_mlp))
                for router in routers:
                    stack.enter_context(hooks.changed(router, self._at_router))
            yield

    @property
    def _changes_mlp(self) -> bool:
        return bool({"mlp_in", "experts"} & set(self.at))

    def _changing(self, site: str) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: self.change(x, self.means[site])

    def _at_mlp(self, x: torch.Tensor) -> torch.Tensor:
        self._clean = x
        return self.change(x, self.means["mlp_in"]) if self._changes_mlp else x

    def _at_router(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the router reads: changed, or clean where only experts are changed."""
        assert self._clean is not None
        is_wanted = bool({"mlp_in", "router"} & set(self.at))
        if self._changes_mlp == is_wanted:
            return x
        if is_wanted:
            return self.change(x, self.means["mlp_in"])
        return self._clean.reshape(x.shape) if x.numel() == self._clean.numel() else x
