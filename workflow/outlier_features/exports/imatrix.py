"""Imatrix: the importance matrix of llama.cpp as its own tool writes it, sums of squares and counts by GGUF's names."""

# Shapes: C channel, E expert.

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from outlier_features.artefacts import atomic
from outlier_features.errors import ArchitectureError
from outlier_features.exports.matrix_inputs import MatrixInput, part_name

RENAMED = {
    "mistral": "llama",
    "mixtral": "llama",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "cohere": "command-r",
    "phi": "phi2",
}
"""What GGUF calls architectures whose names in transformers do not tell."""


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
        self._arch = architecture(model_type)
        self._names = gguf.get_tensor_name_map(self._arch, blocks)
        self._found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.unnamed: list[str] = []
        """Matrices that GGUF has no name for."""

    def add(self, inputs: Iterable[MatrixInput], experts: int | None) -> None:
        """Take in what the matrices of a block read, which has so many experts."""
        for found in inputs:
            name = self._name(found)
            if name is None:
                self.unnamed.append(found.name)
                continue
            if name not in self._found:
                rows = 1 if found.expert is None else experts or 1
                self._found[name] = np.zeros((rows, len(found.square_C)), np.float32), np.zeros((rows, 1), np.float32)
            sums_EC, counts_E1 = self._found[name]
            place = found.expert or 0
            sums_EC[place], counts_E1[place] = found.square_C, found.rows

    def _name(self, found: MatrixInput) -> str | None:
        """Return the name of the tensor: that of all experts of a block for an expert, whose row is its number."""
        if found.fused is None or found.part is None:
            return self._names.get_name(found.name)
        return self._names.get_name(f"{found.fused}.{part_name(found.fused, found.part)}")

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write the file; an expert without tokens has a count of 0."""
        with atomic.file(path) as unfinished:
            writer = gguf.GGUFWriter(unfinished, arch=gguf.MODEL_ARCH_NAMES[self._arch])
            writer.add_type(gguf.GGUFType.IMATRIX)
            writer.add_array(gguf.Keys.IMatrix.DATASETS, [str(about["corpus"])])
            writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, int(about["sequences"]))
            writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, int(about["length"]))
            for name, (sums_EC, counts_E1) in sorted(self._found.items()):
                writer.add_tensor(f"{name}.weight.in_sum2", sums_EC)
                writer.add_tensor(f"{name}.weight.counts", counts_E1)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
