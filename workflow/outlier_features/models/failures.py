"""Failures: an error that a model's own code raised in a forward pass, in one line with what to try."""

import traceback
from pathlib import Path

import transformers
from torch import nn
from transformers import PreTrainedModel

from outlier_features.errors import ForwardFailed
from outlier_features.models import implementations
from outlier_features.models.fused_experts import is_fused
from outlier_features.shipped import PACKAGE

LONGEST = 300
"""Characters of an error that are repeated."""
PASSES_ON = {"__torch_function__", "watched"}
"""Functions of this package that call torch or a module in the place of another: what fails there is not theirs."""


def of_forward(error: Exception, model: PreTrainedModel, name: str, block: int | None) -> ForwardFailed | None:
    """Return what a user is told of an error in the forward of block `block`, or outside of the blocks (None).

    None where this package raised, in what it watches a module with.
    """
    module = _culprit(error)
    if module is None:
        return None
    where = "outside its decoder blocks" if block is None else f"in block {block}"
    words = " ".join(str(error).split())[:LONGEST].rstrip(".") or "no message"
    what = f"{type(module).__name__} raised {type(error).__name__} ({words})"
    return ForwardFailed(f"{name}: the model's own code failed {where}: {what}. {_remedy(model, module)}")


def _remedy(model: PreTrainedModel, module: nn.Module) -> str:
    """Return what can help: another way to run experts where they failed, else another precision."""
    if is_fused(module) and implementations.way(module) not in (None, implementations.EAGER):
        return f"Set experts_implementation: {implementations.EAGER} in the model's entry."
    others = [kind for kind in ("float32", "bfloat16") if kind != str(model.dtype).removeprefix("torch.")]
    return (
        f"Try {' or '.join(others)} as dtype of the model's entry; if that fails too, {type(model).__name__} of "
        f"transformers {transformers.__version__} cannot run here."
    )


def _culprit(error: Exception) -> nn.Module | None:
    """Return the module whose code was running when an error was raised, None if that was code of this package."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        code, owner = frame.f_code, frame.f_locals.get("self")
        if PACKAGE in Path(code.co_filename).parents and code.co_name not in PASSES_ON:
            return None
        if isinstance(owner, nn.Module) and not owner.__module__.startswith("torch."):
            return owner
    return None
