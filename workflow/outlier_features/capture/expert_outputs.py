"""Expert outputs: what the down projections of routed experts read and put out, seen while the model runs them.

transformers keeps the experts of a block in one module, fused, and runs it in one of several ways: a loop, grouped
products, batched ones. Nothing is computed again here: every torch call of the module's own forward is looked at, and a
product with one of its matrices is known by the memory that the matrix lies in, whichever way is taken.
"""

# Shapes: S pair of a token and an expert it is routed to, T token, k expert of a token, C channel, I channel of the
# hidden layer, E expert.

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from outlier_features.capture.hooks import replaced
from outlier_features.models.fused_experts import expert_count

NONE = -1.0
"""Stands for the largest magnitude where there was none."""


@dataclass(frozen=True)
class Rows:
    """A row for each pair of a token and an expert, in the order of tokens, then of experts, however they ran."""

    inputs_SI: torch.Tensor
    """What the down projections read."""
    tokens_S: torch.Tensor
    experts_S: torch.Tensor
    norms_S: torch.Tensor
    """Euclidean norm of each down-projection output, float32; 0 where it is not finite."""

    @classmethod
    def ordered(cls, pieces: Sequence["Rows"], experts: int) -> "Rows":
        """Put the rows of several products into order."""
        inputs_SI, tokens_S, experts_S, norms_S = (
            torch.cat([getattr(piece, name) for piece in pieces])
            for name in ("inputs_SI", "tokens_S", "experts_S", "norms_S")
        )
        order_S = (tokens_S * experts + experts_S).argsort()
        return cls(inputs_SI[order_S], tokens_S[order_S], experts_S[order_S], norms_S[order_S])


@dataclass(frozen=True)
class Pass:
    """What fused experts did with one window."""

    largest_E: torch.Tensor
    """Each expert's largest |down-projection output| (float32) over the tokens routed to it, its bias included and the
    router's weight not yet applied; NONE for an expert without tokens. A token for which an expert puts out NaN or
    infinity is left out: it shows in the residual stream, where both are counted."""
    hidden_TC: torch.Tensor
    """What they were handed."""
    output: torch.Tensor
    """What they returned: the weighted sum of the experts."""
    rows: Rows | None
    """None where it was not seen which token a row belongs to."""
    seconds: float
    """What looking took."""


def observed(fused: nn.Module, record: Callable[[Pass], None]) -> AbstractContextManager[None]:
    """Call `record` after every forward of fused experts while the context is open.

    A forward without a down projection that is recognised records nothing.
    """

    def around(forward: Callable) -> Callable:
        def watched(*args: Any, **kwargs: Any) -> Any:
            hidden = _hidden(args, kwargs)
            with _Products(fused, hidden) as products:
                output = forward(*args, **kwargs)
            if (found := products.found(output)) is not None:
                record(found)
            return output

        return watched

    return replaced(fused, around)


@dataclass(frozen=True)
class _Share:
    """What a tensor holds of a parameter of fused experts: all of it, one expert's, or one expert's for every row."""

    parameter: int
    """Its place among the parameters of the module."""
    experts: int | torch.Tensor | None
    """The expert, or those of the rows (S,); None for all."""


@dataclass(frozen=True)
class _Product:
    """An output of experts, a row for each pair of a token and an expert, and whose rows they are."""

    parameter: int
    output_SC: torch.Tensor
    experts_S: torch.Tensor
    """E for a row that belongs to no expert."""
    input_SI: torch.Tensor
    tokens_S: torch.Tensor | None


class _Products(TorchFunctionMode):
    """Sees the products of fused experts with their matrices that are as wide as what they return.

    The down projection is the matrix that comes last: one that is as wide by chance, such as that into a hidden layer
    of the same width, comes before it. Where they have a bias of that width, a product is complete with the bias.
    """

    def __init__(self, fused: nn.Module, hidden: torch.Tensor) -> None:
        super().__init__()
        self._experts, self._channels, self._hidden = expert_count(fused), hidden.shape[-1], hidden
        parameters = list(fused.parameters(recurse=False))
        # where a parameter begins in memory, how many bytes on the next expert does, how many dimensions it has
        self._places = [(p.data_ptr(), p.stride(0) * p.element_size(), p.dim()) for p in parameters]
        self._has_bias = any(p.shape == (self._experts, self._channels) for p in parameters)
        self._gathered = WeakTensorKeyDictionary()
        self._incomplete: _Product | None = None
        self._largest: dict[int, torch.Tensor] = {}
        self._last: int | None = None
        self._tokens_S: torch.Tensor | None = None
        self._rows: dict[int, list[Rows | None]] = {}
        self.seconds = 0.0

    def __torch_function__(self, function: Callable, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let torch do what the experts ask for, and look at it."""
        output = function(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor):
            start = time.perf_counter()
            self._see(_tensors((*args, *(kwargs or {}).values())), output)
            self.seconds += time.perf_counter() - start
        return output

    def found(self, output: Any) -> Pass | None:
        """Return what was seen, None if no down projection was."""
        start = time.perf_counter()
        if self._last is None:
            return None
        largest_E = self._largest[self._last][: self._experts]
        pieces = self._rows[self._last]
        known = [piece for piece in pieces if piece is not None]
        rows = Rows.ordered(known, self._experts) if len(known) == len(pieces) else None
        seconds = self.seconds + time.perf_counter() - start
        return Pass(largest_E, self._hidden.reshape(-1, self._channels), output, rows, seconds)

    def _see(self, operands: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        self._note_tokens(operands, output)
        floats = [(x, self._share(x)) for x in operands if x.is_floating_point()]
        shares = [share for _, share in floats if share is not None]
        if not shares:
            return
        others = [x for x, share in floats if share is None]
        matrices = [share for share in shares if self._places[share.parameter][2] == 3]
        is_with_bias = len(shares) > len(matrices)
        if not others:
            self._note_gathered(shares, operands, output)
        elif matrices:
            product = self._product(matrices[0], others[0], operands, output)
            if product is not None and (is_with_bias or not self._has_bias):
                self._measure(product)
            else:
                self._incomplete = product
        elif self._incomplete is not None and any(_is_same(x, self._incomplete.output_SC) for x in others):
            self._measure(replace(self._incomplete, output_SC=output))
            self._incomplete = None

    def _share(self, x: torch.Tensor) -> _Share | None:
        """Return what `x` holds of a parameter of the experts: a view of it, or rows gathered from it."""
        if self._gathered and x in self._gathered:
            return self._gathered[x]
        pointer = x.data_ptr()
        for index, (start, step, dimensions) in enumerate(self._places):
            expert, within = divmod(pointer - start, step)
            if within == 0 and 0 <= expert < self._experts:
                is_whole = x.dim() == dimensions and len(x) == self._experts
                return _Share(index, None if is_whole else expert)
        return None

    def _note_tokens(self, operands: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        """Remember which tokens rows are of that were picked out of what the experts were handed."""
        if not output.is_floating_point() or output.dim() != 2 or output.shape[1] != self._channels:
            return
        if not any(_is_same(x, self._hidden) for x in operands) or _is_same(output, self._hidden):
            return
        picked = next((x for x in operands if not x.is_floating_point() and x.numel() == len(output)), None)
        tokens = self._hidden.numel() // self._channels
        if picked is not None:
            self._tokens_S = picked.reshape(-1).long()
        elif len(output) % tokens == 0:  # every token several times over, one after the other
            self._tokens_S = torch.arange(tokens, device=output.device).repeat_interleave(len(output) // tokens)

    def _note_gathered(self, shares: Sequence[_Share], operands: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        """Remember a copy that has a row of a parameter for each of a list of experts."""
        of_rows = _integers(operands, len(output) if output.dim() else 0)
        if of_rows is not None and shares[0].experts is None and self._share(output) is None:
            self._gathered[output] = _Share(shares[0].parameter, of_rows)

    def _product(
        self, share: _Share, x: torch.Tensor, operands: Sequence[torch.Tensor], output: torch.Tensor
    ) -> _Product | None:
        """Return a product with a matrix of the module, None where it is not as wide as what they return."""
        if output.dim() < 2 or output[:1].numel() != self._channels:
            return None
        if share.experts is None:
            ends_E = _integers(operands, self._experts)  # grouped: after which row each expert's rows end
            if ends_E is None:
                return None
            rows = torch.arange(len(output), dtype=ends_E.dtype, device=ends_E.device)
            of_rows = torch.searchsorted(ends_E, rows, right=True)
        elif isinstance(share.experts, int):
            of_rows = torch.full((len(output),), share.experts, device=output.device)
        else:
            of_rows = share.experts
        is_known = self._tokens_S is not None and len(self._tokens_S) == len(output)
        return _Product(share.parameter, output, of_rows, x, self._tokens_S if is_known else None)

    def _measure(self, product: _Product) -> None:
        """Raise the largest magnitude of each expert by a product; the host waits for nothing."""
        x_SC = product.output_SC.reshape(-1, self._channels)
        largest_S = torch.maximum(x_SC.amax(1), -x_SC.amin(1)).float().nan_to_num(NONE, NONE, NONE)
        if product.parameter not in self._largest:
            self._largest[product.parameter] = torch.full((self._experts + 1,), NONE, device=x_SC.device)
        self._largest[product.parameter].scatter_reduce_(0, product.experts_S.long(), largest_S, "amax")
        self._rows.setdefault(product.parameter, []).append(_rows(product, x_SC))
        self._last = product.parameter


def _rows(product: _Product, x_SC: torch.Tensor) -> Rows | None:
    """Return the rows of a product whose output is `x_SC`, in the order it has them."""
    if product.tokens_S is None:
        return None
    norms_S = torch.linalg.vector_norm(x_SC, dim=1, dtype=torch.float32).nan_to_num(0.0, 0.0, 0.0)
    return Rows(product.input_SI.reshape(len(x_SC), -1), product.tokens_S, product.experts_S.long(), norms_S)


def _hidden(args: tuple, kwargs: dict) -> torch.Tensor:
    """Return the tensor that the experts are handed; their output is as wide."""
    return next(x for x in _tensors((*args, *kwargs.values())) if x.is_floating_point())


def _tensors(values: Sequence[Any]) -> list[torch.Tensor]:
    """Return the tensors among the arguments of a call; an index may come as a tuple of them."""
    flat = [part for value in values for part in (value if isinstance(value, tuple | list) else (value,))]
    return [value for value in flat if isinstance(value, torch.Tensor)]


def _integers(operands: Sequence[torch.Tensor], count: int) -> torch.Tensor | None:
    """Return the list of so many integers among the operands of a call."""
    kinds = (torch.int32, torch.int64)
    return next((x for x in operands if x.dim() == 1 and len(x) == count and x.dtype in kinds), None)


def _is_same(x: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether a tensor is another one, or a view of all of it."""
    return x.data_ptr() == other.data_ptr() and x.numel() == other.numel()
