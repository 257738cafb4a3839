"""Sources: a model of the hub, of a local directory or of a package becomes a checkpoint."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from outlier_features import architectures, atomic, hub, packages, pickled
from outlier_features.checkpoints import SOURCE, seal
from outlier_features.config import Model
from outlier_features.errors import SourceError
from outlier_features.lineage import Lineage

DESCRIPTIONS = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*")
"""What is taken of a model beside its weights: configuration, tokenizer, licence."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")
"""Suffixes of files that hold weights in some form; only the first two are ever read."""


def fetch(model: Model, output: Path, lineage: Lineage) -> None:
    """Put the checkpoint of a `hub`, `path` or `package` model into the directory `output`. Raises SourceError.

    What of a hub model has arrived when this is stopped lies beside `output`; neither that nor what an earlier
    checkpoint at `output` has of the same content is downloaded again.
    """
    arrived = output.with_name(f".{output.name}.download")
    with atomic.directory(output) as unfinished:
        if model.package is not None:
            origin = _from_package(model.package, str(model.file), unfinished)
        elif model.path is not None:
            origin = _from_directory(Path(model.path), unfinished)
        else:
            origin = _from_hub(str(model.hub), model.revision, output, arrived, unfinished)
        if list(unfinished.glob("*.bin")):
            pickled.rewrite(unfinished)
        seal(unfinished, origin, lineage)
    shutil.rmtree(arrived, ignore_errors=True)


def choose_weights(names: Collection[str], read_index: Callable[[str], Mapping[str, Any]]) -> list[str]:
    """Return which files of a checkpoint hold its weights: safetensors where there are any, else `.bin`.

    `read_index` returns the content of the index of a checkpoint in several files. Files that only lie beside them,
    such as the original format of a publisher, are left out.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        if (index := f"{stem}.{suffix}.index.json") in names:
            return sorted(set(read_index(index)["weight_map"].values()))
        if f"{stem}.{suffix}" in names:
            return [f"{stem}.{suffix}"]
        if suffix == "safetensors" and (others := [name for name in names if name.endswith(suffix)]):
            return sorted(others)
    return []


def _from_package(requirement: str, file: str, output: Path) -> dict[str, Any]:
    """Dequantise the GGUF of a package with transformers and save it as an ordinary float32 checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    directory = packages.directory(requirement)
    if not (directory / file).is_file():
        raise SourceError(f"package {requirement} has no file {file}; it has {_names(directory, '*.gguf')}.")
    quantization = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        directory, gguf_file=file, quantization_config=quantization, dtype=torch.float32, local_files_only=True
    )
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(directory, gguf_file=file, local_files_only=True).save_pretrained(output)
    return {"package": requirement, "file": file, "sha256": atomic.digest(directory / file)}


def _from_directory(directory: Path, output: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise SourceError(f"{directory}: no such directory; check path in config.yaml.")
    architectures.require_readable(directory)
    names = [path.name for path in _files(directory)]
    chosen = choose_weights(names, lambda index: json.loads((directory / index).read_text(encoding="utf-8")))
    for name in names:
        if name in chosen or not name.endswith(WEIGHTS):
            shutil.copy2(directory / name, output / name)  # no link: an edit of the original would change the copy
    return {"path": str(directory)}


def _from_hub(repository: str, revision: str | None, earlier: Path, arrived: Path, output: Path) -> dict[str, Any]:
    found = hub.snapshot(repository, revision)
    described = [name for name in found.files if any(fnmatch(name, pattern) for pattern in DESCRIPTIONS)]
    _take(hub.download(found, described, arrived, earlier), output)
    architectures.require_readable(output)  # before its weights are paid for
    chosen = choose_weights(list(found.files), lambda index: json.loads((output / index).read_text(encoding="utf-8")))
    for name in chosen:
        if name not in found.files:
            raise SourceError(f"{found}: {name}, which its index names, is not on the hub; name another revision.")
    spare = sum(found.files[name].size for name in chosen if name.endswith(".bin"))  # read and written once more
    _take(hub.download(found, chosen, arrived, earlier, spare), output)
    return {"hub": repository, "revision": revision, "commit": found.commit}


def _take(paths: Mapping[str, Path], output: Path) -> None:
    for name, path in paths.items():
        _link(path, output / name)


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.iterdir()) if path.is_file() and path.name != SOURCE]


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link to a file that has arrived where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _names(directory: Path, pattern: str) -> str:
    return ", ".join(sorted(path.name for path in directory.glob(pattern))) or "none"
