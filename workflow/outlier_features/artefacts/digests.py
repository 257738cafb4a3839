"""Digests: what local files hold, by content. A file is read once for each state of it; touching it moves no digest."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from outlier_features.artefacts import atomic
from outlier_features.artefacts.file_states import Memory, State, is_settled, state

MUCH = 10e9
"""Bytes a dry run reads at most, and from which on a reading is announced: some ten seconds."""


class Digests:
    """Digests of the files of one place at a time, remembered below `folder`.

    A dry run, which Snakemake knows for one only when it plans, reads no more than MUCH bytes. What it would have to
    read beyond that counts as changed, and it says so.
    """

    def __init__(self, folder: Path, is_dry: Callable[[], bool] = lambda: False) -> None:
        self._folder, self._is_dry, self._left = folder, is_dry, MUCH

    def of(self, root: Path, names: Iterable[str]) -> str:
        """Return the digest of files below `root`: of their names and contents, in this order. Raises OSError."""
        memory = Memory(self._folder / f"{_digest([str(root.absolute())])}.json")
        states = {name: state(root / name) for name in names}
        known = {name: memory.get(name, found) for name, found in states.items()}
        unknown = {name: states[name] for name, digest in known.items() if digest is None}
        if unknown and not self._may_read(root, sum(found[0] for found in unknown.values())):
            return _digest(["not read", *(f"{name} {found}" for name, found in states.items())])
        known |= _read(root, unknown, memory)
        return _digest(f"{name} {digest}" for name, digest in known.items())

    def _may_read(self, root: Path, size: float) -> bool:
        if size > self._left and self._is_dry():
            _say(f"{root}: {size / 1e9:.1f} GB not read before; this dry run takes them as changed, a run reads them.")
            return False
        if size > MUCH:
            _say(f"{root}: reading {size / 1e9:.1f} GB once, to know what they hold.")
        self._left -= size
        return True


def of_file(path: Path) -> str:
    """Return the digest of a small file, read each time; empty where there is none."""
    return atomic.digest(path) if path.is_file() else ""


def _read(root: Path, states: dict[str, State], memory: Memory) -> dict[str, str]:
    """Read files, several at once, and remember their digests where nobody wrote to them meanwhile."""
    settled = {name for name, found in states.items() if is_settled(found)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = dict(zip(states, pool.map(lambda name: atomic.digest(root / name), states), strict=True))
    for name in settled:
        if state(root / name) == states[name]:
            memory.put(name, states[name], digests[name])
    memory.save()
    return digests


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _say(words: str) -> None:
    print(words, file=sys.stderr)
