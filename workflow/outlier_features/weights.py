"""The weights of one checkpoint, read block by block with transformers' own loader.

transformers builds the model on the meta device and knows how every key of the checkpoint is renamed, fused and cast;
it is stopped just before it would read the tensors. From there one decoder block at a time is handed to the same
conversion code that `from_pretrained` uses, so the tensors are the same to the bit. Private parts of transformers are
used here and nowhere else: the version is pinned.
"""

import copy
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as transformers_logging

from outlier_features.errors import ArchitectureError, SourceError

RESIDENT = -1
"""The group of tensors that belong to no decoder block: embeddings, final norm, head."""

_loader_log = logging.getLogger("transformers.modeling_utils")


class Weights:
    """A checkpoint whose resident tensors are loaded and whose decoder blocks come and go.

    `model` is an ordinary transformers model in evaluation mode; outside its decoder blocks every tensor is on
    `device`, inside them only what `install` has put there.
    """

    def __init__(self, directory: Path, dtype: torch.dtype, device: torch.device) -> None:
        """Open the safetensors checkpoint in `directory`, without reading any block.

        Raises SourceError if there is no usable checkpoint and ArchitectureError if no decoder blocks are found.
        """
        self.directory = Path(directory)
        self.device = device
        self.model, self._files, self._loading = _stopped_before_loading(self.directory, dtype, device)
        self._prefix, self.blocks = decoder_blocks(self.model)
        self._shadow = copy.deepcopy(self.model)
        self._keys = self._group_keys()
        self._load_resident()

    def read(self, index: int) -> dict[str, torch.Tensor]:
        """Read and convert the tensors of block `index`; safe to call on another thread than the forward pass.

        Returns parameters and persistent buffers by their name inside the block, on the device.
        """
        missing = self._convert(self._shadow, index)
        prefix = f"{self._prefix}.{index}."
        lacking = sorted(name for name in missing if name.startswith(prefix))
        if lacking:
            raise SourceError(
                f"{self.directory}: the checkpoint lacks {lacking[0]} ({len(lacking)} tensors of block {index}); "
                "delete the folder and fetch the model again."
            )
        block = self._shadow.get_submodule(f"{self._prefix}.{index}")
        tensors = dict(block.state_dict())
        _set_tensors(block, {name: tensor.to("meta") for name, tensor in tensors.items()})
        return tensors

    def install(self, index: int, tensors: dict[str, torch.Tensor]) -> None:
        """Put the tensors that `read` returned into block `index` of the model."""
        _set_tensors(self.blocks[index], tensors)

    def release(self, index: int) -> None:
        """Take the tensors of block `index` out of the model again."""
        block = self.blocks[index]
        _set_tensors(block, {name: tensor.to("meta") for name, tensor in block.state_dict().items()})

    def _group_keys(self) -> dict[int, dict[str, list[str]]]:
        """Return checkpoint keys by block index and file."""
        mapping = self._loading.weight_mapping or []
        renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        expected = self.model.state_dict()
        groups: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for file in self._files:
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - a safe_open handle is no mapping
                    target, _ = rename_source_key(key, renamings, converters, self.model.base_model_prefix, expected)
                    groups[self._block_of(target)][file].append(key)
        return groups

    def _block_of(self, name: str) -> int:
        prefix = f"{self._prefix}."
        if not name.startswith(prefix):
            return RESIDENT
        index = int(name.removeprefix(prefix).partition(".")[0])
        return index if index < len(self.blocks) else RESIDENT  # multi-token-prediction blocks are not run

    def _convert(self, model: PreTrainedModel, group: int) -> set[str]:
        """Load one group of tensors into `model`; return the names that are still missing anywhere in it."""
        with ExitStack() as opened:
            slices = {}
            for file, keys in self._keys.get(group, {}).items():
                # mmap: the views keep the file's alignment, as in from_pretrained, so results agree to the bit
                tensors = opened.enter_context(safe_open(file, framework="pt", backend="mmap"))
                slices.update({key: tensors.get_slice(key) for key in keys})
            info, _ = convert_and_load_state_dict_in_model(model, slices, self._loading)
        if info.conversion_errors or info.mismatched_keys or info.error_msgs:
            what = info.conversion_errors or info.mismatched_keys or info.error_msgs
            raise SourceError(
                f"{self.directory}: tensors do not fit the model that config.json describes: {what!r:.300}; "
                "delete the folder and fetch the model again."
            )
        return info.missing_keys

    def _load_resident(self) -> None:
        model = self.model
        missing = self._convert(model, RESIDENT)
        model.tie_weights(missing_keys=missing, recompute_mapping=False)
        for name, buffer in list(model.named_non_persistent_buffers()):
            owner, _, attribute = name.rpartition(".")
            model.get_submodule(owner)._buffers[attribute] = torch.empty_like(buffer, device=self.device)
        model.initialize_weights()  # fills those buffers, as from_pretrained does; loaded tensors are marked and kept
        self._refuse_missing(missing)

    def _refuse_missing(self, missing: set[str]) -> None:
        inside = f"{self._prefix}."
        lacking = [
            name
            for name in sorted(missing)
            if not name.startswith(inside) and self.model.get_parameter_or_buffer(name).is_meta
        ]
        if lacking:
            raise SourceError(
                f"{self.directory}: the checkpoint lacks {lacking[0]} ({len(lacking)} tensors outside the decoder "
                "blocks); delete the folder and fetch the model again."
            )


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of the model's decoder blocks: its outermost, longest ModuleList.

    Raises ArchitectureError if there is none.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and module]
    outermost = [
        (name, module) for name, module in lists if not any(name.startswith(f"{other}.") for other, _ in lists)
    ]
    if not outermost:
        raise ArchitectureError(
            f"{type(model).__name__} has no list of decoder blocks; only decoder-only language models can be measured."
        )
    return max(outermost, key=lambda found: len(found[1]))


class _Stopped(Exception):
    """Carries what from_pretrained had prepared when it was about to read the tensors."""


def _stopped_before_loading(
    directory: Path, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, list[str], LoadStateDictConfig]:
    def stop(model: PreTrainedModel, _state: Any, files: list[str], loading: LoadStateDictConfig, *_: Any) -> None:
        raise _Stopped(model, files, loading)

    with patch.object(PreTrainedModel, "_load_pretrained_model", staticmethod(stop)), _quiet():
        try:
            AutoModelForCausalLM.from_pretrained(
                directory, dtype=dtype, device_map={"": device}, local_files_only=True, use_safetensors=True
            )
        except _Stopped as stopped:
            model, files, loading = stopped.args
        except (OSError, ValueError, KeyError) as error:
            raise SourceError(
                f"{directory}: not a checkpoint that transformers can open ({_first_line(error)}); "
                "it needs a config.json of a causal language model and *.safetensors."
            ) from error
    transformers_logging.disable_progress_bar()
    return model.eval(), files, loading


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
