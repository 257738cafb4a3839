"""Stored formats: numbers of eight and of four bits that share scales, dequantised by the rule of their format.

FP8: an element of `F8_E4M3` or `F8_E5M2` times its scale. `weight_block_size: [r, c]` of config.json gives a matrix one
scale for each tile of r rows and c columns, counted from the first element; the last tiles end where the matrix ends.
Without it a matrix has one scale, or one for each row or column. Scales are real numbers, or powers of two as E8M0.
Experts in four bits beside FP8 (two E2M1 numbers a byte, the low half first) have a scale for 32 columns of a row.

MXFP4 (OCP Microscaling Formats 1.0): 32 numbers of E2M1 times one scale of E8M0, which is 2^(byte - 127), and NaN for
255. GPT-OSS stores its experts so, with the input axis last, where the model has it in the middle.

A product is taken in float32 and cast once, to the precision of the model. Scales of activations are not needed: the
model is measured with activations as they are.
"""

# Shapes: R row, C column, G row of tiles, H column of tiles, E expert, N output, K group of 32 inputs, B byte.

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import embedding

from outlier_features.errors import SourceError
from outlier_features.models.architectures import Quantization

EIGHT_BIT = ("F8_E4M3", "F8_E5M2")
FOUR_BIT_TILE = (1, 32)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
PAIRS = torch.tensor([[E2M1[byte & 15], E2M1[byte >> 4]] for byte in range(256)])
"""The two numbers of each byte."""

NOT_OF_WEIGHTS = re.compile(r"(^|[._])(activation_scale|input_scale|output_scale|qscale_act|[qkv]_scale|kv_scale)$")
"""Scales of activations and of caches, in the names in use."""


@dataclass(frozen=True)
class Stored:
    """A tensor as the header of its file tells: where its bytes lie, its number format and its shape."""

    file: Path
    start: int
    end: int
    format: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """Two tensors of a checkpoint that stand for one of the model."""

    values: str
    scales: str
    combine: Callable[[torch.Tensor, torch.Tensor, torch.dtype], torch.Tensor]
    """Returns the tensor they stand for, in a precision, on the device of both."""


def pairs(stored: Mapping[str, Stored], quantization: Quantization | None, where: object) -> dict[str, Pair]:
    """Return the tensors that two of the checkpoint stand for, by the name of the one they stand for.

    Raises SourceError where a scale lacks or does not fit, or where config.json says nothing of the format.
    """
    eight_bit = [key for key, tensor in sorted(stored.items()) if tensor.format in EIGHT_BIT]
    if quantization is None:
        if eight_bit:
            raise SourceError(
                f"{where}: {eight_bit[0]}{_more(eight_bit)} is stored in eight bits, and config.json lacks the "
                "quantization_config that says how it is scaled; name another revision, or the unquantised checkpoint."
            )
        return {}
    wanted = {key: _scales_beside(key, stored) for key in sorted(stored) if _may_be_scaled(stored[key], quantization)}
    found = {key: _fp8(key, scales, stored, quantization, where) for key, scales in wanted.items() if scales}
    four_bit = [key.removesuffix("_blocks") for key in sorted(stored) if key.endswith("_blocks")]
    if quantization.method == "mxfp4":
        found |= {key: _mxfp4(key, stored, where) for key in four_bit if f"{key}_scales" in stored}
    lacking = [f"{key}_scale_inv" for key in eight_bit if key not in found]
    lacking += [f"{key}_scales" for key in four_bit if quantization.method == "mxfp4" and key not in found]
    if lacking:
        raise SourceError(
            f"{where}: the checkpoint lacks {lacking[0]}{_more(lacking)}, without which what it scales means nothing; "
            "delete the folder and fetch the model again, or name the revision that is whole."
        )
    return found


def scaled_tiles(
    values: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype, *, tile: tuple[int, int]
) -> torch.Tensor:
    """Return values (..., R, C) times the scales (..., G, H) of their tiles, the last of which may be cut."""
    elements = _elements_of(values)
    matrices, grids = elements.reshape(-1, *elements.shape[-2:]), _real(scales).reshape(-1, *scales.shape[-2:])
    result = torch.empty(elements.shape, dtype=dtype, device=values.device)
    for target_RC, matrix_RC, grid_GH in zip(result.view(matrices.shape), matrices, grids, strict=True):
        target_RC.copy_(_scaled(matrix_RC.float(), grid_GH, tile))
    return result


def scaled_groups(blocks_ENKB: torch.Tensor, scales_ENK: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the weights (E, 32 K, N) of MXFP4 blocks of 16 bytes and their E8M0 scales."""
    experts, outputs, groups, size = blocks_ENKB.shape
    result = torch.empty(experts, groups * size * 2, outputs, dtype=dtype, device=blocks_ENKB.device)
    for target, blocks_NKB, scales_NK in zip(result, blocks_ENKB, _real(scales_ENK), strict=True):
        product = _elements(blocks_NKB) * scales_NK[..., None]
        target.copy_(product.flatten(1).T)
    return result


def _scaled(product_RC: torch.Tensor, grid_GH: torch.Tensor, tile: tuple[int, int]) -> torch.Tensor:
    """Multiply a float32 matrix in place by the scales of its tiles."""
    (rows, columns), height = product_RC.shape, min(tile[0], product_RC.shape[0])
    scale_GC = grid_GH.repeat_interleave(min(tile[1], columns), dim=1)[:, :columns]
    whole = rows // height
    product_RC[: whole * height].view(whole, height, columns).mul_(scale_GC[:whole, None])
    product_RC[whole * height :].mul_(scale_GC[-1])
    return product_RC


def _elements_of(values: torch.Tensor) -> torch.Tensor:
    return _elements(values.view(torch.uint8)) if values.dtype == torch.int8 else values


def _elements(bytes_: torch.Tensor) -> torch.Tensor:
    """Return the E2M1 numbers of bytes (..., B): (..., 2 B), the low half of each byte first."""
    return embedding(bytes_.int(), PAIRS.to(bytes_.device)).flatten(-2)


def _real(scales: torch.Tensor) -> torch.Tensor:
    """Return scales in float32; a byte is an exponent (E8M0)."""
    return (scales.view(torch.float8_e8m0fnu) if scales.dtype == torch.uint8 else scales).float()


def _may_be_scaled(tensor: Stored, quantization: Quantization) -> bool:
    return tensor.format in EIGHT_BIT or (tensor.format == "I8" and quantization.method == "fp8")


def _scales_beside(key: str, stored: Mapping[str, Stored]) -> str | None:
    """Return the name of the scales of a tensor, in one of the ways in use, None if there are none."""
    stem, _, last = key.rpartition(".")
    names = [f"{key}_scale_inv", f"{key}_scale"] + [f"{stem}.scale", f"{stem}.qscale_weight"] * (last == "weight")
    return next((name for name in names if name in stored), None)


def _fp8(key: str, scales: str, stored: Mapping[str, Stored], quantization: Quantization, where: object) -> Pair:
    shape, found = stored[key].shape, stored[scales].shape
    tile = quantization.tile
    if stored[key].format == "I8":
        shape, tile = (*shape[:-1], 2 * shape[-1]), FOUR_BIT_TILE
    if tile is not None and len(shape) < 2:
        raise _misfit(where, key, shape, scales, found, f"a matrix with scales for tiles of {tile[0]} by {tile[1]}")
    if tile is not None:
        expected = (*shape[:-2], *(-(-side // part) for side, part in zip(shape[-2:], tile, strict=True)))
        if found != expected:
            raise _misfit(where, key, shape, scales, found, f"{expected} for tiles of {tile[0]} by {tile[1]}")
        return Pair(key, scales, partial(scaled_tiles, tile=tile))
    grid = _grid(shape, found)
    if grid is None:
        one = "one scale, or one for each row or column (weight_block_size names no tiles)"
        raise _misfit(where, key, shape, scales, found, one)
    return Pair(key, scales, partial(_scaled_whole, grid=grid))


def _grid(shape: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, int] | None:
    """Return how many rows and columns of scales a matrix without tiles has, None where they do not fit."""
    *experts, rows, columns = (1, 1, *shape)[-max(2, len(shape)) :]
    lead = tuple(experts)
    if scales in {(), (1,), (1, 1), lead, (*lead, 1), (*lead, 1, 1)}:
        return (1, 1)
    if scales in {(*lead, rows), (*lead, rows, 1)}:
        return (rows, 1)
    return (1, columns) if scales == (*lead, 1, columns) else None


def _scaled_whole(
    values: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype, *, grid: tuple[int, int]
) -> torch.Tensor:
    """Return values (..., R, C) times one scale, or one for each row or column."""
    matrix = values if values.dim() > 1 else values.reshape(1, -1)
    lead = matrix.shape[:-2]
    is_one = scales.numel() == 1
    each = scales.reshape([1] * (len(lead) + 2)).expand(*lead, *grid) if is_one else scales.reshape(*lead, *grid)
    tile = tuple(side // parts for side, parts in zip(matrix.shape[-2:], grid, strict=True))
    return scaled_tiles(matrix, each, dtype, tile=(tile[0], tile[1])).view(values.shape)


def _mxfp4(key: str, stored: Mapping[str, Stored], where: object) -> Pair:
    blocks, scales = f"{key}_blocks", f"{key}_scales"
    shape, found = stored[blocks].shape, stored[scales].shape
    if len(shape) != 4 or shape[-1] != 16 or found != shape[:-1]:
        raise _misfit(where, blocks, shape, scales, found, "one scale for each 16 bytes of the last axis")
    return Pair(blocks, scales, scaled_groups)


def _misfit(
    where: object, key: str, shape: tuple[int, ...], scales: str, found: tuple[int, ...], expected: str
) -> SourceError:
    return SourceError(
        f"{where}: {key} is {shape} and its scales {scales} are {found}, not {expected}; name a revision whose "
        "config.json and weights belong together, or the unquantised checkpoint."
    )


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
