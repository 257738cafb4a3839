"""Effects: how attention looks and where a router sends tokens in each variant, beside the plain model's choice."""

# Shapes: T position, k expert a token is routed to, E expert.

from dataclasses import dataclass, field
from typing import Any

import torch

from outlier_features.capture import attention
from outlier_features.capture.routing import Choice


@dataclass
class Effects:
    """What one block shows of one window of one variant."""

    attention: torch.Tensor | None = None
    """attention_top1, attention_entropy (nats) and attention_sink (3,); None without an attention that is seen."""
    jaccard: torch.Tensor | None = None
    """Sum over positions of |A and B| / |A or B|, A and B the experts chosen here and by the plain model."""
    divergence: torch.Tensor | None = None
    """Sum over positions of KL(plain || here) of the softmax of router logits, nats; None where logits are not seen."""
    load_E: torch.Tensor | None = None
    """Tokens sent to each expert."""
    tokens: int = 0

    def row(self) -> dict[str, Any]:
        """Return plain values; what was not seen is left out."""
        found: dict[str, Any] = {"tokens": self.tokens}
        if self.attention is not None:
            found |= dict(
                zip(("attention_top1", "attention_entropy", "attention_sink"), self.attention.tolist(), strict=True)
            )
        for name, value in (("jaccard", self.jaccard), ("routing_kl", self.divergence)):
            if value is not None:
                found[name] = float(value)
        if self.load_E is not None:
            found["load"] = self.load_E.tolist()
        return found


@dataclass
class EffectsOfBlock:
    """The effects of all variants in one block; the plain model's choices are kept while it runs."""

    experts: int
    found: dict[tuple[int, int], Effects] = field(default_factory=dict)
    """By variant and window."""
    _clean: dict[int, Choice] = field(default_factory=dict)

    def see_attention(self, variant: int, window: int, handed: attention.Handed) -> None:
        """Take in what an attention function was handed."""
        own = self._own(variant, window)
        if own.attention is None:
            own.attention = attention.sampled(handed)

    def see_routing(self, variant: int, window: int, choice: Choice) -> None:
        """Take in a choice of experts; the plain model's comes first."""
        own, chosen_Tk = self._own(variant, window), choice.experts_Tk.long()
        if variant == 0:
            self._clean[window] = Choice(chosen_Tk.clone(), None, None, choice.logits_TE)
        clean = self._clean[window]
        own.tokens = len(chosen_Tk)
        own.load_E = torch.bincount(chosen_Tk.reshape(-1), minlength=self.experts)
        own.jaccard = _jaccard(chosen_Tk, clean.experts_Tk, self.experts)
        if choice.logits_TE is not None and clean.logits_TE is not None:
            own.divergence = _divergence(clean.logits_TE, choice.logits_TE)

    def _own(self, variant: int, window: int) -> Effects:
        return self.found.setdefault((variant, window), Effects())


def _jaccard(a_Tk: torch.Tensor, b_Tk: torch.Tensor, experts: int) -> torch.Tensor:
    """Return the sum over positions of the Jaccard index of two choices, float64."""
    is_a_TE, is_b_TE = (
        torch.zeros(len(each), experts, dtype=torch.bool, device=each.device).scatter_(1, each, True)
        for each in (a_Tk, b_Tk)
    )
    return ((is_a_TE & is_b_TE).sum(1) / (is_a_TE | is_b_TE).sum(1)).double().sum()


def _divergence(clean_TE: torch.Tensor, other_TE: torch.Tensor) -> torch.Tensor:
    """Return the sum over positions of KL(clean || other) in nats, float64."""
    log_p_TE, log_q_TE = (each.double().log_softmax(1) for each in (clean_TE, other_TE))
    return (log_p_TE.exp() * (log_p_TE - log_q_TE)).sum()
