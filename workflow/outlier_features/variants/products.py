"""Products: those of a module's forward with its own parameters, seen and changed while it runs.

A parameter is known by the memory it lies in, so views of it, one expert's share, and rows gathered from it are it too.
Which axis a product sums over follows from the call and from strides: the shape of a square matrix does not tell.
"""

# Shapes: R row, C channel that a product sums over, O output.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from outlier_features.errors import ArchitectureError
from outlier_features.models.fused_experts import PRODUCTS


@dataclass(frozen=True)
class Product:
    """One product of a tensor with a parameter."""

    parameter: str
    axis: int
    """Which axis of the parameter it sums over: -1 or -2."""
    x_RC: torch.Tensor


Change = Callable[[Product], torch.Tensor]
"""Returns what takes the place of `x_RC`, of its shape."""


class Products(TorchFunctionMode):
    """Calls `change` for every product of another tensor with one of the parameters."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], change: Change) -> None:
        super().__init__()
        self._parameters, self._change = parameters, change
        self._gathered = WeakTensorKeyDictionary()

    def __torch_function__(self, function: Callable, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let torch do what the module asks for, with changed operands."""
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if any(part in name for part in PRODUCTS):
            args = self._changed(name, args)
            return function(*args, **kwargs)
        output = function(*args, **kwargs)
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            self._note_gathered(args, output)
        return output

    def _changed(self, name: str, args: Sequence[Any]) -> tuple:
        places = [index for index, value in enumerate(args) if isinstance(value, torch.Tensor)]
        owners = {index: owner for index in places if (owner := self._owner(args[index])) is not None}
        first, second = _operands(name, places)
        known = [index for index in (first, second) if index in owners]
        if len(known) != 1:
            if owners and second is None:
                raise ArchitectureError(f"a product by {name} cannot be read; teach variants/products.py its operands.")
            return tuple(args)
        weight = known[0]
        place = first if weight == second else second
        assert place is not None
        x_axis = -1 if place == first or "linear" in name else -2
        weight_axis = -1 if weight == first or "linear" in name else -2
        parameter, strides = owners[weight]
        axis = -1 if args[weight].stride(weight_axis) == strides[1] else -2
        x = args[place] if x_axis == -1 else args[place].mT
        changed = self._change(Product(parameter, axis, x.reshape(-1, x.shape[-1]))).reshape(x.shape)
        return (*args[:place], changed if x_axis == -1 else changed.mT, *args[place + 1 :])

    def _owner(self, x: torch.Tensor) -> tuple[str, tuple[int, ...]] | None:
        """Return the parameter that `x` is of, and the strides of its matrices."""
        if not x.is_floating_point() or x.dim() < 2:
            return None
        if x in self._gathered:
            return self._gathered[x]
        pointer = x.data_ptr()
        for name, parameter in self._parameters.items():
            if 0 <= pointer - parameter.data_ptr() < parameter.nbytes:
                return name, parameter.stride()[-2:]
        base = x._base
        return self._gathered.get(base) if base is not None else None

    def _note_gathered(self, args: Sequence[Any], output: torch.Tensor) -> None:
        """Remember a copy of rows of a parameter, and views of such a copy."""
        tensors = [value for value in args if isinstance(value, torch.Tensor) and value.is_floating_point()]
        if len(tensors) == 1 and output.dim() >= 2 and (owner := self._owner(tensors[0])) is not None:
            parameter, strides = owner
            is_copy = self._owner(output) is None
            if is_copy and tensors[0].dim() == output.dim() and tensors[0].shape[1:] == output.shape[1:]:
                self._gathered[output] = parameter, output.stride()[-2:]
            elif tensors[0] in self._gathered and output.data_ptr() == tensors[0].data_ptr():
                self._gathered[output] = parameter, strides


def _operands(name: str, places: Sequence[int]) -> tuple[int | None, int | None]:
    """Return which arguments a product multiplies, in the order that it does."""
    if "einsum" in name or "tensordot" in name:
        return None, None
    found = list(places[1:] if "add" in name else places)[:2]
    if len(found) < 2:
        return None, None
    return (found[1], found[0]) if name.startswith("__r") else (found[0], found[1])
