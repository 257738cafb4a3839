"""Architectures: what a configuration says of a model, and which part of the model is its text decoder.

Nothing here names an architecture; transformers' own registers say which classes are causal language models.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from outlier_features.errors import ArchitectureError, SourceError
from outlier_features.models import checkpoint_code

METHODS = ("mxfp4", "fp8")
"""What `quant_method` of config.json may say."""


@dataclass(frozen=True)
class Quantization:
    """What config.json says of the format of a quantised checkpoint."""

    method: str
    tile: tuple[int, int] | None = None
    """Rows and columns that share a scale; None where a scale is for whole matrices, rows or columns."""


def read(directory: Path, where: object = None) -> PreTrainedConfig:
    """Return the configuration in `directory`, of a model that predicts the next token.

    Raises SourceError where there is none that transformers can read, and ArchitectureError for an encoder, an
    encoder-decoder or a model without a head; they name the model as `where`, by default its directory.
    """
    where = where or directory
    described = _described(directory, where)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each architecture checks its own fields, and raises what it likes
        raise SourceError(f"{where}: {_unreadable(described, directory, error)}") from error
    _require_language_model(config, where)
    return config


def stored_dtype(directory: Path) -> str | None:
    """Return the precision a checkpoint says its weights are stored in, as torch names it without its prefix."""
    config = read(directory)
    found = config.dtype or getattr(config.get_text_config(), "dtype", None)
    return None if found is None else str(found).removeprefix("torch.")


def automatic(config: PreTrainedConfig) -> Any:
    """Return the transformers class that builds the model: for text where there is one, else for images and text."""
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForCausalLM if causal else AutoModelForImageTextToText


def skeleton(config: PreTrainedConfig, where: object = None) -> PreTrainedModel:
    """Return the model of a configuration on the meta device: every shape, no weight.

    Raises ArchitectureError, naming the model as `where`, if its fields do not make one.
    """
    try:
        with torch.device("meta"):
            return automatic(config).from_config(config, trust_remote_code=False).eval()
    except Exception as error:
        raise ArchitectureError(
            f"{where or config.model_type}: transformers cannot build the {config.model_type} model that config.json "
            f"describes ({reason(error)}); correct it or name another revision."
        ) from error


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of the decoder blocks: the outermost, longest ModuleList of the text part.

    Raises ArchitectureError if there is none.
    """
    prefix, text = _text_part(model)
    lists = [
        (f"{prefix}.{name}" if prefix else name, module)
        for name, module in text.named_modules()
        if isinstance(module, nn.ModuleList) and module
    ]
    outermost = [found for found in lists if not any(found[0].startswith(f"{other}.") for other, _ in lists)]
    if not outermost:
        raise ArchitectureError(
            f"{type(model).__name__} has no list of decoder blocks; only decoder-only language models can be measured."
        )
    return max(outermost, key=lambda found: len(found[1]))


def other_parts(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the prefixes of the modules that text does not pass: the vision tower and what joins it to the text."""
    prefix, _ = _text_part(model)
    parent, _, own = prefix.rpartition(".")
    beside = {name: module for name, module in model.get_submodule(parent).named_children() if name != own}
    if not parent or not any(isinstance(module, PreTrainedModel) for module in beside.values()):
        return ()
    return tuple(f"{parent}.{name}." for name in beside)


def reason(error: Exception) -> str:
    """Return what an error says, on one line."""
    said = " ".join(str(error).split())
    return f"{said[:300]}…" if len(said) > 300 else said or type(error).__name__


def stored_format(config: PreTrainedConfig) -> tuple[str | None, dict[str, Any]]:
    """Return the format a checkpoint is quantised in, and the fields that describe it; None where it is not."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None, {}
    fields = stored if isinstance(stored, dict) else stored.to_dict()
    return str(fields.get("quant_method", "none")).rpartition(".")[2].lower(), fields


def dequantization(config: PreTrainedConfig, where: object) -> Quantization | None:
    """Return the format a checkpoint has to be dequantised from, or None where it is not quantised.

    Raises SourceError for a format that cannot be read, or a tile that is none.
    """
    method, fields = stored_format(config)
    if method is None:
        return None
    if method not in METHODS:
        raise SourceError(
            f"{where}: the checkpoint is quantised ({method}); of quantised checkpoints only "
            f"{' and '.join(METHODS)} can be read. Name the unquantised one."
        )
    tile = fields.get("weight_block_size") if method == "fp8" else None
    return Quantization(method, None if tile is None else _sides(tile, where))


def _sides(tile: Any, where: object) -> tuple[int, int]:
    if isinstance(tile, Sequence) and len(tile) == 2 and all(type(side) is int and side > 0 for side in tile):
        return tile[0], tile[1]
    raise SourceError(
        f"{where}: weight_block_size of quantization_config in config.json is {tile}, where rows and columns of a "
        "tile, such as [128, 128], or null were expected; name another revision, or the unquantised checkpoint."
    )


def _described(directory: Path, where: object) -> dict[str, Any]:
    """Return config.json as it stands. Raises SourceError unless it names an architecture and no code of the hub."""
    path = directory / "config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{where}: no config.json ({error.strerror}); name the folder of a whole model.") from error
    except ValueError as error:
        raise SourceError(f"{where}: config.json is no JSON ({error}); it is damaged, or no configuration.") from error
    if not isinstance(described, dict):
        raise SourceError(f"{where}: config.json is no JSON object with the fields of a model.")
    for key, value in _implementations(described):
        if "/" in value:
            raise SourceError(f"{where}: {key} of config.json asks for code of the hub ({value}), which is never run.")
    return described


def _implementations(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a configuration and its parts say of how attention and experts are computed."""
    for key, value in described.items():
        names = list(value.values()) if isinstance(value, dict) else [value]
        if key.endswith("_implementation"):
            yield from ((key, name) for name in names if isinstance(name, str))
        elif isinstance(value, dict):
            yield from _implementations(value)


def _unreadable(described: dict[str, Any], directory: Path, error: Exception) -> str:
    """Say why transformers cannot read a configuration, and what to do."""
    kind = described.get("model_type")
    if str(kind) in CONFIG_MAPPING:
        return f"config.json is no configuration of {kind} that transformers can read ({reason(error)}); correct it."
    if code := checkpoint_code.asked_for(directory).get("config.json"):
        return (
            f"the model is code of the checkpoint ({code}), which is never run, and transformers has no "
            f"{kind or 'model_type'} of its own; choose a model that it has."
        )
    if kind is None:
        return "config.json has no model_type, so transformers cannot read it; name the folder of a language model."
    return (
        f"transformers {transformers.__version__} knows no model_type {kind!r}; newer architectures need a newer one."
    )


def _text_part(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """Return the name of the text decoder, empty where it is the model itself, and the decoder."""
    text = model.get_decoder()
    return next((name, module) for name, module in model.named_modules() if module is text)


def _require_language_model(config: PreTrainedConfig, where: object) -> None:
    names = {*_flat(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), *_flat(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)}
    registered = {**MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, **MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    declared = config.architectures or []
    # BERT and its kind are registered for both tasks and see the tokens that follow unless told otherwise
    is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    is_known = config.model_type in registered and not config.is_encoder_decoder and not is_encoder
    if is_known and (not declared or names & set(declared)):
        return
    raise ArchitectureError(
        f"{where}: {', '.join(declared) or config.model_type} is no decoder-only language model with a head, so it has "
        "no next-token loss and no decoder blocks to measure; choose a causal language model."
    )


def _flat(mapping: Any) -> list[str]:
    """Return the class names of one of transformers' registers, which may list several for a type."""
    return [name for value in mapping.values() for name in ([value] if isinstance(value, str) else value)]
