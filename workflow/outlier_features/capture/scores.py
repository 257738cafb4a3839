"""Scores: how well each token of a window was predicted, and where logits or losses are no finite numbers."""

# Shapes: T position, V vocabulary.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from outlier_features.capture.settings import Settings
from outlier_features.errors import NonFiniteActivations
from outlier_features.planning.estimate import LOSS_ROWS


@dataclass(frozen=True)
class Scores:
    """What is kept of the logits of one window."""

    losses: torch.Tensor
    """Negative log-likelihood in nats of each token after the first (T - 1,)."""
    is_bad: torch.Tensor
    """Where logits are not finite (T,)."""

    @classmethod
    def of(cls, logits_TV: torch.Tensor, ids_T: torch.Tensor) -> "Scores":
        """Return the scores of a window from its logits and its token ids."""
        return cls(token_losses(logits_TV, ids_T), not_finite(logits_TV))

    @property
    def host_losses(self) -> np.ndarray:
        """The losses on the host."""
        return self.losses.cpu().numpy()


def token_losses(logits_TV: torch.Tensor, ids_T: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood in nats of each token after the first (T - 1,), computed in float32."""
    pairs = zip(logits_TV[:-1].split(LOSS_ROWS), ids_T[1:].to(logits_TV.device).split(LOSS_ROWS), strict=True)
    return torch.cat([nn.functional.cross_entropy(logits.float(), ids, reduction="none") for logits, ids in pairs])


def not_finite(logits_TV: torch.Tensor) -> torch.Tensor:
    """Return at which positions a logit is NaN or infinite (T,).

    A token whose logit is minus infinity at every position is one that the model rules out, and no fault.
    """
    is_bad_T = _not_finite(logits_TV)
    if is_bad_T.any():
        ruled_out_V = (logits_TV == -torch.inf).all(0)
        if ruled_out_V.any() and not ruled_out_V.all():
            return _not_finite(logits_TV[:, ~ruled_out_V])
    return is_bad_T


def _not_finite(logits_TV: torch.Tensor) -> torch.Tensor:
    low_T, high_T = torch.aminmax(logits_TV, dim=-1)  # a NaN is the least and the greatest
    return ~(low_T.isfinite() & high_T.isfinite())


def require_finite(
    scores: Sequence[Scores], windows: Sequence[int], settings: Settings, model: str
) -> dict[str, dict[str, int]]:
    """Return how many positions of each window have logits and losses that are not finite, where any has.

    Raises NonFiniteActivations, naming the first window and position, unless such values are to be counted.
    """
    found: dict[str, dict[str, int]] = {"nonfinite_logits": {}, "nonfinite_losses": {}}
    first = ""
    for window, score in zip(windows, scores, strict=True):
        bad = {"logits": score.is_bad.cpu().numpy(), "losses": ~np.isfinite(score.host_losses)}
        for kind, is_bad_T in bad.items():
            if count := int(is_bad_T.sum()):
                found[f"nonfinite_{kind}"][str(window)] = count
                where = f"{kind} of window {window}, position {int(is_bad_T.argmax())}"
                first = first or f"{where}: NaN or infinite values, here and at {count - 1} more positions"
    if first and not settings.count_nonfinite:
        raise NonFiniteActivations(f"{model}: {first} {settings.against_nonfinite}")
    left_out = sum(found["nonfinite_losses"].values())
    if left_out:
        total = sum(len(score.losses) for score in scores)
        tqdm.write(f"{model}: {left_out} of {total} losses are not finite and left out of the perplexity")
    return found
