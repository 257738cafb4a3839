"""The page cache: what the kernel keeps in memory of files that were read."""

import os
from collections.abc import Iterable
from pathlib import Path


def drop(paths: Iterable[Path]) -> None:
    """Let the kernel forget files, so that the next reader fetches them from storage; mapped pages stay."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # pages that are not written yet would stay
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def files(*folders: Path) -> list[Path]:
    """Return every file below folders."""
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
