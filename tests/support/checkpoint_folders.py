"""The folder of a model as somebody keeps it, and what is done to it."""

from pathlib import Path

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "LICENSE": "Größe 🦙".encode(),
}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def cut(path: Path, size: int) -> None:
    """Replace a file by its first bytes; a new file, because fetched ones may share their place on the disk."""
    content = path.read_bytes()[:size]
    path.unlink()
    path.write_bytes(content)
