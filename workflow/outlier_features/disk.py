"""Disk: whether there is room for what is about to be written."""

import os
from pathlib import Path

from outlier_features.errors import SourceError


def require_room(folder: Path, size: float, where: str) -> None:
    """Raise SourceError unless the disk of `folder`, which need not exist yet, has room for `size` bytes."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    status = os.statvfs(existing)
    free = status.f_bavail * status.f_frsize
    if size > free:
        raise SourceError(
            f"{where}: needs {_words(size)} more on the disk of {folder}, which has {_words(free)} free; "
            "make room, or let results/ be a link to a larger disk. Nothing of it has been written."
        )


def _words(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
