"""Tensor files: what quantisers want of every matrix's input, as safetensors under the names that loaders look for.

Maxima serve as the `act_scales` of SmoothQuant (Xiao et al. 2023), mean squares as an importance matrix; scales of
activations are those of FP8 and NVFP4 checkpoints (vLLM, compressed-tensors), scales of keys and values those of an FP8
cache.
"""

# Shapes: S sequence, C channel.

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from outlier_features.artefacts import atomic, strict_json
from outlier_features.artefacts.provenance import Provenance
from outlier_features.exports.matrix_inputs import ABSENT, EXPERTS, MatrixInput
from outlier_features.metrics.quantisers import E2M1, E4M3
from outlier_features.site_names import CACHED
from outlier_features.statistics.shards import BlockTable

FP8_MAX, NVFP4_MAX = E4M3.largest, E2M1.largest
HEADROOM = 1.0
"""How far beyond the largest |x| of the capture the scales reach: not at all. calibration.json says what was needed."""

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Content:
    """One file: what it holds, in words and of one matrix."""

    words: str
    of: Callable[[MatrixInput], Tensors]


def _act_scales(found: MatrixInput) -> Tensors:
    return {found.name: found.max_abs_C.astype(np.float32)}


def _act_scales_rest(found: MatrixInput) -> Tensors:
    return {} if found.rest_max_abs_C is None else {found.name: found.rest_max_abs_C.astype(np.float32)}


def _importance(found: MatrixInput) -> Tensors:
    return {found.name: (found.square_C / found.rows).astype(np.float32)}


def _input_scales(found: MatrixInput) -> Tensors:
    """Return the scale that FP8 divides by, and the one that NVFP4's block scales are stored over; 1 for all zeros."""
    largest = float(found.max_abs_C.max()) * HEADROOM
    fp8 = largest / FP8_MAX if largest else 1.0
    nvfp4 = FP8_MAX * NVFP4_MAX / largest if largest else 1.0
    return {f"{found.name}.input_scale": _number(fp8), f"{found.name}.input_global_scale": _number(nvfp4)}


CONTENT = {
    "act_scales": Content("largest |x| of each input channel of each matrix, over every position", _act_scales),
    "act_scales_rest": Content(
        "largest |x| of each input channel of each matrix, without position 0 of each sequence", _act_scales_rest
    ),
    "importance": Content("mean of x^2 of each input channel of each matrix, over every position", _importance),
    "input_scales": Content(
        f"of each matrix's input, input_scale = largest |x| / {FP8_MAX:g} (FP8 e4m3, one scale a tensor) and "
        f"input_global_scale = {FP8_MAX:g} x {NVFP4_MAX:g} / largest |x| (NVFP4); headroom {HEADROOM:g}",
        _input_scales,
    ),
}
"""The files, by name without suffix."""
KV_SCALES = (
    f"of what a key-value cache holds, k_scale and v_scale = largest |x| / {FP8_MAX:g} (FP8 e4m3) of each attention, "
    "and k_max_abs and v_max_abs, the largest |x| of each key-value head"
)


class TensorFiles:
    """Collects what the files hold, matrix by matrix."""

    def __init__(self) -> None:
        self._found: dict[str, Tensors] = {name: {} for name in CONTENT}
        self._cached: Tensors = {}

    def add(self, inputs: Iterable[MatrixInput]) -> None:
        """Take in what some matrices read."""
        for found in inputs:
            for name, content in CONTENT.items():
                self._found[name] |= content.of(found)

    def add_cache(self, attention: str | None, table: BlockTable) -> None:
        """Take in what attention was handed in a block, where it was."""
        for site, letter in zip(CACHED, "kv", strict=True):
            if attention is None or site not in table.sites:
                continue
            rows = table.site(site)
            of_heads = rows.max_abs.max(0).reshape(int(rows.values("heads")[0]), -1).max(1)
            scale = float(of_heads.max()) * HEADROOM / FP8_MAX or 1.0
            self._cached |= {
                f"{attention}.{letter}_scale": _number(scale),
                f"{attention}.{letter}_max_abs": of_heads.astype(np.float32),
            }

    def write(self, folder: Path, about: Mapping[str, Any], origin: Provenance, *, is_moe: bool) -> None:
        """Write every file to `folder`, each with what it is and where it comes from in its metadata."""
        common = {key: str(value) for key, value in about.items()}
        common |= {"provenance": strict_json.dumps(origin)}
        of_matrices = common | {"absent": ABSENT} | ({"experts": EXPERTS} if is_moe else {})
        for name, tensors in self._found.items():
            left_out = int(about["sequences"]) if name == "act_scales_rest" else 0
            tokens = {"tokens": str(int(about["tokens"]) - left_out), "content": CONTENT[name].words}
            _write(folder / f"{name}.safetensors", tensors, of_matrices | tokens)
        absent = {"absent": "blocks whose attention hands keys and values to no function, such as linear attention"}
        words = absent | {"content": KV_SCALES, "tokens": str(about["tokens"])}
        _write(folder / "kv_scales.safetensors", self._cached, common | words)


def _number(value: float) -> np.ndarray:
    return np.array([value], np.float32)


def _write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    with atomic.file(path) as unfinished:
        unfinished.write_bytes(save(tensors, dict(metadata)))  # save_file would let no one else read it
