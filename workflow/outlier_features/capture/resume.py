"""Resume: what an interrupted capture has finished, so that the next run resumes after the last saved block.

The folder beside a result has the shards of finished blocks, the state of the pass after one of them (what that block
returned for every window, and how high each position and channel reached), and `progress.json`, written last, which
names and seals them.
"""

import json
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils import _pytree as pytree

from outlier_features.artefacts import atomic
from outlier_features.errors import ArchitectureError, ConfigError, DamagedFile, NonFiniteActivations
from outlier_features.kernels.reference import Reached

PROGRESS = "progress.json"
SHARDS = ("block-*.arrow", "experts-*.arrow")
SHARE = 0.01
"""The most of the time that may go into saving; where blocks are faster than that, not every block is saved."""
CODEC = "lz4"
THREADS = 4

HOPELESS = (ArchitectureError, ConfigError, NonFiniteActivations)

Key = tuple[Any, int]
"""A site and a window."""


@dataclass(frozen=True)
class State:
    """The pass after a block: what the block returned for each window, and what was learnt up to there."""

    block: int
    outputs: list[Any]
    reached: dict[Key, Reached]
    facts: dict[str, Any]
    """Plain values that the pass continues with."""


class Unfinished:
    """The folder of a pass under way."""

    def __init__(self, directory: Path, identity: Mapping[str, Any], shards: Sequence[str] = SHARDS) -> None:
        """Take over what lies in `directory` if it is of the same `identity`, else begin with an empty folder.

        `shards` are patterns of the files that hold finished blocks.
        """
        self.directory, self._identity, self._shards = directory, json.loads(json.dumps(identity)), shards
        self._progress = self._usable_progress()
        if self._progress is None:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        else:
            self._remove_all_but({PROGRESS, *self._progress["files"]})
        self._saved_at, self._took = time.perf_counter(), 0.0

    def __enter__(self) -> Self:
        """Return the folder."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave what another run can resume from, and nothing else: none gets further than an error of the model's."""
        is_hopeless = kind is not None and issubclass(kind, HOPELESS)
        if self._progress is None or is_hopeless:
            shutil.rmtree(self.directory, ignore_errors=True)

    def load(self, device: torch.device) -> State | None:
        """Return the state the last run saved, its tensors on `device`, or None where there is none."""
        if self._progress is None:
            return None
        outputs: list[Any] = []
        reached: dict[Key, Reached] = {}
        with safe_open(self.directory / self._progress["state"], framework="pt", device=str(device)) as tensors:
            for tree in self._progress["outputs"]:
                # clones: a mapped file has another alignment than memory, on which the last bits can depend
                leaves = [tensors.get_tensor(x).clone() if isinstance(x, str) else x for x in tree["leaves"]]
                outputs.append(pytree.tree_unflatten(leaves, pytree.treespec_loads(tree["spec"])))
            for entry in self._progress["reached"]:
                levels = [_unpacked(tensors.get_tensor(name), entry["shape"], device) for name in entry["names"]]
                reached[entry["site"], entry["window"]] = Reached(*levels)
        return State(self._progress["block"], outputs, reached, self._progress["facts"])

    def is_due(self) -> bool:
        """Return whether saving now keeps within its share of the time."""
        return time.perf_counter() - self._saved_at >= self._took / SHARE

    def save(
        self, block: int, outputs: Sequence[Any], reached: Mapping[Key, Reached], facts: Mapping[str, Any]
    ) -> None:
        """Save the state after `block`, whose shard and those before it are in the folder; the older state goes."""
        start = time.perf_counter()
        older, name = self._progress, f"state-{block:03d}.safetensors"
        tensors: dict[str, torch.Tensor] = {}
        trees = [_flat(tree, f"output/{window}", tensors) for window, tree in enumerate(outputs)]
        entries = _packed(reached, tensors)
        shards = sorted(path for pattern in self._shards for path in self.directory.glob(pattern))
        known = older["files"] if older is not None else {}
        with atomic.file(self.directory / name) as unfinished:
            save_file(tensors, unfinished)
        self._progress = {
            "identity": self._identity,
            "block": block,
            "state": name,
            "outputs": trees,
            "reached": entries,
            "facts": dict(facts),
            "files": {path.name: known.get(path.name) or atomic.digest(path) for path in shards}
            | {name: atomic.digest(self.directory / name)},
        }
        atomic.write_json(self.directory / PROGRESS, self._progress)
        if older is not None and older["state"] != name:
            (self.directory / older["state"]).unlink()
        self._saved_at = time.perf_counter()
        self._took = self._saved_at - start

    def finish(self, target: Path) -> None:
        """Let the folder take the place of `target`, without what only an interrupted run needs."""
        for path in (*self.directory.glob("state-*.safetensors"), self.directory / PROGRESS):
            path.unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        self.directory.replace(target)

    def _remove_all_but(self, names: Collection[str]) -> None:
        """Remove what a run that was killed had begun and not finished."""
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in names:
                path.unlink()

    def _usable_progress(self) -> dict[str, Any] | None:
        """Return the progress of the run before, or None, saying why, where no run can resume from it."""
        if not self.directory.exists():
            return None
        try:
            found = json.loads((self.directory / PROGRESS).read_text(encoding="utf-8"))
            if differing := [name for name, value in self._identity.items() if found["identity"].get(name) != value]:
                raise DamagedFile(f"they are of another {', '.join(differing)}")
            for name, digest in found["files"].items():
                if not (self.directory / name).is_file() or atomic.digest(self.directory / name) != digest:
                    raise DamagedFile(f"{name} is damaged")
        except FileNotFoundError:
            return None  # stopped before the first block was done
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DamagedFile) as error:
            print(f"the leftovers in {self.directory} are discarded: {error}")
            return None
        return found


def identity(origin: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    """Return what an earlier run must have in common with this one to be resumed, each under a name of its own.

    It may have had another number of threads: its blocks are good statistics, and their shards say how many it had.
    """
    of_origin = {name: value for name, value in origin.items() if name not in ("lineage", "threads")}
    lineages = {f"lineage of the {name}": value for name, value in origin["lineage"].items()}
    return lineages | of_origin | rest


def finished_bytes(directory: Path) -> int:
    """Return what the shards take that an earlier run has written to its folder."""
    return sum(path.stat().st_size for pattern in SHARDS for path in directory.glob(pattern))


def _flat(tree: Any, prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Put the tensors of a block's output into `tensors`; return its other leaves, and its form, as plain values."""
    leaves, spec = pytree.tree_flatten(tree)
    named: list[Any] = []
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            tensors[f"{prefix}/{index}"] = leaf.cpu().contiguous().clone()
            named.append(f"{prefix}/{index}")
        else:
            named.append(leaf)
    return {"leaves": named, "spec": pytree.treespec_dumps(spec)}


def _packed(reached: Mapping[Key, Reached], tensors: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Put what was reached into `tensors`, compressed; return what is needed to unpack it."""
    entries: list[dict[str, Any]] = []
    levels: list[tuple[str, torch.Tensor]] = []
    for (site, window), found in reached.items():
        names = [f"reached/{site}/{window}/{kind}" for kind in ("absolute", "relative")]
        shape = list(found.absolute_TC.shape)
        entries.append({"site": site, "window": window, "shape": shape, "names": names})
        levels += zip(names, (found.absolute_TC, found.relative_TC), strict=True)
    with ThreadPoolExecutor(THREADS) as pool:
        contents = pool.map(_compressed, [level for _, level in levels])
        tensors |= {name: content for (name, _), content in zip(levels, contents, strict=True)}
    return entries


def _compressed(level_TC: torch.Tensor) -> torch.Tensor:
    content = pa.compress(level_TC.cpu().contiguous().numpy(), codec=CODEC)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _unpacked(content: torch.Tensor, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    size = shape[0] * shape[1]
    plain = pa.decompress(pa.py_buffer(content.cpu().numpy()), decompressed_size=size, codec=CODEC)
    return torch.frombuffer(bytearray(plain), dtype=torch.uint8).reshape(*shape).to(device)
