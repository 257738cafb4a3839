"""Weight files: which files of a checkpoint transformers would load its weights from, and which others lie beside them.

transformers opens the first of ORDER that is there, unless config.json names another; nothing else is ever opened.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlier_features.errors import SourceError

ORDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What transformers looks for in a checkpoint: the whole file before files with an index, safetensors before `.bin`."""
INDEX = ".index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = re.compile(r"adapter_model\.(safetensors|bin)")
WEIGHTS = re.compile(r".+\.safetensors|(pytorch_model|model|consolidated)\b.*\.bin")
"""Names at the top of a checkpoint that may hold weights in a format that transformers reads."""
DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
SHARD = re.compile(r".*-\d+-of-\d+\.(safetensors|bin)")


@dataclass(frozen=True)
class WeightFiles:
    """The files of a checkpoint that hold its weights, as transformers finds them."""

    files: tuple[str, ...]
    index: str | None
    """The file that says which of them holds which weight, where there are several."""
    unread: tuple[str, ...]
    """Further sets of weights, or parts of them, that transformers passes over."""
    adapters: tuple[str, ...]

    def notes(self) -> list[str]:
        """Return what is worth saying of weights that are there and not taken."""
        said = []
        if self.unread:
            taken = self.index or self.files[0]
            said.append(f"takes {taken}, as transformers does, and passes over {listed(self.unread)}")
        if self.adapters:
            said.append(
                f"does not apply the adapter {listed(self.adapters)}; merge it into the weights to measure both"
            )
        return said

    def belongs(self, name: str) -> bool:
        """Return whether a description is to stay: an index of other weights, or an adapter's, would mislead."""
        return name == self.index or not (name.endswith(INDEX) or name == ADAPTER_CONFIG)


def choose(names: Collection[str], directory: Path, where: object, remedy: str) -> WeightFiles:
    """Return which of the files `names` of a checkpoint hold its weights.

    Its config.json and indexes are read from `directory`. Raises SourceError, naming the model as `where` and what to
    do as `remedy`, where transformers would open nothing, or not all of what it would have to.
    """
    first = _declared(directory, where) or next((name for name in ORDER if name in names), None)
    if first is None:
        raise SourceError(f"{where}: {_lacking(names, directory, remedy)}")
    if first not in names:
        raise SourceError(f"{where}: {first}, which its config.json names, is not among its files; {remedy}")
    files = indexed(directory / first, where, remedy) if first.endswith(INDEX) else [first]
    for name in files:
        if name not in names:
            raise SourceError(f"{where}: {name}, which its index names, is not among its files; {remedy}")
    at_top = sorted(name for name in names if "/" not in name and name not in files)
    adapters = tuple(name for name in at_top if ADAPTER.fullmatch(name))
    unread = tuple(name for name in at_top if WEIGHTS.fullmatch(name) and name not in adapters)
    return WeightFiles(tuple(files), first if first.endswith(INDEX) else None, unread, adapters)


def indexed(index: Path, where: object, remedy: str) -> list[str]:
    """Return the weight files that the index of a checkpoint in several files names. Raises SourceError."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        files = sorted(set(content["weight_map"].values()))
        suffix = index.name.removesuffix(INDEX).rpartition(".")[2]
        is_usable = bool(files) and all(name.endswith(f".{suffix}") for name in files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{where}: {index.name} does not say which file holds which weight; {remedy}") from error
    if not is_usable:
        raise SourceError(f"{where}: {index.name} does not name files of its own format; {remedy}")
    if not isinstance(content.get("metadata"), dict):
        raise SourceError(
            f'{where}: {index.name} has no "metadata", without which transformers does not open it; '
            'add "metadata": {} to it.'
        )
    return files


def is_distributed(names: Collection[str]) -> bool:
    """Return whether these are shards as torch.distributed writes them, which transformers loads before all else."""
    return any(DISTRIBUTED.fullmatch(name) for name in names)


def adapter_alone(names: Collection[str], directory: Path) -> str | None:
    """Return what is wrong with a checkpoint that is nothing but an adapter, or None where it is not."""
    if any(name in names for name in ORDER) or not any(ADAPTER.fullmatch(name) for name in names):
        return None
    base = _read(directory / ADAPTER_CONFIG).get("base_model_name_or_path")
    return (
        f"holds only an adapter{f' of {base}' if base else ''} and no weights of a model; merge it into its base model "
        "(merge_and_unload of peft) and name the merged one."
    )


def listed(names: Collection[str]) -> str:
    """Return the first of some names and how many more there are."""
    first, *more = names
    return f"{first} and {len(more)} more" if more else first


def _declared(directory: Path, where: object) -> str | None:
    """Return the file that config.json names as its weights, if it does."""
    name = _read(directory / "config.json").get("transformers_weights")
    if name is not None and not str(name).endswith((".safetensors", f".safetensors{INDEX}")):
        raise SourceError(
            f"{where}: transformers_weights of config.json is {name!r}, which transformers does not open; it has to "
            "name a file of safetensors or its index."
        )
    return name


def _lacking(names: Collection[str], directory: Path, remedy: str) -> str:
    """Say why transformers would open nothing of a checkpoint, and what to do."""
    if adapter := adapter_alone(names, directory):
        return adapter
    found = sorted(name for name in names if "/" not in name and WEIGHTS.fullmatch(name))
    if not found:
        return f"has neither safetensors nor pytorch_model.bin; {remedy}"
    shards = [name for name in found if SHARD.fullmatch(name)]
    if shards:
        index = ORDER[1] if shards[0].endswith(".safetensors") else ORDER[3]
        return f"has {listed(shards)} without {index}, without which transformers opens none of them; {remedy}"
    return (
        f"has {listed(found)}, but transformers opens only {', '.join(ORDER[:-1])} or {ORDER[-1]}, unless "
        f"transformers_weights in config.json names another safetensors file; {remedy}"
    )


def _read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds, nothing where it is not there or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
