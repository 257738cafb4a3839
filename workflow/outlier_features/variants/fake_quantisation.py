"""Fake quantisation: a block whose matrices and their inputs are rounded and come back in the model's precision."""

# Shapes: R row of a window, C channel that a product sums over; S pair of a token and an expert.

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from outlier_features.capture import hooks
from outlier_features.variants.matrices import Matrix
from outlier_features.variants.options.treatment import Treatment, in_pieces
from outlier_features.variants.products import Product, Products

NOISE = 1 + 2.0**-18
"""What inputs are multiplied by to see how chaotic a quantised loss is."""


class _Incomplete(Exception):
    """A product of experts had some of a window's rows only."""


@dataclass
class QuantisedBlock:
    """The treatments of a block's matrices while one variant runs through it."""

    block: nn.Module
    matrices: Sequence[Matrix]
    treatments: dict[str, Treatment]
    """By the source of matrices; of the same source all or none."""
    factor: float = 1.0
    """What inputs are multiplied by before anything else."""
    handed: set[str] = field(default_factory=set)
    """The owners whose input was rounded."""
    window: int = 0
    is_calibrating: bool = False
    raw: dict[Matrix, torch.Tensor] = field(default_factory=dict)
    """The matrices (..., O, C) as they are, while the context of `running` is open."""
    _learnt: set[tuple[str, int]] = field(default_factory=set)
    _last: dict[str, tuple[Any, torch.Tensor]] = field(default_factory=dict)

    def install(self) -> None:
        """Put the rounded matrices in place; those that depend on the window wait for it."""
        for matrix in self._quantised():
            treatment = self.treatments[matrix.source]
            if not treatment.is_by_window:
                matrix.put(self.block, in_pieces(treatment.weights, matrix.of(self.block)))

    def _quantised(self) -> list[Matrix]:
        return [matrix for matrix in self.matrices if matrix.source in self.treatments]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Round what matrices are handed while the context is open."""
        raw = self.raw = {matrix: matrix.of(self.block) for matrix in self._quantised()}
        parameters = [(self.block.get_submodule(m.owner)._parameters, m.parameter) for m in raw]
        present = [own[name] for own, name in parameters]
        with ExitStack() as stack:
            for owner in dict.fromkeys(matrix.owner for matrix in raw):
                own = [matrix for matrix in raw if matrix.owner == owner]
                module = self.block.get_submodule(owner)
                if own[0].is_routed:
                    stack.enter_context(hooks.replaced(module, self._experts(module, own)))
                else:
                    stack.enter_context(hooks.changed(module, self._change(own)))
            self.install()
            try:
                yield
            finally:
                for (own_parameters, name), parameter in zip(parameters, present, strict=True):
                    own_parameters[name] = parameter

    def again(self, treatments: dict[str, Treatment], factor: float) -> None:
        """Let another run begin, with ranges of its own and the same matrices."""
        self.treatments, self.factor = treatments, factor
        self._learnt.clear()
        self._last.clear()

    def _change(self, own: Sequence[Matrix]) -> Callable[[torch.Tensor], torch.Tensor]:
        source = own[0].source

        def change(x: torch.Tensor) -> torch.Tensor:
            self.handed.add(own[0].owner)
            rows_RC = self._perturbed(x)
            self._learn(source, rows_RC)
            self._fit(own, rows_RC)
            last, result = self._last.get(source, (None, x))
            if last is not x:
                result = self._rounded(source, rows_RC, rows_RC, x)
                self._last[source] = x, result
            return result

        return change

    def _perturbed(self, x: torch.Tensor) -> torch.Tensor:
        rows_RC = x.reshape(-1, x.shape[-1]).float()
        return rows_RC if self.factor == 1.0 else rows_RC * self.factor

    def _rounded(self, source: str, rows_RC: torch.Tensor, whole_RC: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return self.treatments[source].input(rows_RC, whole_RC).to(like.dtype).reshape(like.shape)

    def _learn(self, source: str, whole_RC: torch.Tensor) -> None:
        """Take in a calibration window, once for all that read it."""
        if self.is_calibrating and (source, self.window) not in self._learnt:
            self._learnt.add((source, self.window))
            self.treatments[source].learn(whole_RC)

    def _fit(self, own: Sequence[Matrix], whole_RC: torch.Tensor) -> None:
        """Put matrices that depend on the window in place."""
        treatment = self.treatments[own[0].source]
        if treatment.is_by_window:
            for matrix in own:
                matrix.put(self.block, in_pieces(partial(treatment.weights, whole_RC=whole_RC), self.raw[matrix]))

    def _experts(self, module: nn.Module, own: Sequence[Matrix]) -> Callable:
        """Return what takes the place of the forward of fused experts.

        What they are handed is rounded before it; what the down projection reads, at its product. Where an expert runs
        after the other, a first forward sees all rows that one scale spans, and a second one rounds them.
        """
        into = [matrix for matrix in own if matrix.source != "down_in"]
        down = next((matrix for matrix in own if matrix.source == "down_in"), None)

        def around(forward: Callable) -> Callable:
            def rounded(*args: Any, **kwargs: Any) -> Any:
                if into:
                    args, kwargs = hooks.with_first(module, args, kwargs, self._change(into))
                if down is None:
                    return forward(*args, **kwargs)
                self.handed.add(down.owner)
                rows = sum(x.numel() for x in (*args, *kwargs.values()) if _is_choice(x))
                if not self.treatments["down_in"].is_by_window:
                    try:
                        return self._through_down(forward, args, kwargs, down, rows, None)
                    except _Incomplete:
                        pass
                whole_SC = self._down_rows(forward, args, kwargs, down)
                self._fit([down], whole_SC)
                return self._through_down(forward, args, kwargs, down, rows, whole_SC)

            return rounded

        return around

    def _through_down(
        self, forward: Callable, args: tuple, kwargs: dict, down: Matrix, rows: int, whole_SC: torch.Tensor | None
    ) -> Any:
        def change(product: Product) -> torch.Tensor:
            if whole_SC is None and len(product.x_RC) < rows:
                raise _Incomplete
            own_SC = self._perturbed(product.x_RC)
            all_SC = own_SC if whole_SC is None else whole_SC
            self._learn("down_in", all_SC)
            return self._rounded("down_in", own_SC, all_SC, product.x_RC)

        with Products(self._parameter(down), change):
            return forward(*args, **kwargs)

    def _down_rows(self, forward: Callable, args: tuple, kwargs: dict, down: Matrix) -> torch.Tensor:
        """Return everything that the down projections read in one window."""
        pieces: list[torch.Tensor] = []

        def keep(product: Product) -> torch.Tensor:
            pieces.append(self._perturbed(product.x_RC))
            return product.x_RC

        with Products(self._parameter(down), keep):
            forward(*args, **kwargs)
        return torch.cat(pieces)

    def _parameter(self, matrix: Matrix) -> dict[str, torch.Tensor]:
        values = self.block.get_submodule(matrix.owner)._parameters[matrix.parameter]
        assert values is not None
        return {matrix.parameter: values}


def _is_choice(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and not x.is_floating_point()
