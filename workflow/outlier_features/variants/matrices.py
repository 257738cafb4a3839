"""Matrices: what a block multiplies activations with, and what each of them reads, learnt while one window runs."""

# Shapes: O output channel, C channel that a product sums over; the matrices of fused experts have an axis before.

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from outlier_features.capture import hooks
from outlier_features.capture.matrix_readers import MatrixReaders
from outlier_features.errors import ArchitectureError
from outlier_features.models import fused_experts, sites
from outlier_features.site_names import MATRIX_INPUTS
from outlier_features.variants.products import Product, Products

INNER = "inner"
"""Stands for the site of a matrix that reads none of the matrix inputs, such as one between two others."""


@dataclass(frozen=True)
class Matrix:
    """One parameter that multiplies activations: a matrix, or those of fused experts."""

    owner: str
    """The name of its module inside the block."""
    parameter: str
    axis: int
    """Which of its axes a product sums over: -1 or -2."""
    site: str
    """What it reads: one of MATRIX_INPUTS, or INNER."""
    is_routed: bool

    @property
    def name(self) -> str:
        """Its name inside the block."""
        return f"{self.owner}.{self.parameter}"

    @property
    def source(self) -> str:
        """What matrices that read the same tensor have in common."""
        return self.owner if self.site == INNER else self.site

    def of(self, block: nn.Module) -> torch.Tensor:
        """Return its values in a block, (..., O, C)."""
        values = block.get_submodule(self.owner)._parameters[self.parameter]
        assert values is not None
        return self.oriented(values.data)

    def oriented(self, values: torch.Tensor) -> torch.Tensor:
        """Return values with the axis that products sum over last, or values so oriented as the parameter has them."""
        return values if self.axis == -1 else values.mT

    def put(self, block: nn.Module, values: torch.Tensor) -> None:
        """Let these values (..., O, C) be the parameter of a block, laid out in memory as it is."""
        parameters = block.get_submodule(self.owner)._parameters
        present = parameters[self.parameter]
        assert present is not None
        stored = torch.empty_like(present.data)  # with its strides, on which the last bits of a product can depend
        parameters[self.parameter] = nn.Parameter(stored.copy_(self.oriented(values)), requires_grad=False)


@dataclass
class Learner:
    """Finds the matrices of a block while one window runs."""

    block: nn.Module
    _products: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of a module, the parameters that products were seen with, in the order of their last, and the axes."""

    def __post_init__(self) -> None:
        self._fused = fused_experts.of_block(self.block)
        self._readers = MatrixReaders(self.block)
        left_out = {*sites.routers(self.block), self._fused}
        self._owners = {
            name: module
            for name, module in self.block.named_modules()
            if module not in left_out and _owns_matrix(module) and not _is_gate(module)
        }
        self._fused_name = next((name for name, module in self.block.named_modules() if module is self._fused), "")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at what runs while the context is open."""
        probes = sites.probes(self.block, MATRIX_INPUTS)
        with ExitStack() as stack:
            stack.enter_context(hooks.observed(probes, self._readers.saw))
            stack.enter_context(self._readers.watched())
            unknown = {name: module for name, module in self._owners.items() if _axis(module) is None}
            if self._fused is not None:
                unknown[self._fused_name] = self._fused
            for name, module in unknown.items():
                stack.enter_context(hooks.replaced(module, self._watching(name, module)))
            yield

    @property
    def owners(self) -> dict[str, nn.Module]:
        """The modules that may hold matrices, by their names, without fused experts."""
        return self._owners

    def found(self) -> list[Matrix]:
        """Return the matrices of the block, in its order. Raises ArchitectureError for one that was handed nothing."""
        site_of = {name: site for site, names in self._readers.names().items() for name in names}
        matrices = []
        for name, module in self._owners.items():
            axis = _axis(module)
            own = {"weight": axis} if axis is not None else self._products.get(name, {})
            matrices += [Matrix(name, each, at, site_of.get(name, INNER), False) for each, at in own.items()]
        if self._fused is not None:
            own = self._products.get(self._fused_name, {})
            if not own:
                raise ArchitectureError(
                    f"no product with the experts of {type(self._fused).__name__} was seen; "
                    "teach variants/products.py how it runs its experts."
                )
            down = list(own)[-1]
            matrices += [
                Matrix(self._fused_name, each, at, "down_in" if each == down else "mlp_in", True)
                for each, at in own.items()
            ]
        return matrices

    def _watching(self, name: str, module: nn.Module) -> Callable:
        def around(forward: Callable) -> Callable:
            def watching(*args: Any, **kwargs: Any) -> Any:
                handed = next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))

                def note(product: Product) -> torch.Tensor:
                    seen = self._products.setdefault(name, {})
                    seen.pop(product.parameter, None)
                    seen[product.parameter] = product.axis
                    if module is not self._fused and product.x_RC.data_ptr() != handed.data_ptr():
                        raise ArchitectureError(
                            f"{name}.{product.parameter} multiplies another tensor than {type(module).__name__} is "
                            "handed, so its input cannot be quantised; teach variants/matrices.py this architecture."
                        )
                    return product.x_RC

                with Products(_matrices_of(module), note):
                    return forward(*args, **kwargs)

            return watching

        return around


def _matrices_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in module.named_parameters(recurse=False) if p.dim() in (2, 3)}


def _owns_matrix(module: nn.Module) -> bool:
    return bool(_matrices_of(module)) and not isinstance(module, nn.Embedding)


def _axis(module: nn.Module) -> int | None:
    """Return the axis that a plain linear layer sums over; None for a module with code of its own."""
    if isinstance(module, Conv1D):
        return -2
    return -1 if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward else None


def _is_gate(module: nn.Module) -> bool:
    """Return whether a module gives one number a position, as that which weighs a shared expert does."""
    return isinstance(module, nn.Linear) and module.out_features == 1


def require_handed(matrices: Sequence[Matrix], handed: set[str], block: int) -> None:
    """Raise ArchitectureError, naming the first matrix whose input was not seen in a block."""
    missing = [matrix.name for matrix in matrices if matrix.owner not in handed]
    if missing:
        raise ArchitectureError(
            f"block {block}: no input of {missing[0]} was quantised ({len(missing)} of {len(matrices)} matrices): it "
            "is not called, or its parent multiplies with it; narrow `sites` of the variant to leave it out."
        )
