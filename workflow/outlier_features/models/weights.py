"""Weights: those of one checkpoint, read block by block with transformers' own loader.

`loader` stops transformers before it would read the tensors. From there one decoder block at a time is handed to the
conversion code that `from_pretrained` uses, so the tensors are the same to the bit. Private parts of transformers are
used for that here, in `loader` and in `tensor_names`: the version is pinned.
"""

import copy
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.utils.loading_report import LoadStateDictInfo

from outlier_features.artefacts import remedies
from outlier_features.errors import SourceError
from outlier_features.machine import memory
from outlier_features.machine.memory import is_out_of_memory
from outlier_features.models import architectures, fused_experts, implementations, stored_formats
from outlier_features.models.loader import in_order_of, stopped_before_loading
from outlier_features.models.stored_formats import Pair, Stored
from outlier_features.models.stored_tensors import Dequantised, Slices, header
from outlier_features.models.tensor_names import Targets, in_checkpoint

RESIDENT = -1
"""The group of tensors that belong to no decoder block: embeddings, final norm, head."""
UNREAD = -2
"""The group of tensors that the text part does not need: a vision tower, blocks that predict several tokens."""


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
        self.model, self._files, self._loading = stopped_before_loading(self.directory, config, dtype, device)
        self._prefix, self.blocks = architectures.decoder_blocks(self.model)
        all_fused = [fused for fused in map(fused_experts.of_block, self.blocks) if fused is not None]
        self.experts_note = implementations.choose(self.model, all_fused, experts_implementation, device)
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
        targets = Targets(self.model, self._loading)
        for file in self._files:
            self._stored |= header(Path(file))
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
            slices = Slices(opened, self._stored)
            tensors = {name: self._slice(name, slices) for name in self._names.get(group, ())}
            opened.enter_context(in_order_of(self.device))
            info, _ = convert_and_load_state_dict_in_model(model, tensors, self._loading)
        if any(is_out_of_memory(why) for why in info.conversion_errors.values()):
            raise MemoryError(f"out of memory while {self.directory.name} was converted")
        if mistakes := _mistakes(info):
            raise SourceError(
                f"{self.directory}: tensors do not fit the model that config.json describes: {mistakes[0]}"
                f"{_more(mistakes)}; {remedies.of_checkpoint(self.directory)}."
            )
        return info.missing_keys

    def _slice(self, name: str, slices: "Slices") -> Any:
        """Return what the loader takes a tensor of the checkpoint from."""
        if name not in self._pairs:
            return slices.of(name)
        dtype = self._dtypes.get(self._targets[name], self.model.dtype)
        return Dequantised(self._pairs[name], slices, dtype, self._loads_onto)

    def _load_resident(self) -> None:
        model = self.model
        missing = self._convert(model, RESIDENT)
        model.tie_weights(missing_keys=missing, recompute_mapping=False)
        for name, buffer in list(model.named_non_persistent_buffers()):
            owner, _, attribute = name.rpartition(".")
            model.get_submodule(owner)._buffers[attribute] = torch.empty_like(buffer, device=self.device)
        model.initialize_weights()  # fills those buffers, as from_pretrained does; loaded tensors are marked and kept


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


def _set_tensors(block: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        path, _, attribute = name.rpartition(".")
        owner = block.get_submodule(path)
        if attribute in owner._parameters:
            owner._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)
        else:
            owner._buffers[attribute] = tensor
