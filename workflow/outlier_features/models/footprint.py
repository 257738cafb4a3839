"""Footprint: the sizes of a model that decide what measuring it takes, from its configuration alone.

Nothing is read of the weights: transformers builds the model on the meta device, where tensors have only a shape.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from outlier_features.errors import ArchitectureError
from outlier_features.models import architectures, fused_experts, parameters
from outlier_features.models.sites import probes
from outlier_features.models.sizes import BYTES, Footprint
from outlier_features.site_names import SiteName

MXFP4_BYTES = 17 / 32
"""Bytes a parameter: 32 four-bit values share one byte of scale."""
FP8_BYTES = 1 + 4 / 128**2
"""Bytes a parameter: a tile of 128 by 128 shares one float32 scale."""


def of_directory(directory: Path) -> Footprint:
    """Return the footprint of the model whose config.json lies in `directory`. Raises as `architectures.read` does."""
    return of_config(architectures.read(directory), directory)


def of_config(config: PreTrainedConfig, where: object, wanted: Sequence[SiteName] = ()) -> Footprint:
    """Return the footprint of the model that `config` describes; `where` names it in errors.

    Raises ArchitectureError where it has no attention heads, or a block does not tell where a site of `wanted` is.
    """
    architectures.dequantization(config, where)
    try:
        return _of_model(config, where, wanted)
    except ArchitectureError as error:
        raise ArchitectureError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from error
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        raise ArchitectureError(
            f"{where}: {config.model_type} does not tell its sizes as other models do "
            f"({architectures.reason(error)}), so it cannot be measured; choose another model."
        ) from error


def _of_model(config: PreTrainedConfig, where: object, wanted: Sequence[SiteName]) -> Footprint:
    text = config.get_text_config()
    heads = _most(text, "num_attention_heads")
    if not heads:
        raise ArchitectureError(
            f"{text.model_type} has no attention heads (config.json has no num_attention_heads); choose a model with "
            "attention."
        )
    model = architectures.skeleton(config, where)
    _, blocks = architectures.decoder_blocks(model)
    for block in blocks:
        probes(block, wanted)
    counts = parameters.count(model)
    block_params = [sum(p.numel() for p in block.parameters()) for block in blocks]
    all_fused = [fused for fused in map(fused_experts.of_block, blocks) if fused is not None]
    bank_params = [sum(p.numel() for p in fused.parameters(recurse=False)) for fused in all_fused]
    return Footprint(
        architecture=type(model).__name__,
        counts=counts.facts(),
        blocks=len(blocks),
        channels=text.hidden_size,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        block_params=max(block_params),
        bank_params=max(bank_params, default=0),
        resident_params=counts.total_params - sum(block_params),
        heads=heads,
        head_channels=_most(text, "head_dim") or text.hidden_size // heads,
        inner_channels=_inner_channels(all_fused, text),
        is_attention_materialised=model.config._attn_implementation == "eager",
        stored_bytes=round(_stored_bytes(config, counts.total_params, sum(bank_params), sum(block_params))),
    )


def _most(text: PreTrainedConfig, field: str) -> int:
    """Return a number of the configuration, the largest where blocks differ in it; 0 where it is not told."""
    try:
        told = getattr(text, field, None)
    except RuntimeError:  # transformers refuses to give one number for blocks that differ
        told = [getattr(block, field, None) for block in text.per_layer_config]
    return max((value or 0 for value in (told if isinstance(told, list | tuple) else [told])), default=0)


def _inner_channels(all_fused: Sequence[nn.Module], text: Any) -> int:
    """Return how many values a token has inside the widest MLP."""
    widths = [_most(text, name) for name in ("intermediate_size", "ffn_dim", "n_inner")]
    dense = max(*widths, 0 if any(widths) else 4 * text.hidden_size)
    routed = max((_routed_width(fused, text) for fused in all_fused), default=0)
    return 3 * max(dense, routed)


def _routed_width(fused: nn.Module, text: Any) -> int:
    widest = max(p.shape[-1] if p.shape[1] == text.hidden_size else p.shape[1] for p in fused.parameters(recurse=False))
    return parameters.top_k(text) * widest


def _stored_bytes(config: PreTrainedConfig, total: int, in_banks: int, in_blocks: int) -> float:
    method, _ = architectures.stored_format(config)
    dtype = str(config.dtype or config.get_text_config().dtype or "float32").removeprefix("torch.")
    width = BYTES.get(dtype, 4.0)
    if method == "mxfp4":
        return in_banks * MXFP4_BYTES + (total - in_banks) * 2.0
    if method == "fp8":
        return in_blocks * FP8_BYTES + (total - in_blocks) * width
    return total * width
