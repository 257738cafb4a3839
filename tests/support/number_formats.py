"""Stored numbers by the words of their formats, in float64 NumPy: what a dequantised checkpoint has to hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def bits_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.uint8).numpy().astype(np.int64)


def e4m3(bits: np.ndarray) -> np.ndarray:
    """Sign, four bits of exponent (bias 7), three of mantissa; no infinity, and NaN where all of them are set."""
    sign, exponent, mantissa = np.where(bits >> 7, -1.0, 1.0), (bits >> 3) & 15, bits & 7
    normal, subnormal = (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa / 8 * 2.0**-6
    return sign * np.where(bits & 127 == 127, np.nan, np.where(exponent == 0, subnormal, normal))


def e5m2(bits: np.ndarray) -> np.ndarray:
    """Sign, five bits of exponent (bias 15), two of mantissa; infinity and NaN as in IEEE 754."""
    sign, exponent, mantissa = np.where(bits >> 7, -1.0, 1.0), (bits >> 2) & 31, bits & 3
    normal, subnormal = (1 + mantissa / 4) * 2.0 ** (exponent - 15), mantissa / 4 * 2.0**-14
    special = np.where(mantissa == 0, np.inf, np.nan)
    return sign * np.where(exponent == 31, special, np.where(exponent == 0, subnormal, normal))


def e2m1(bits: np.ndarray) -> np.ndarray:
    """Sign, two bits of exponent (bias 1), one of mantissa."""
    sign, exponent, mantissa = np.where(bits >> 3, -1.0, 1.0), (bits >> 1) & 3, bits & 1
    return sign * np.where(exponent == 0, mantissa / 2, (1 + mantissa / 2) * 2.0 ** (exponent - 1))


def e8m0(bits: np.ndarray) -> np.ndarray:
    """Eight bits of exponent (bias 127), NaN where all of them are set."""
    return np.where(bits == 255, np.nan, 2.0 ** (bits - 127.0))


def real(tensor: torch.Tensor) -> np.ndarray:
    """Return the numbers that a tensor of a checkpoint holds."""
    small = {torch.float8_e4m3fn: e4m3, torch.float8_e5m2: e5m2, torch.float8_e8m0fnu: e8m0, torch.uint8: e8m0}
    return small[tensor.dtype](bits_of(tensor)) if tensor.dtype in small else tensor.double().numpy()


def fp4_pairs(tensor: torch.Tensor) -> np.ndarray:
    """Return the two numbers of each byte along the last axis, the low half first."""
    bits = bits_of(tensor)
    return np.stack([e2m1(bits & 15), e2m1(bits >> 4)], -1).reshape(*bits.shape[:-1], -1)


def of_tiles(values: np.ndarray, scales: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """Element (i, j) has the scale of tile (i // r, j // c)."""
    rows, columns = values.shape[-2:]
    of_row, of_column = np.arange(rows) // tile[0], np.arange(columns) // tile[1]
    return values * scales[..., of_row[:, None], of_column[None, :]]


def of_groups(blocks: torch.Tensor, scales: torch.Tensor) -> np.ndarray:
    """MXFP4 as GPT-OSS has it: blocks (E, N, K / 32, 16), scales (E, N, K / 32), weights (E, K, N)."""
    values = fp4_pairs(blocks) * real(scales)[..., None]
    return values.reshape(*values.shape[:2], -1).swapaxes(1, 2)


def rounded(values: np.ndarray) -> torch.Tensor:
    """Return values rounded to float32 once."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.ascontiguousarray(values.astype(np.float32)))


def dequantised(stored: Tensors, tile: tuple[int, int]) -> Tensors:
    """Return what tensors of tiles with `_scale_inv`, or of `_blocks` and `_scales`, stand for, and the others."""
    found: Tensors = {}
    for name, tensor in stored.items():
        if f"{name}_scale_inv" in stored:
            found[name] = rounded(of_tiles(real(tensor), real(stored[f"{name}_scale_inv"]), tile))
        elif name.endswith("_blocks"):
            stem = name.removesuffix("_blocks")
            found[stem] = rounded(of_groups(tensor, stored[f"{stem}_scales"]))
        elif not name.endswith(("_scale_inv", "_scales")):
            found[name] = tensor
    return found


def stored_in(checkpoint: Path) -> Tensors:
    return {name: tensor for file in checkpoint.glob("*.safetensors") for name, tensor in load_file(file).items()}


def plain(checkpoint: Path) -> Path:
    """Return a checkpoint beside this one with its tensors dequantised; itself where it is not quantised."""
    described = json.loads((checkpoint / "config.json").read_text())
    quantization = described.pop("quantization_config", None)
    if quantization is None:
        return checkpoint
    target = checkpoint.with_name(f"{checkpoint.name}-plain")
    if not target.exists():
        target.mkdir()
        tensors = dequantised(stored_in(checkpoint), tuple(quantization.get("weight_block_size") or (1, 1)))
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        (target / "config.json").write_text(json.dumps(described))
        for file in checkpoint.glob("tokenizer*"):
            shutil.copy(file, target)
    return target
