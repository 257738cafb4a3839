"""File lock: one process at a time makes a result, on this machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outlier_features.errors import DamagedFile


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock beside a result while it is made. Raises DamagedFile if another process is making it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    handle = _locked(lock)
    if handle is None:
        raise DamagedFile(f"{path}: another process is making it; wait for it, or stop it and run again.")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _locked(lock: Path) -> int | None:
    """Return the open handle of a lock that is ours, or None where it is another's."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.fstat(handle).st_ino == lock.stat().st_ino:
                return handle  # else the one before removed it between the two calls
        except BlockingIOError:
            os.close(handle)
            return None
        os.close(handle)
