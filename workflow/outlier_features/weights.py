"""The weights of one checkpoint, read block by block with transformers' own loader.

transformers builds the model on the meta device and knows how every key of the checkpoint is renamed, fused and cast;
it is stopped just before it would read the tensors. From there one decoder block at a time is handed to the same
conversion code that `from_pretrained` uses, so the tensors are the same to the bit. Private parts of transformers are
used here and nowhere else: the version is pinned.
"""

import copy
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as transformers_logging
from transformers.utils.loading_report import LoadStateDictInfo

from outlier_features import architectures, devices
from outlier_features.checkpoint_names import in_checkpoint
from outlier_features.errors import SourceError
from outlier_features.holder import is_out_of_memory

RESIDENT = -1
"""The group of tensors that belong to no decoder block: embeddings, final norm, head."""
UNREAD = -2
"""The group of tensors that the text part does not need: a vision tower, blocks that predict several tokens."""

CAUSAL_MASKS = re.compile(r"\.(attn|attention)\.(masked_)?bias$")
"""Constants that older checkpoints carry beside their weights; today's models build them."""

_loader_log = logging.getLogger("transformers.modeling_utils")


class Weights:
    """A checkpoint whose resident tensors are loaded and whose decoder blocks come and go.

    `model` is an ordinary transformers model in evaluation mode; outside its decoder blocks every tensor is on
    `device`, inside them only what `install` has put there. `left_out` names the parts of a vision-language model that
    its text does not pass; they are never read.
    """

    def __init__(self, directory: Path, dtype: torch.dtype, device: torch.device, keep_bytes: float = 0) -> None:
        """Open the safetensors checkpoint in `directory`, without reading any block.

        Of the blocks that are released as many stay on the device as `keep_bytes` hold, so that another pass over the
        same weights reads only the others.
        Raises SourceError if there is no usable checkpoint and ArchitectureError if no decoder blocks are found.
        """
        self.directory = Path(directory)
        self.device = device
        self.model, self._files, self._loading = _stopped_before_loading(self.directory, dtype, device)
        self._prefix, self.blocks = architectures.decoder_blocks(self.model)
        self.left_out = architectures.other_parts(self.model)
        self._dtypes = {name: tensor.dtype for name, tensor in self.model.state_dict().items()}
        self._shadow = copy.deepcopy(self.model)
        self._stored: dict[str, _Stored] = {}
        self._sources: dict[str, list[str]] = defaultdict(list)
        self._kept: dict[int, dict[str, torch.Tensor]] = {}
        self._room = keep_bytes
        self._keys = self._group_keys()
        self._load_resident()

    def read(self, index: int) -> dict[str, torch.Tensor]:
        """Read and convert the tensors of block `index`; safe to call on another thread than the forward pass.

        Returns parameters and persistent buffers by their name inside the block, on the device.
        """
        if index in self._kept:
            return self._kept[index]
        self._convert(self._shadow, index)
        block = self._shadow.get_submodule(f"{self._prefix}.{index}")
        tensors = dict(block.state_dict())
        _set_tensors(block, {name: tensor.to("meta") for name, tensor in tensors.items()})
        return tensors

    def ranges(self, index: int) -> list[tuple[Path, int, int]]:
        """Return where the bytes of block `index` lie: file, start and end; nowhere if they are on the device."""
        if index in self._kept:
            return []
        keys = [key for names in self._keys.get(index, {}).values() for key in names]
        return [(stored.file, stored.start, stored.end) for stored in map(self._stored.__getitem__, keys)]

    def stored_name(self, index: int, module: str) -> str:
        """Return the full name of a module of block `index`, under the block by the name that the checkpoint has."""
        block = f"{self._prefix}.{index}"
        parameters = self.model.get_submodule(f"{block}.{module}").named_parameters(f"{block}.{module}", recurse=False)
        keys = [key for name, _ in parameters for key in self._sources.get(name, ())]
        return f"{block}.{in_checkpoint(module, keys, block)}"

    def install(self, index: int, tensors: dict[str, torch.Tensor]) -> None:
        """Put the tensors that `read` returned into block `index` of the model."""
        _set_tensors(self.blocks[index], tensors)

    def release(self, index: int) -> None:
        """Take the tensors of block `index` out of the model again; they stay on the device while there is room."""
        block = self.blocks[index]
        tensors = dict(block.state_dict())
        _set_tensors(block, {name: tensor.to("meta") for name, tensor in tensors.items()})
        size = sum(tensor.nbytes for tensor in tensors.values())
        if index not in self._kept and size <= self._room:
            self._room -= size
            self._kept[index] = tensors
        del tensors
        devices.trim()

    def _group_keys(self) -> dict[int, dict[str, list[str]]]:
        """Return checkpoint keys by block index and file. Raises SourceError unless they are what the model needs."""
        groups: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        targets = _Targets(self.model, self._loading)
        for file in self._files:
            self._stored |= _header(Path(file))
        for key, stored in self._stored.items():
            name = targets.find(key)
            self._sources[name].append(key)
            groups[self._group_of(name)][str(stored.file)].append(key)
        self._refuse(_missing_scales(self._stored), "lacks", "needs")
        self._refuse(targets.unexpected(self.left_out, len(self.blocks), self._prefix), "has", "does not know")
        self._refuse(targets.missing(self.left_out), "lacks", "needs")
        return groups

    def _group_of(self, name: str) -> int:
        prefix = f"{self._prefix}."
        if name.startswith(prefix):
            index = int(name.removeprefix(prefix).partition(".")[0])
            return index if index < len(self.blocks) else UNREAD
        return UNREAD if name.startswith(self.left_out) else RESIDENT

    def _refuse(self, names: Sequence[str], has: str, verb: str) -> None:
        if names:
            raise SourceError(
                f"{self.directory}: the checkpoint {has} {names[0]}{_more(names)}, which {type(self.model).__name__} "
                f"as config.json describes it {verb}; {_remedy(names)}"
            )

    def _convert(self, model: PreTrainedModel, group: int) -> set[str]:
        """Load one group of tensors into `model`; return the names that are still missing anywhere in it."""
        with ExitStack() as opened:
            slices = {}
            for file, keys in self._keys.get(group, {}).items():
                # mmap: the views keep the file's alignment, as in from_pretrained, so results agree to the bit
                tensors = opened.enter_context(safe_open(file, framework="pt", backend="mmap"))
                slices.update({key: tensors.get_slice(key) for key in keys})
            info, _ = convert_and_load_state_dict_in_model(model, slices, self._loading)
        if any(is_out_of_memory(why) for why in info.conversion_errors.values()):
            raise MemoryError(f"out of memory while {self.directory.name} was converted")
        if mistakes := _mistakes(info):
            raise SourceError(
                f"{self.directory}: tensors do not fit the model that config.json describes: {mistakes[0]}"
                f"{_more(mistakes)}; delete the folder and fetch the model again."
            )
        self._cast(model)
        return info.missing_keys

    def _cast(self, model: PreTrainedModel) -> None:
        """Bring what was just loaded to the precision of the model, where transformers' dequantisation left another."""
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_meta and tensor.dtype != self._dtypes.get(name, tensor.dtype):
                tensor.data = tensor.to(self._dtypes[name])  # in place: transformers has marked it as loaded

    def _load_resident(self) -> None:
        model = self.model
        missing = self._convert(model, RESIDENT)
        model.tie_weights(missing_keys=missing, recompute_mapping=False)
        for name, buffer in list(model.named_non_persistent_buffers()):
            owner, _, attribute = name.rpartition(".")
            model.get_submodule(owner)._buffers[attribute] = torch.empty_like(buffer, device=self.device)
        model.initialize_weights()  # fills those buffers, as from_pretrained does; loaded tensors are marked and kept


@dataclass(frozen=True)
class _Stored:
    """Where a tensor of the checkpoint lies, in bytes of its file, and its number format."""

    file: Path
    start: int
    end: int
    format: str


def _header(file: Path) -> dict[str, _Stored]:
    """Return the tensors of a safetensors file by its header. Raises SourceError if the file is cut or altered."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            entries = json.loads(opened.read(min(size, file.stat().st_size)))
        entries.pop("__metadata__", None)
        start = 8 + size
        found = {
            key: _Stored(file, start + entry["data_offsets"][0], start + entry["data_offsets"][1], entry["dtype"])
            for key, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise SourceError(f"{file}: has no readable header; delete its folder and fetch the model again.") from error
    if max((stored.end for stored in found.values()), default=start) > file.stat().st_size:
        raise SourceError(f"{file}: is cut; delete its folder and fetch the model again.")
    return found


class _Targets:
    """Where the keys of a checkpoint go in the model, by the renaming rules of transformers."""

    def __init__(self, model: PreTrainedModel, loading: LoadStateDictConfig) -> None:
        mapping = loading.weight_mapping or []
        self._model = model
        self._renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        self._converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        self._expected = model.state_dict()
        self._found: set[str] = set()

    def find(self, key: str) -> str:
        """Return the name of the tensor that a key of the checkpoint fills, alone or with others."""
        prefix = self._model.base_model_prefix
        target, _ = rename_source_key(key, self._renamings, self._converters, prefix, self._expected)
        if target not in self._expected and key in self._expected:
            target, _ = rename_source_key(key, [], [], prefix, self._expected)
        self._found.add(target)
        return target

    def missing(self, left_out: tuple[str, ...]) -> list[str]:
        """Return the tensors the model needs and no key fills."""
        tied = getattr(self._model, "all_tied_weights_keys", {})
        filled = self._found | {name for name, source in tied.items() if source in self._found}
        filled |= {source for name, source in tied.items() if name in self._found}
        return sorted(n for n in self._info().missing_keys - filled if not n.startswith(left_out))

    def unexpected(self, left_out: tuple[str, ...], blocks: int, prefix: str) -> list[str]:
        """Return the tensors the model has no place for, without those known to carry no weight of it."""
        names = [name for name in self._info().unexpected_keys if not name.startswith(left_out)]
        extra = getattr(self._model.config.get_text_config(), "num_nextn_predict_layers", None) or 0
        ignored = tuple(f"{prefix}.{blocks + index}." for index in range(extra))
        return sorted(name for name in names if not name.startswith(ignored) and not CAUSAL_MASKS.search(name))

    def _info(self) -> LoadStateDictInfo:
        """Return missing and unexpected names after the exceptions that transformers makes for the architecture."""
        info = LoadStateDictInfo(
            set(self._expected) - self._found, self._found - set(self._expected), set(), [], {}, set()
        )
        self._model._adjust_missing_and_unexpected_keys(info)
        return info


class _Stopped(Exception):
    """Carries what from_pretrained had prepared when it was about to read the tensors."""


def _stopped_before_loading(
    directory: Path, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, list[str], LoadStateDictConfig]:
    def stop(model: PreTrainedModel, _state: Any, files: list[str], loading: LoadStateDictConfig, *_: Any) -> None:
        raise _Stopped(model, files, loading)

    config = architectures.read(directory)
    quantization = architectures.dequantization(config, directory)
    with patch.object(PreTrainedModel, "_load_pretrained_model", staticmethod(stop)), _quiet():
        try:
            architectures.automatic(config).from_pretrained(
                directory,
                dtype=dtype,
                device_map={"": device},
                local_files_only=True,
                use_safetensors=True,
                **({"quantization_config": quantization} if quantization else {}),
            )
        except _Stopped as stopped:
            model, files, loading = stopped.args
        except (OSError, ValueError, KeyError) as error:
            raise SourceError(
                f"{directory}: not a checkpoint that transformers can open ({_first_line(error)}); "
                "delete the folder and fetch the model again."
            ) from error
    transformers_logging.disable_progress_bar()
    return model.eval(), files, loading


def _mistakes(info: LoadStateDictInfo) -> list[str]:
    """Return what went wrong while tensors were converted, one line a tensor."""
    shapes = [f"{name} is {tuple(found)}, not {tuple(wanted)}" for name, found, wanted in sorted(info.mismatched_keys)]
    errors = [f"{name} ({str(why).strip().splitlines()[-1]:.200})" for name, why in info.conversion_errors.items()]
    return shapes + errors + list(info.error_msgs)


def _missing_scales(stored: Mapping[str, _Stored]) -> list[str]:
    """Return the scales that quantised tensors need to mean anything and the checkpoint does not have.

    Without its scale an eight-bit matrix would be read as it stands.
    """
    four_bit = [f"{key.removesuffix('_blocks')}_scales" for key in stored if key.endswith("_blocks")]
    matrices = [key for key, found in stored.items() if found.format.startswith("F8") and key.endswith("weight")]
    return sorted({*four_bit, *(f"{key}_scale_inv" for key in matrices)} - stored.keys())


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _remedy(names: Sequence[str]) -> str:
    if any(name.endswith("_blocks") for name in names):
        return "config.json lacks the quantization_config of an MXFP4 checkpoint; fetch the model again."
    return "delete the folder and fetch the model again, or name the revision that fits."


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    level = _loader_log.level
    _loader_log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _loader_log.setLevel(level)


def _set_tensors(block: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        path, _, attribute = name.rpartition(".")
        owner = block.get_submodule(path)
        if attribute in owner._parameters:
            owner._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)
        else:
            owner._buffers[attribute] = tensor
