"""Implementations: in which of transformers' ways a model runs its experts, and whether torch can take the fast one."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations import moe

from outlier_features.errors import ConfigError

GROUPED, EAGER = "grouped_mm", "eager"


def choose(model: PreTrainedModel, banks: Sequence[nn.Module], wanted: str | None, device: torch.device) -> str | None:
    """Let a model run its banks of experts as `wanted`, by default as transformers does where torch can.

    Grouped products want rows of a multiple of 16 bytes; where they cannot run, experts run one after the other
    (`eager`). Returns a sentence about that, None where nothing was changed. Raises ConfigError if `wanted` cannot be.
    """
    if wanted is not None:
        _set(model, banks, wanted)
        return None
    grouped = [bank for bank in banks if way(bank) == GROUPED]
    if all(_can_be_grouped(bank, device) for bank in grouped):
        return None
    _set(model, banks, EAGER)
    dtype = str(model.dtype).removeprefix("torch.")
    return f"experts run one after the other (eager): torch has no grouped products of their widths in {dtype}"


def way(bank: nn.Module) -> str | None:
    """Return the name of the way a bank of experts runs in; None where it has but its own."""
    return getattr(getattr(bank, "config", None), "_experts_implementation", None)


def _set(model: PreTrainedModel, banks: Sequence[nn.Module], wanted: str) -> None:
    if not banks:
        raise ConfigError(
            f"{type(model).__name__} has no routed experts; leave experts_implementation out of the model's entry."
        )
    model.set_experts_implementation(wanted)
    if any(way(bank) != wanted for bank in banks):
        raise ConfigError(
            f"{type(banks[0]).__name__} runs its experts in a way of its own; leave experts_implementation out of the "
            "model's entry."
        )


def _can_be_grouped(bank: nn.Module, device: torch.device) -> bool:
    """Return whether torch multiplies one token with one expert's matrices of these widths, tried on zeros."""
    is_transposed = bool(getattr(bank, "is_transposed", False))
    for shape, dtype in {(p.shape[1:], p.dtype) for p in bank.parameters(recurse=False) if p.dim() == 3}:
        weight = torch.zeros(1, *shape, dtype=dtype, device=device)
        x = torch.zeros(1, shape[0 if is_transposed else 1], dtype=dtype, device=device)
        ends = torch.ones(1, dtype=torch.int32, device=device)
        try:
            moe._grouped_linear(x, weight, ends, is_transposed=is_transposed)
        except (RuntimeError, NotImplementedError):
            return False
    return True
