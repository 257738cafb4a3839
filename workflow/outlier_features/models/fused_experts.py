"""Fused experts: modules that hold the routed experts of a block, known by what they multiply.

transformers keeps the experts of a block as parameters with a leading axis of the number of experts, into and out of
their hidden layer. So do modules that are none: stacked vectors, filters, matrices of heads, shared experts that every
token passes. Fused experts are told from them by running a module on zeros: handed a token, the expert it is sent to
and what that counts, it looks at the choice and multiplies with matrices of the stacks. No class or parameter is known
by its name.
"""

import copy
import inspect
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

PRODUCTS = ("linear", "matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "einsum", "tensordot", "grouped_mm")
"""Parts of the names of torch's functions that multiply matrices."""
SELECTS = ("getitem", "index", "gather", "take", "where", "nonzero", "one_hot", "embedding", "scatter")
ORDERS = ("sort", "eq", "unique", "histc", "bincount")
"""And of those that pick rows by an integer, or put them into the order of one."""
MIXES_POSITIONS = {"attention_mask", "past_key_values", "past_key_value", "layer_past", "cache_params"}
"""Arguments that only a module which mixes positions is handed."""


def is_fused(module: nn.Module) -> bool:
    """Return whether a module holds routed experts, on any device; its weights are not looked at."""
    stacks = [p for p in module.parameters(recurse=False) if is_stack(p)]
    leading = {p.shape[0] for p in module.parameters(recurse=False) if p.dim()}
    if len(stacks) < 2 or len(leading) != 1 or not _takes_choices(module):
        return False
    return any(_multiplies_by_choice(module, width, stacks[0].dtype) for width in dict.fromkeys(stacks[0].shape[1:]))


def is_stack(parameter: torch.Tensor) -> bool:
    """Return whether a parameter holds several matrices, and not vectors or channels of a filter."""
    return parameter.dim() == 3 and min(parameter.shape[1:]) > 1


def arguments(module: nn.Module) -> list[str]:
    """Return the names of what a module's forward takes."""
    return list(inspect.signature(type(module).forward).parameters)[1:]


def _takes_choices(module: nn.Module) -> bool:
    """Return whether a module can be handed tokens, choices and their weights, and no mask or cache."""
    names = arguments(module)
    return len(names) >= 3 and not MIXES_POSITIONS & set(names)


@torch.no_grad()
def _multiplies_by_choice(module: nn.Module, width: int, dtype: torch.dtype) -> bool:
    """Return whether a module looks at the choice for a token of this width and multiplies with its stacks."""
    outline = _outline(module)
    choices = torch.zeros(1, 1, dtype=torch.long)
    stacks: list[torch.Tensor] = [p for p in outline._parameters.values() if p is not None and is_stack(p)]
    # an error is that of a width that does not fit, or of no fused experts: what was seen until then decides
    forward = inspect.unwrap(type(module).forward)  # that of the model, where transformers has others to choose from
    with suppress(Exception), _Watch(stacks, choices) as watch:
        forward(outline, torch.zeros(1, width, dtype=dtype), choices, torch.zeros(1, 1, dtype=dtype))
    return watch.has_multiplied


class _Watch(TorchFunctionMode):
    """Sees whether rows are picked by the choices before a product with a stack, or with what was taken out of it."""

    def __init__(self, stacks: list[torch.Tensor], choices: torch.Tensor) -> None:
        super().__init__()
        # kept, so that no other tensor gets the identity of one
        self._of_stacks, self._of_choices = list(stacks), [choices]
        self._has_picked = False
        self.has_multiplied = False

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let torch do what the module asks for, and look at it."""
        operands = list(_flat((*args, *(kwargs or {}).values())))
        name = getattr(function, "__name__", str(function))
        is_of_choices, is_of_stacks = _share(operands, self._of_choices), _share(operands, self._of_stacks)
        self._has_picked |= is_of_choices and _is_among(name, SELECTS + ORDERS)
        self.has_multiplied |= is_of_stacks and _is_among(name, PRODUCTS) and self._has_picked
        output = function(*args, **(kwargs or {}))
        found = [value for value in _flat((output,)) if isinstance(value, torch.Tensor)]
        self._of_choices += found * is_of_choices
        self._of_stacks += found * (is_of_stacks and not _is_among(name, PRODUCTS))
        return output


def _share(operands: list[Any], tensors: list[torch.Tensor]) -> bool:
    return any(operand is tensor for operand in operands for tensor in tensors)


def _is_among(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in name for part in parts)


def _outline(module: nn.Module) -> nn.Module:
    """Return a module like another without its hooks, every tensor zeros of one element that is seen everywhere."""
    outline = copy.copy(module)
    own = {name: value for name, value in vars(module).items() if name != "forward" and not name.endswith("_hooks")}
    fresh = {name: value for name, value in vars(nn.Module()).items() if name.endswith("_hooks")}
    outline.__dict__ = own | fresh
    outline._parameters = {name: _zeros(tensor) for name, tensor in module._parameters.items()}
    outline._buffers = {name: _zeros(tensor) for name, tensor in module._buffers.items()}
    outline._modules = {name: child and _outline(child) for name, child in module._modules.items()}
    return outline


def _zeros(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else torch.zeros((), dtype=tensor.dtype, device="cpu").expand(tensor.shape)


def _flat(values: Any) -> Any:
    """Yield what the arguments of a call hold, lists and tuples opened."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _flat(value)
        else:
            yield value


def of_block(block: nn.Module) -> nn.Module | None:
    """Return the fused routed experts of `block`, or None in a dense block.

    Hooks on Linear modules would see nothing of them.
    """
    return next(filter(is_fused, block.modules()), None)


def expert_count(fused: nn.Module) -> int:
    """Return how many experts are fused in a module."""
    return next(iter(fused.parameters(recurse=False))).shape[0]
