"""Digests: what local files hold, by content; a file is read once for each state the system tells of it.

A state is size, modification time, change time and inode. An edit that restores the modification time moves the change
time, so it is seen. Not seen is what the file system does not tell: a change below it, a network disk that answers from
an old cache, a damaged sector.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from outlier_features import atomic

RACY_SECONDS = 2.0
"""A file that changed so shortly before it was read may change again within one tick of its disk's clock."""
MUCH = 10e9
"""Bytes a dry run reads at most, and from which on a reading is announced."""

State = list[int]


class Digests:
    """Digests of the files of one place at a time, remembered below `folder`, which several processes may share.

    A `dry` run reads no more than MUCH bytes. What it would have to read beyond that counts as changed, and it says so.
    """

    def __init__(self, folder: Path, *, dry: bool = False) -> None:
        self._folder, self._dry, self._left = folder, dry, MUCH

    def of(self, root: Path, names: Iterable[str]) -> str:
        """Return the digest of files below `root`, of their names and of their contents, in this order."""
        names = list(names)
        memory = self._folder / f"{hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:24]}.json"
        known = _load(memory)
        states = {name: _state(root / name) for name in names}
        unknown = [name for name in names if known.get(name, {}).get("state") != states[name]]
        if unknown:
            size = sum(states[name][0] for name in unknown)
            if self._dry and size > self._left:
                _say(f"{root}: {size / 1e9:.1f} GB not read before; a dry run takes them as changed, a run reads them.")
                return _digest(["not read", *(f"{name} {states[name]}" for name in names)])
            self._left -= size
            found = _read(root, unknown, states, size)
            known |= found
            _save(memory, {name: known[name] for name in known if (root / name).is_file()})
        return _digest([f"{name} {known[name]['sha256']}" for name in names])


def of_file(path: Path) -> str:
    """Return the digest of a small file, read each time; empty where there is none."""
    return atomic.digest(path) if path.is_file() else ""


def _read(root: Path, names: Sequence[str], states: dict[str, State], size: float) -> dict[str, dict[str, Any]]:
    """Return state and digest of files; the state is None where it may not be trusted the next time."""
    if size > MUCH:
        _say(f"{root}: reading {size / 1e9:.1f} GB once, to know what they hold.")
    settled = {name for name in names if _age(states[name]) > RACY_SECONDS}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(atomic.digest, (root / name for name in names)))
    found = {}
    for name, digest in zip(names, digests, strict=True):
        is_settled = name in settled and _state(root / name) == states[name]
        found[name] = {"state": states[name] if is_settled else None, "sha256": digest}
    return found


def _state(path: Path) -> State:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _age(state: State) -> float:
    """Return for how many seconds a file has been in a state."""
    return time.time() - max(state[1], state[2]) / 1e9


def _load(memory: Path) -> dict[str, dict[str, Any]]:
    """Return what is remembered; a damaged memory is an empty one."""
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
        return {str(name): {"state": each["state"], "sha256": str(each["sha256"])} for name, each in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _save(memory: Path, known: dict[str, dict[str, Any]]) -> None:
    """Remember, whole or not at all, whoever else does; where nothing can be written, files are read again."""
    unfinished = memory.with_name(f".{memory.name}.{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(known), encoding="utf-8")
        unfinished.replace(memory)
    except OSError:
        return


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _say(words: str) -> None:
    print(words, file=sys.stderr)
