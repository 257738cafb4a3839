"""Tensor names: where the keys of a checkpoint go in the model, and what a checkpoint calls a renamed module.

Mixtral's `block_sparse_moe.gate` is `mlp.gate` in the model. Who loads the checkpoint by other means knows the former.
"""

import re
from collections.abc import Iterable

from transformers import PreTrainedModel
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils.loading_report import LoadStateDictInfo

from outlier_features.models import stored_formats

CAUSAL_MASKS = re.compile(r"\.(attn|attention)\.(masked_)?bias$")
"""Constants that older checkpoints carry beside their weights; today's models build them."""


class Targets:
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


def in_checkpoint(module: str, keys: Iterable[str], block: str) -> str:
    """Return the name of a module inside its block as the keys of the checkpoint that fill its parameters have it.

    `block` is the full name of the block in the model, whose last two parts a key has too, whatever comes before. A
    fused experts is what their parts have in common. The name stays as it is where keys do not tell another.
    """
    inside = re.compile(rf"(?:^|.*\.){re.escape('.'.join(block.split('.')[-2:]))}\.(.+)\.[^.]+")
    owners = [found[1].split(".") for key in keys if (found := inside.fullmatch(key))]
    if not owners:
        return module
    common = 0
    while all(len(owner) > common and owner[common] == owners[0][common] for owner in owners):
        common += 1
    return ".".join(owners[0][:common]) if common >= len(module.split(".")) else module
