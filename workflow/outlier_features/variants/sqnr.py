"""SQNR: how much of each matrix's input and output a format leaves, on the plain model's inputs, as sums."""

# Shapes: R row of a window, C channel that a product sums over, O output channel, S pair of a token and an expert.

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from outlier_features.variants.fake_quantisation import QuantisedBlock
from outlier_features.variants.options.keeping import KeepOne
from outlier_features.variants.options.treatment import Treatment, in_pieces
from outlier_features.variants.plain_block import Inputs, PlainBlock

SUMS = ("signal", "error", "signal_rest", "error_rest", "output_signal", "output_error", "output_error_kept")


@dataclass
class Sums:
    """Sums of squares over windows, in the squares of units of X and of y; float64."""

    values: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))
    windows: int = 0
    kept_channels: int = 0

    def add(self, **found: torch.Tensor) -> None:
        """Add the sums of some rows."""
        for name, value in found.items():
            self.values[name] += float(value)


@dataclass(frozen=True)
class Operands:
    """Both operands of a product as they are, as they come back, and as they do where one channel stays."""

    x: torch.Tensor
    back: torch.Tensor
    """The rounded input in the model's coordinates."""
    rounded: torch.Tensor
    kept: torch.Tensor | None


def rows(plain: PlainBlock, quantised: QuantisedBlock, has_option: bool) -> Iterator[dict[str, Any]]:
    """Yield, for each matrix, and each expert of fused ones, the sums over all kept windows; `expert` None is all.

    `has_option` leaves out what one channel gains: with another option a variant has two.
    """
    for matrix in plain.matrices:
        treatment = quantised.treatments.get(matrix.source)
        windows = plain.inputs.get(matrix.source, {})
        if treatment is None or not windows:
            continue
        top = int(treatment.known.largest_C.argmax())
        one = None if has_option else _keeping(treatment, top)
        w, installed = quantised.raw[matrix], matrix.of(plain.block)
        sums = _sums(matrix.is_routed, w, installed, treatment, one, list(windows.values()), top)
        for expert, found in sums.items():
            yield {
                "matrix": matrix,
                "expert": expert,
                "top_channel": top,
                "windows": found.windows,
                "kept_channels": found.kept_channels,
                **found.values,
            } | ({} if one is not None else {"output_error_kept": None})


def _keeping(treatment: Treatment, channel: int) -> KeepOne:
    one = KeepOne(treatment.format, treatment.known, channel)
    one.activations = treatment.activations  # with the range it has learnt
    return one


def _sums(
    is_routed: bool,
    w: torch.Tensor,
    rounded: torch.Tensor,
    treatment: Treatment,
    one: KeepOne | None,
    windows: list[Inputs],
    top: int,
) -> dict[int | None, Sums]:
    kept = None if one is None else in_pieces(one.weights, w)
    sums: dict[int | None, Sums] = {None: Sums()}
    for inputs in windows:
        x_RC = inputs.x_RC.float()
        if treatment.is_by_window:
            rounded = in_pieces(partial(treatment.weights, whole_RC=x_RC), w)
        back = treatment.input(x_RC, x_RC).to(inputs.x_RC.dtype).float()
        operands = Operands(
            x_RC,
            treatment.back(back),
            back,
            None if one is None else one.input(x_RC, x_RC).to(inputs.x_RC.dtype).float(),
        )
        sums[None].windows += 1
        sums[None].kept_channels += treatment.kept(x_RC)
        for expert, rows_S, index in _parts(inputs, is_routed):
            own = sums.setdefault(expert, Sums())
            found = _squares(operands, rows_S, w[index], rounded[index], None if kept is None else kept[index], top)
            own.add(**found)
            if expert is not None:
                sums[None].add(**found)
                own.windows += 1
                own.kept_channels += treatment.kept(x_RC)
    return sums


def _parts(inputs: Inputs, is_routed: bool) -> Iterator[tuple[int | None, Any, Any]]:
    """Yield the expert, its rows and its place among matrices; of a matrix that every row passes all of both."""
    if not is_routed:
        yield None, slice(None), slice(None)
        return
    assert inputs.rows_S is not None
    assert inputs.experts_S is not None
    for expert in inputs.experts_S.unique().tolist():
        yield expert, inputs.rows_S[inputs.experts_S == expert], expert


def _squares(
    operands: Operands, rows: Any, w: torch.Tensor, rounded: torch.Tensor, kept: torch.Tensor | None, top: int
) -> dict[str, torch.Tensor]:
    x_RC, error_RC = operands.x[rows], (operands.back - operands.x)[rows]
    signal_C, error_C = (x.double().square().sum(0) for x in (x_RC, error_RC))
    y_RO = x_RC @ w.float().T
    found = {
        "signal": signal_C.sum(),
        "error": error_C.sum(),
        "signal_rest": signal_C.sum() - signal_C[top],
        "error_rest": error_C.sum() - error_C[top],
        "output_signal": _square(y_RO),
        "output_error": _square(operands.rounded[rows] @ rounded.float().T - y_RO),
    }
    if kept is not None and operands.kept is not None:
        found["output_error_kept"] = _square(operands.kept[rows] @ kept.float().T - y_RO)
    return found


def _square(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dtype=torch.float64).square()
