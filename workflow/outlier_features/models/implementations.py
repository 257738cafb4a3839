"""Implementations: in which of transformers' ways a model runs its experts, and whether torch can take the fast one."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations import moe

from outlier_features.errors import ConfigError

GROUPED, EAGER = "grouped_mm", "eager"


def choose(
    model: PreTrainedModel, all_fused: Sequence[nn.Module], wanted: str | None, device: torch.device
) -> str | None:
    """Let a model run its fused experts as `wanted`, by default as transformers does where torch can.

    Grouped products want rows of a multiple of 16 bytes; where they cannot run, experts run one after the other
    (`eager`). Returns a sentence about that, None where nothing was changed. Raises ConfigError if `wanted` cannot be.
    """
    if wanted is not None:
        _set(model, all_fused, wanted)
        return None
    grouped = [fused for fused in all_fused if way(fused) == GROUPED]
    if all(_can_be_grouped(fused, device) for fused in grouped):
        return None
    _set(model, all_fused, EAGER)
    dtype = str(model.dtype).removeprefix("torch.")
    return f"experts run one after the other (eager): torch has no grouped products of their widths in {dtype}"


def way(fused: nn.Module) -> str | None:
    """Return the name of the way fused experts run in; None where they have but their own."""
    return getattr(getattr(fused, "config", None), "_experts_implementation", None)


def _set(model: PreTrainedModel, all_fused: Sequence[nn.Module], wanted: str) -> None:
    if not all_fused:
        raise ConfigError(
            f"{type(model).__name__} has no routed experts; leave experts_implementation out of the model's entry."
        )
    model.set_experts_implementation(wanted)
    if any(way(fused) != wanted for fused in all_fused):
        raise ConfigError(
            f"{type(all_fused[0]).__name__} runs its experts in a way of its own; leave experts_implementation "
            "out of the model's entry."
        )


def _can_be_grouped(fused: nn.Module, device: torch.device) -> bool:
    """Return whether torch multiplies one token with one expert's matrices of these widths, tried on zeros."""
    is_transposed = bool(getattr(fused, "is_transposed", False))
    for shape, dtype in {(p.shape[1:], p.dtype) for p in fused.parameters(recurse=False) if p.dim() == 3}:
        weight = torch.zeros(1, *shape, dtype=dtype, device=device)
        x = torch.zeros(1, shape[0 if is_transposed else 1], dtype=dtype, device=device)
        ends = torch.ones(1, dtype=torch.int32, device=device)
        try:
            moe._grouped_linear(x, weight, ends, is_transposed=is_transposed)
        except (RuntimeError, NotImplementedError):
            return False
    return True
