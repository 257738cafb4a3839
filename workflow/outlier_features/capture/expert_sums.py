"""Expert sums: what a block's experts read over all windows of a capture, each for the tokens it was sent."""

# Shapes: T token, k expert of a token, S pair of them, C channel, E expert.

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from outlier_features import exact_sums
from outlier_features.capture.expert_outputs import Pass, Rows
from outlier_features.capture.routing import Choice
from outlier_features.kernels.dispatch import Reduction
from outlier_features.kernels.reference import ExpertSums, summed_by_expert

READ = ("mlp_in", "down_in")
"""What the matrices of an expert read: those into the hidden layer, and the down projection."""


@dataclass
class BlockExperts:
    """The experts of one block, while windows run through it."""

    count: int
    reduction: Reduction
    choice: Choice | None = None
    """What the router chose for the window that runs."""
    _sums: dict[str, ExpertSums] = field(default_factory=dict)
    _saliency: tuple[torch.Tensor, torch.Tensor] | None = None

    def whole(self, found: Pass) -> Rows | None:
        """Return the rows of a window, None unless there is one for every choice of the router."""
        assert self.choice is not None
        is_whole = found.rows is not None and len(found.rows.tokens_S) == self.choice.experts_Tk.numel()
        return found.rows if is_whole else None

    def add(self, hidden_TC: torch.Tensor, rows: Rows) -> None:
        """Add what the experts were handed in one window, and the rows they made of it."""
        places_S = torch.arange(len(rows.tokens_S), device=rows.tokens_S.device)
        inputs = (hidden_TC, rows.tokens_S), (rows.inputs_SI, places_S)
        for site, (x_RC, of_x_S) in zip(READ, inputs, strict=True):
            if site not in self._sums:
                self._sums[site] = ExpertSums.nothing(self.count, x_RC.shape[1], x_RC.device)
            self.reduction.by_expert(x_RC, of_x_S, rows.experts_S, self._sums[site])
        self._add_saliency(rows.experts_S, rows.norms_S)

    def _add_saliency(self, experts_S: torch.Tensor, norms_S: torch.Tensor) -> None:
        """Add the router's weight times the norm of the output (REAP: Lasby et al. 2025), where weights are handed."""
        assert self.choice is not None
        if self.choice.weights_Tk is None:
            return
        order_Tk = self.choice.experts_Tk.long().argsort(
            1
        )  # rows of a pass are in the order of tokens, then of experts
        weights_S = self.choice.weights_Tk.gather(1, order_Tk).flatten().double()
        window_E = summed_by_expert(weights_S * norms_S.double(), experts_S, self.count)
        high_E, low_E = self._saliency or (torch.zeros_like(window_E), torch.zeros_like(window_E))
        self._saliency = exact_sums.add(high_E, low_E, window_E, torch.zeros_like(window_E))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each site and expert, with the columns of `schemas.EXPERT_SCHEMA` but `block`."""
        for site, sums in self._sums.items():
            tables = [x.cpu().numpy() for x in (sums.sum_2_EC, sums.sum_2_low_EC, sums.max_abs_EC)]
            for expert, tokens in enumerate(sums.tokens_E.tolist()):
                of_expert = dict(
                    zip(("sum_2", "sum_2_low", "max_abs"), (table[expert] for table in tables), strict=True)
                )
                saliency = self._saliency_of(expert) if site == "down_in" else {}
                yield {"site": site, "expert": expert, "tokens": tokens} | ((of_expert | saliency) if tokens else {})

    def _saliency_of(self, expert: int) -> dict[str, float]:
        if self._saliency is None:
            return {}
        high_E, low_E = self._saliency
        return {"saliency": float(high_E[expert]), "saliency_low": float(low_E[expert])}
