"""GGUF files: the weights and the tokenizer of one, written as an ordinary float32 checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import gguf
import numpy as np


def write(directory: Path, file: str, output: Path) -> None:
    """Write what the GGUF `file` in `directory` holds into the directory `output`, as transformers reads it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"gguf_file": file, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        trust_remote_code=False,
        **source,
    )
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, **source)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


class _Reader(gguf.GGUFReader):
    """Reads a file as a plain array: slices of a memmap are slow, and a vocabulary has 100,000."""

    @property
    def data(self) -> np.ndarray:
        """The bytes of the file."""
        return self._data

    @data.setter
    def data(self, mapped: np.ndarray) -> None:
        self._data = mapped.view(np.ndarray)


@contextmanager
def read_once() -> Iterator[None]:
    """Let transformers, which reads a file anew for configuration, weights and tokenizer, share what is read first."""
    reader = gguf.GGUFReader
    gguf.GGUFReader = cache(_Reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader
