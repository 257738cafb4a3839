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
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as transformers_logging
from transformers.utils.loading_report import LoadStateDictInfo

from outlier_features.artefacts import remedies
from outlier_features.errors import SourceError
from outlier_features.machine import memory
from outlier_features.machine.memory import is_out_of_memory
from outlier_features.models import architectures, implementations, stored_formats
from outlier_features.models.checkpoint_names import in_checkpoint
from outlier_features.models.sites import expert_bank
from outlier_features.models.stored_formats import Pair, Stored

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

    def __init__(
        self,
        directory: Path,
        dtype: torch.dtype,
        device: torch.device,
        keep_bytes: float = 0,
        experts_implementation: str | None = None,
    ) -> None:
        """Open the safetensors checkpoint in `directory`, without reading any block.

        Of the blocks that are released as many stay on the device as `keep_bytes` hold, so that another pass over the
        same weights reads only the others. `experts_implementation` is the way experts run in, by default the fastest
        that can; `experts_note` says where that is not the one of transformers.
        Raises SourceError if there is no usable checkpoint and ArchitectureError if no decoder blocks are found,
        and ConfigError for a way in which the model cannot run its experts.
        """
        self.directory = Path(directory)
        self.device = self._loads_onto = device
        config = architectures.read(self.directory)
        self._quantization = architectures.dequantization(config, self.directory)
        self.model, self._files, self._loading = _stopped_before_loading(self.directory, config, dtype, device)
        self._prefix, self.blocks = architectures.decoder_blocks(self.model)
        banks = [bank for bank in map(expert_bank, self.blocks) if bank is not None]
        self.experts_note = implementations.choose(self.model, banks, experts_implementation, device)
        self.left_out = architectures.other_parts(self.model)
        self._dtypes = {name: tensor.dtype for name, tensor in self.model.state_dict().items()}
        self._shadow = copy.deepcopy(self.model)
        self._stored: dict[str, Stored] = {}
        self._pairs: dict[str, Pair] = {}
        self._sources: dict[str, list[str]] = defaultdict(list)
        self._kept: dict[int, dict[str, torch.Tensor]] = {}
        self._room = keep_bytes
        self._targets: dict[str, str] = {}
        self._names = self._grouped_names()
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
        parts = [self._stored[part] for name in self._names[index] for part in self._parts(name)]
        return [(part.file, part.start, part.end) for part in parts]

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
        memory.trim()

    def _grouped_names(self) -> dict[int, list[str]]:
        """Return the tensors of the checkpoint, dequantised, by block. Raises SourceError unless the model needs them.

        Where two tensors of the files stand for one, it has the name that the unquantised checkpoint gives it.
        """
        groups: dict[int, list[str]] = defaultdict(list)
        targets = _Targets(self.model, self._loading)
        for file in self._files:
            self._stored |= _header(Path(file))
        self._pairs = stored_formats.pairs(self._stored, self._quantization, self.directory)
        parts = {part for name in self._pairs for part in self._parts(name)}
        for name in (*self._pairs, *(key for key in self._stored if key not in parts)):
            self._targets[name] = targets.find(name)
            self._sources[self._targets[name]].append(name)
            groups[self._group_of(self._targets[name])].append(name)
        unexpected = targets.unexpected(self.left_out, len(self.blocks), self._prefix, is_scaled=bool(self._pairs))
        self._refuse(unexpected, "has", "does not know")
        self._refuse(targets.missing(self.left_out), "lacks", "needs")
        return groups

    def _parts(self, name: str) -> tuple[str, ...]:
        """Return the tensors of the files that a tensor is read from."""
        pair = self._pairs.get(name)
        return (name,) if pair is None else (pair.values, pair.scales)

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
                f"as config.json describes it {verb}; {_remedy(self.directory, names)}."
            )

    def _convert(self, model: PreTrainedModel, group: int) -> set[str]:
        """Load one group of tensors into `model`; return the names that are still missing anywhere in it."""
        with ExitStack() as opened:
            slices = _Slices(opened, self._stored)
            tensors = {name: self._slice(name, slices) for name in self._names.get(group, ())}
            opened.enter_context(_in_order_of(self.device))
            info, _ = convert_and_load_state_dict_in_model(model, tensors, self._loading)
        if any(is_out_of_memory(why) for why in info.conversion_errors.values()):
            raise MemoryError(f"out of memory while {self.directory.name} was converted")
        if mistakes := _mistakes(info):
            raise SourceError(
                f"{self.directory}: tensors do not fit the model that config.json describes: {mistakes[0]}"
                f"{_more(mistakes)}; {remedies.of_checkpoint(self.directory)}."
            )
        return info.missing_keys

    def _slice(self, name: str, slices: "_Slices") -> Any:
        """Return what the loader takes a tensor of the checkpoint from."""
        if name not in self._pairs:
            return slices.of(name)
        dtype = self._dtypes.get(self._targets[name], self.model.dtype)
        return _Dequantised(self._pairs[name], slices, dtype, self._loads_onto)

    def _load_resident(self) -> None:
        model = self.model
        missing = self._convert(model, RESIDENT)
        model.tie_weights(missing_keys=missing, recompute_mapping=False)
        for name, buffer in list(model.named_non_persistent_buffers()):
            owner, _, attribute = name.rpartition(".")
            model.get_submodule(owner)._buffers[attribute] = torch.empty_like(buffer, device=self.device)
        model.initialize_weights()  # fills those buffers, as from_pretrained does; loaded tensors are marked and kept


class _Slices:
    """The tensors of files that are open, each read when it is asked for."""

    def __init__(self, opened: ExitStack, stored: Mapping[str, Stored]) -> None:
        self._opened, self._stored = opened, stored
        self._files: dict[Path, Any] = {}

    def of(self, key: str) -> Any:
        """Return the slice of a tensor, which `[...]` reads."""
        file = self._stored[key].file
        if file not in self._files:
            # mmap: the views keep the file's alignment, as in from_pretrained, so results agree to the bit
            self._files[file] = self._opened.enter_context(safe_open(file, framework="pt", backend="mmap"))
        return self._files[file].get_slice(key)


class _Dequantised:
    """A tensor that two of the checkpoint stand for, read and dequantised on the device when it is asked for."""

    def __init__(self, pair: Pair, slices: _Slices, dtype: torch.dtype, device: torch.device) -> None:
        self._values, self._scales = slices.of(pair.values), slices.of(pair.scales)
        self._combine, self._dtype, self._device = pair.combine, dtype, device

    def __getitem__(self, _everything: Any) -> torch.Tensor:
        values, scales = (part[...].to(self._device) for part in (self._values, self._scales))
        return self._combine(values, scales, self._dtype)


def _header(file: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file by its header. Raises SourceError if the file is cut or altered."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            entries = json.loads(opened.read(min(size, file.stat().st_size)))
        entries.pop("__metadata__", None)
        start = 8 + size
        found = {}
        for key, entry in entries.items():
            begin, end = (start + offset for offset in entry["data_offsets"])
            found[key] = Stored(file, begin, end, entry["dtype"], tuple(entry["shape"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise SourceError(f"{file}: has no readable header; {remedies.of_checkpoint(file.parent)}.") from error
    if max((stored.end for stored in found.values()), default=start) > file.stat().st_size:
        raise SourceError(f"{file}: is cut; {remedies.of_checkpoint(file.parent)}.")
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

    def unexpected(self, left_out: tuple[str, ...], blocks: int, prefix: str, *, is_scaled: bool) -> list[str]:
        """Return the tensors the model has no place for, without those known to carry no weight of it.

        Where weights are scaled, these are scales of activations too.
        """
        names = [name for name in self._info().unexpected_keys if not name.startswith(left_out)]
        extra = getattr(self._model.config.get_text_config(), "num_nextn_predict_layers", None) or 0
        ignored = tuple(f"{prefix}.{blocks + index}." for index in range(extra))
        known = (CAUSAL_MASKS, stored_formats.NOT_OF_WEIGHTS) if is_scaled else (CAUSAL_MASKS,)
        return sorted(n for n in names if not n.startswith(ignored) and not any(each.search(n) for each in known))

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
    directory: Path, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, list[str], LoadStateDictConfig]:
    """Return the model on the meta device, its files, and how transformers loads them, as if nothing was quantised."""

    def stop(model: PreTrainedModel, _state: Any, files: list[str], loading: LoadStateDictConfig, *_: Any) -> None:
        raise _Stopped(model, files, loading)

    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the tensors that the loader gets are dequantised
    with patch.object(PreTrainedModel, "_load_pretrained_model", staticmethod(stop)), _quiet():
        try:
            architectures.automatic(config).from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                device_map={"": device},
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except _Stopped as stopped:
            model, files, loading = stopped.args
        except (OSError, ValueError, KeyError) as error:
            raise SourceError(
                f"{directory}: not a checkpoint that transformers can open ({_first_line(error)}); "
                f"{remedies.of_checkpoint(directory)}."
            ) from error
    transformers_logging.disable_progress_bar()
    return model.eval(), files, loading


def _mistakes(info: LoadStateDictInfo) -> list[str]:
    """Return what went wrong while tensors were converted, one line a tensor."""
    shapes = [f"{name} is {tuple(found)}, not {tuple(wanted)}" for name, found, wanted in sorted(info.mismatched_keys)]
    errors = [f"{name} ({str(why).strip().splitlines()[-1]:.200})" for name, why in info.conversion_errors.items()]
    return shapes + errors + list(info.error_msgs)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _remedy(directory: Path, names: Sequence[str]) -> str:
    remedy = remedies.of_checkpoint(directory)
    if any(name.endswith("_blocks") for name in names):
        return f"config.json lacks the quantization_config of an MXFP4 checkpoint; {remedy}"
    return remedy


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _in_order_of(device: torch.device) -> Iterator[None]:
    """Let transformers copy tensors on the calling thread where a device computes in streams.

    A thread's current stream is its own. The loader's threads would copy on the default stream what the calling thread
    stacks and frees on another one, and nothing would make either wait. On a CPU its threads share the casts out.
    """
    if device.type == "cpu":
        yield
        return
    # the loader looks for HF_DEACTIVATE_ASYNC_LOAD; setting that for a while is not safe beside threads that read it
    with patch("transformers.core_model_loading.is_env_variable_true", return_value=True):
        yield


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
