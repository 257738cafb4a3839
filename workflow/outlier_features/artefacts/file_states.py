"""File states: what the system tells of a file without reading it, and what was found out in a state.

A state is size, modification time, change time and inode. An edit that restores the modification time moves the change
time, so it is seen. Not seen is what the file system does not tell: a change below it, a network disk that answers from
an old cache, a damaged sector.
"""

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from outlier_features.artefacts import strict_json

RACY_SECONDS = 2.0
"""A file that changed so shortly ago may change again within one tick of its disk's clock."""

State = list[int]


def state(path: Path) -> State:
    """Return the state of a file. Raises OSError where there is none."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def is_settled(found: State) -> bool:
    """Return whether another change of the file would be seen."""
    return time.time() - max(found[1], found[2]) / 1e9 > RACY_SECONDS


class Memory:
    """What was found out about files in a state of theirs, in a JSON file that several processes may share.

    A damaged memory is an empty one; where it cannot be written, everything is found out again.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._known, self._is_changed = path, _load(path), False

    def get(self, name: str, found: State) -> str | None:
        """Return what is known about a file in this state, None where nothing is."""
        known, value = self._known.get(name, (None, None))
        return value if known == found else None

    def put(self, name: str, found: State, value: str) -> None:
        """Remember what a file holds in this state, if that can be relied on."""
        if is_settled(found):
            self._known[name], self._is_changed = (found, value), True

    def save(self) -> None:
        """Write what is new, whole or not at all."""
        if not self._is_changed:
            return
        unfinished = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(strict_json.dumps(self._known), encoding="utf-8")
            unfinished.replace(self._path)
        except OSError:
            return
        self._is_changed = False


def _load(path: Path) -> dict[str, tuple[State, str]]:
    try:
        found: Mapping[str, tuple[State, str]] = json.loads(path.read_text(encoding="utf-8"))
        return {name: ([int(part) for part in known], str(value)) for name, (known, value) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
