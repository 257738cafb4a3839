r"""Inputs of the benchmarks: random checkpoints of about a given size, and windows of random tokens.

PYTHONPATH=workflow python benchmarks/inputs.py moe 2.0 folder/of/checkpoint
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from outlier_features.artefacts import provenance
from outlier_features.models import checkpoints
from outlier_features.text import windows as packed
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 8192
"""Small, so that the parameters are in the blocks, as they are in large models."""

SYSTEMATIC = 0.03
"""The share of channels whose gain is large in every norm, so that they are outlier features."""

GAINS = (4.0, 12.0)


def dense(billions: float) -> dict[str, Any]:
    """Return a configuration of Qwen3 with about so many parameters; 0.8 is 32 blocks of width 1280."""
    width = 128 * max(1, round(10 * (billions / 0.8) ** (1 / 3)))
    return _qwen3(width, billions, 15) | {"model_type": "qwen3", "intermediate_size": 3 * width}


def moe(billions: float) -> dict[str, Any]:
    """Return a configuration of Qwen3-MoE, 64 experts of which 8 are used; 2.0 is 24 blocks of width 1024."""
    width = 128 * max(1, round(8 * (billions / 2) ** (1 / 3)))
    experts = {"num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 3 * width // 8}
    return _qwen3(width, billions, 78) | {"model_type": "qwen3_moe", "intermediate_size": 3 * width} | experts


KINDS = {"dense": dense, "moe": moe}

_SMALL = {"vocab_size": VOCABULARY, "max_position_embeddings": 4096, "tie_word_embeddings": True}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _SMALL
    | {"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
    "smollm2-135m": _SMALL
    | {"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536}
    | {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152},
    "qwen3-0.6b": _SMALL
    | {"model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "intermediate_size": 3072}
    | {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    "qwen3-1.7b": _SMALL
    | {"model_type": "qwen3", "hidden_size": 2048, "num_hidden_layers": 28, "intermediate_size": 6144}
    | {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    "qwen3-8b": _SMALL
    | {"model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36, "intermediate_size": 12288}
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
    | {"tie_word_embeddings": False},
    "qwen3-30b-a3b": _SMALL
    | {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "intermediate_size": 6144}
    | {"num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936}
    | {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "tie_word_embeddings": False},
}
"""The architectures of published models, by name."""


def _qwen3(width: int, billions: float, squares: int) -> dict[str, Any]:
    """Return what both have in common; a block has about `squares` times the squared width in parameters."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "num_hidden_layers": max(2, round((billions * 1e9 - VOCABULARY * width) / (squares * width**2))),
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 128,
        "head_dim": 128,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }


def write_checkpoint(directory: Path, architecture: Mapping[str, Any], dtype: str, seed: int = 0) -> None:
    """Write and seal a random checkpoint with planted outlier features."""
    torch.manual_seed(seed)
    settings = AutoConfig.for_model(**architecture)
    model = AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype))
    width = architecture["hidden_size"]
    channels = torch.randperm(width)[: max(1, round(SYSTEMATIC * width))]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layernorm.weight"):
                parameter[channels] = torch.empty(len(channels)).uniform_(*GAINS).to(parameter.dtype)
    model.save_pretrained(directory, max_shard_size="1GB")
    checkpoints.seal(directory, {"path": directory.name}, {"checkpoint": "benchmark"})


def write_windows(path: Path, windows: int, length: int, seed: int = 0) -> None:
    """Write packed windows of random tokens, two bytes a token."""
    ids_ST = np.random.default_rng(seed).integers(0, VOCABULARY, (windows, length))
    rows = [
        {"window": window, "token_ids": ids_T.tolist(), "token_bytes": [2] * length, "scored_from": 1}
        for window, ids_T in enumerate(ids_ST)
    ]
    cut = {"window": length, "stride": length, "bos": False}
    origin = provenance.record({"tokens": "benchmark"}, cut=cut)
    packed.write_windows(path, rows, origin)


def main() -> None:
    """Write one checkpoint and its windows, in a process whose memory is then given back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("billions", type=float)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=Path, help="also write windows here")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    options = parser.parse_args()
    if options.tokens:
        write_windows(options.tokens, options.windows, options.length)
    write_checkpoint(options.directory, KINDS[options.kind](options.billions), options.dtype)


if __name__ == "__main__":
    main()
