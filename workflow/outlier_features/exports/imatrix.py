"""Imatrix: the importance matrix of llama.cpp as its own tool writes it, sums of squares and counts by GGUF's names."""

# Shapes: C channel, E expert.

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from outlier_features.artefacts import atomic
from outlier_features.errors import ArchitectureError
from outlier_features.exports.matrix_inputs import MatrixInput, part_name

RENAMED = {
    "bamba": "granitehybrid",
    "cohere": "command-r",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "glm": "chatglm",
    "glm4_moe_lite": "deepseek2",
    "glm_moe_dsa": "glm-dsa",
    "gpt_bigcode": "starcoder",
    "granitemoehybrid": "granitehybrid",
    "granitemoeshared": "granitemoe",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan-moe",
    "internlm3": "llama",
    "mimo_v2_flash": "mimo2",
    "ministral3": "mistral3",
    "mistral": "llama",
    "mixtral": "llama",
    "olmo3": "olmo2",
    "phi": "phi2",
}
"""What llama.cpp converts models to whose name in transformers does not tell."""
OUTSIDE = ("language_model.", "text_model.")
"""What names of the text part of a model for images have besides, which llama.cpp drops."""
SPLIT = {("qwen3next", "ssm_in"): ("ssm_in", "attn_qkv", "attn_gate")}
"""Matrices that conversion cuts into several, which read the same; the first name is that of older files."""
REORDERED = {("qwen35", "ssm_out"), ("qwen35moe", "ssm_out")}
"""Matrices whose input channels conversion puts into another order: sums in this one would be wrong."""
INNER = {"attn_kv_a_mqa": ("attn_kv_b", "attn_k_b", "attn_v_b"), "attn_q_a": ("attn_q_b",)}
"""Matrices of a low-rank attention that read what the one before them and a norm give, which no site is."""


def architecture(model_type: str) -> gguf.MODEL_ARCH:
    """Return GGUF's architecture of a model type of transformers. Raises ArchitectureError where it has none."""
    wanted = _plain(RENAMED.get(model_type, model_type.removesuffix("_text")))
    found = [arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if _plain(name) == wanted]
    if not found:
        raise ArchitectureError(
            f"gguf has no names for tensors of the architecture {model_type}, so no imatrix.gguf was written; "
            "importance.safetensors has the same numbers under the names of the checkpoint."
        )
    return found[0]


class Imatrix:
    """Collects sums of squares and counts, matrix by matrix."""

    def __init__(self, model_type: str, blocks: int) -> None:
        """Take GGUF's names for a type of model. Raises ArchitectureError where it has none."""
        self._arch = gguf.MODEL_ARCH_NAMES[architecture(model_type)]
        self._names = gguf.get_tensor_name_map(architecture(model_type), blocks)
        self._found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._unnamed: dict[str, None] = {}
        self._reordered: dict[str, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no matrix has a name, so that there is nothing to write."""
        return not self._found

    @property
    def left_out(self) -> list[str]:
        """In words, which matrices of the blocks have no entry."""
        kinds = {name.rpartition(".")[2] for name in self._found}
        inner = [name for outer, names in INNER.items() if outer in kinds for name in names]
        reasons = {
            "gguf has no name for": self._unnamed,
            "llama.cpp reorders the input channels of": self._reordered,
            "what a low-rank attention hands to its inner matrices is not captured:": inner,
        }
        return [f"{reason} {', '.join(names)}" for reason, names in reasons.items() if names]

    def add(self, inputs: Iterable[MatrixInput], experts: int | None) -> None:
        """Take in what the matrices of a block read, which has so many experts."""
        for found in inputs:
            for name in self._names_of(found):
                if name not in self._found:
                    rows = 1 if found.expert is None else experts or 1
                    shape = rows, len(found.square_C)
                    self._found[name] = np.zeros(shape, np.float32), np.zeros((rows, 1), np.float32)
                sums_EC, counts_E1 = self._found[name]
                place = found.expert or 0
                sums_EC[place], counts_E1[place] = found.square_C, found.rows

    def _names_of(self, found: MatrixInput) -> list[str]:
        """Return the names of what a matrix becomes: for an expert, whose row is its number, that of all of them."""
        whole = found.name
        if found.fused is not None and found.part is not None:
            whole = f"{found.fused}.{part_name(found.fused, found.part)}"
        name = self._names.get_name(functools.reduce(lambda rest, part: rest.replace(part, ""), OUTSIDE, whole))
        if name is None:
            self._unnamed[whole] = None
            return []
        prefix, _, kind = name.rpartition(".")
        if (self._arch, kind) in REORDERED:
            self._reordered[whole] = None
            return []
        return [f"{prefix}.{each}" for each in SPLIT.get((self._arch, kind), (kind,))]

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write the file; an expert without tokens has a count of 0."""
        with atomic.file(path) as unfinished:
            writer = gguf.GGUFWriter(unfinished, arch=self._arch)
            writer.add_type(gguf.GGUFType.IMATRIX)
            writer.add_array(gguf.Keys.IMatrix.DATASETS, [str(about["corpus"])])
            writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, int(about["sequences"]))
            writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, int(about["length"]))
            for name, (sums_EC, counts_E1) in sorted(self._found.items()):
                for kind, values in (("in_sum2", sums_EC), ("counts", counts_E1)):
                    # one row has one dimension, as in the file of the tool itself
                    writer.add_tensor(f"{name}.weight.{kind}", values[0] if len(values) == 1 else values)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
