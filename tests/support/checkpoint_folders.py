"""The folder of a model as somebody keeps it, and what is done to it."""

import json
from pathlib import Path

import numpy as np
from families import save_tokenizer
from safetensors.numpy import save_file

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "LICENSE": "Größe 🦙".encode(),
}


def save_model(directory: Path) -> Path:
    """Write a model of two weight files with its tokenizer into a new directory, and return it."""
    directory.mkdir()
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    save_tokenizer(directory)
    for number in (1, 2):
        weights = {f"weight_{number}": np.full((4, 4), number, np.float32)}
        save_file(weights, directory / f"model-0000{number}-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {f"weight_{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def cut(path: Path, size: int) -> None:
    """Replace a file by its first bytes; a new file, because fetched ones may share their place on the disk."""
    content = path.read_bytes()[:size]
    path.unlink()
    path.write_bytes(content)
