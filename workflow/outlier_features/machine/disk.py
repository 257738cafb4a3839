"""Disk: whether there is room for what is about to be written, and what to do where there was none after all."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from outlier_features.errors import SourceError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
REMEDIES = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the quota is used up; make room",
    errno.EROFS: "the disk can only be read; mount it for writing",
    errno.EACCES: "permission denied; change the permissions",
}
"""What a user can mend, and how."""


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


@contextmanager
def explained(where: Path, kept: str = "what is finished is kept") -> Iterator[None]:
    """Turn a disk that is full, or may not be written, into a SourceError that says what to do.

    It names `where`, or the file that may not be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _number(error)
        if number not in REMEDIES:
            raise
        file = None if number in NO_ROOM else getattr(error, "filename", None)  # of a copy it would be the source
        raise SourceError(f"{file or where}: {REMEDIES[number]}, then run again: {kept}.") from error


def _number(error: Exception) -> int | None:
    """Return the error number of the system; safetensors only has it in its words."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _words(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
