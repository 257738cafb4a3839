"""Attention: what attention functions are handed, and where the queries of some positions look.

transformers computes attention through one interface; the function it gives out is called as ever, so outputs are those
of the model to the bit, and what it was handed is looked at afterwards. Blocks that compute attention by themselves,
or none at all (linear attention), hand nothing on.
"""

# Shapes: H query head, G key-value head, Q sampled query position, T position, D channel of a head.

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SAMPLES = 64
"""Query positions that are looked at, spaced evenly over [T / 8, T - 1]."""


@dataclass(frozen=True)
class Handed:
    """What an attention function was handed for one window."""

    module: nn.Module
    queries_HTD: torch.Tensor
    keys_GTD: torch.Tensor
    values_GTD: torch.Tensor
    mask: torch.Tensor | None
    """Added to the scores, or which of them count; (1, 1 or H, T, T or more)."""
    options: dict[str, Any]

    @property
    def heads(self) -> int:
        """Number of key-value heads."""
        return self.keys_GTD.shape[0]


@contextmanager
def watched(record: Callable[[Handed], None]) -> Iterator[None]:
    """Call `record` after every call of an attention function while the context is open."""
    original = ALL_ATTENTION_FUNCTIONS.get_interface

    def get_interface(name: str, default: Callable) -> Callable:
        function = original(name, default)

        def attend(module: nn.Module, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            output = function(module, query, key, value, *args, **kwargs)
            mask = args[0] if args else kwargs.get("attention_mask")
            record(Handed(module, query[0], key[0], value[0], mask, kwargs))
            return output

        return attend

    ALL_ATTENTION_FUNCTIONS.get_interface = get_interface
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS.get_interface


def rows(heads_GTD: torch.Tensor) -> torch.Tensor:
    """Return keys or values as an activation (T, G x D), the channels of a head side by side."""
    return heads_GTD.transpose(0, 1).flatten(1)


def sampled(handed: Handed) -> torch.Tensor:
    """Return attention_top1, attention_entropy (nats) and attention_sink (3,) of sampled queries, float32.

    Means over those positions and all heads of the largest probability, of the entropy, and of the probability of
    position 0 (DEFINITIONS: attention).
    """
    probability_HQT = _probabilities(handed, positions(handed.queries_HTD.shape[1], handed.queries_HTD.device))
    entropy_HQ = torch.special.entr(probability_HQT).sum(-1)
    return torch.stack([probability_HQT.amax(-1).mean(), entropy_HQ.mean(), probability_HQT[..., 0].mean()])


def positions(length: int, device: torch.device) -> torch.Tensor:
    """Return the query positions that are looked at in a window of some length, ascending."""
    spaced = torch.linspace(length / 8, length - 1, min(SAMPLES, length), dtype=torch.float64)
    return spaced.clamp(0, length - 1).long().unique().to(device)


def _probabilities(handed: Handed, positions_Q: torch.Tensor) -> torch.Tensor:
    """Return the attention of some queries (H, Q, T) in float32, by the options that the function was called with."""
    module, options = handed.module, handed.options
    queries_HQD = handed.queries_HTD[:, positions_Q].float()
    groups = queries_HQD.shape[0] // handed.heads
    keys_HTD = handed.keys_GTD.float().repeat_interleave(groups, 0)
    scaling = options.get("scaling")
    scores_HQT = queries_HQD @ keys_HTD.mT * (queries_HQD.shape[-1] ** -0.5 if scaling is None else scaling)
    if (softcap := options.get("softcap")) is not None:
        scores_HQT = torch.tanh(scores_HQT / softcap) * softcap
    scores_HQT = _masked(scores_HQT, handed, positions_Q)
    sinks = options.get("s_aux", getattr(module, "sinks", None))
    if sinks is None:
        return scores_HQT.softmax(-1)
    of_sink = sinks.float().reshape(-1, 1, 1).expand(*scores_HQT.shape[:2], 1)
    return torch.cat([scores_HQT, of_sink], -1).softmax(-1)[..., :-1]


def _masked(scores_HQT: torch.Tensor, handed: Handed, positions_Q: torch.Tensor) -> torch.Tensor:
    """Return scores with the mask that the function was handed; without one it lets no query see what follows it."""
    length, lowest = scores_HQT.shape[-1], torch.finfo(torch.float32).min
    if handed.mask is not None and handed.mask.dim() == 4:
        mask = handed.mask[0, :, positions_Q, :length]
        return scores_HQT.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores_HQT + mask.float()
    distance_QT = positions_Q[:, None] - torch.arange(length, device=positions_Q.device)
    is_hidden = distance_QT < 0
    if (window := handed.options.get("sliding_window")) is not None:
        is_hidden |= distance_QT >= window
    return scores_HQT.masked_fill(is_hidden, lowest)
