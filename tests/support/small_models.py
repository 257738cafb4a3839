"""Small real models and windows that several test files share, and what a capture of them keeps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from outlier_features.artefacts import provenance
from outlier_features.capture.run import Settings
from outlier_features.config.entries import Definition
from outlier_features.kernels.reference import Grids
from outlier_features.models.checkpoints import seal
from outlier_features.text import windows
from outlier_features.thresholds import grid
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)  # the tensors are tiny: a second thread only waits for a core

HIDDEN, BLOCKS, VOCABULARY = 40, 3, 160
WINDOWS, LENGTH = 5, 33

DENSE = {
    "model_type": "qwen3",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 56,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
MOE = DENSE | {
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 24,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "mlp_only_layers": [0],
}
NARROW = MOE | {"moe_intermediate_size": 20}
"""In bfloat16 a row of 20 has 40 bytes, no multiple of the 16 that grouped products want."""


PLANTED = {3: 9.0, 17: 6.0, 30: -4.0}
"""Channels whose norm gain is set so that they become outlier features, or come near."""

DEFINITIONS = {
    "arb8020": Definition(sites=("attn_in", "mlp_in"), scope="sequence", rounding="bfloat16"),
    "llm_int8": Definition(sites=("attn_in", "mlp_in")),
    "llm_int8_paper": Definition(sites=("attn_in", "out_proj_in", "mlp_in")),
    "strict": Definition(sites=("mlp_in",), threshold=4.0, min_layers=0.6, min_positions=0.3),
}
"""One of each kind: per sequence and rounded, pooled, over every site, and another threshold."""


def save_checkpoint(
    directory: Path, architecture: dict, seed: int = 0, planted: dict[int, float] | None = None
) -> Path:
    """Write a random-weight checkpoint, gains of `planted` channels set in every norm over the hidden size."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for name, parameter in model.named_parameters():
            if parameter.shape == (HIDDEN,) and name.endswith("layernorm.weight"):
                for channel, gain in (PLANTED if planted is None else planted).items():
                    parameter[channel] = gain
    model.save_pretrained(directory, max_shard_size="60KB")
    seal(directory, {"path": str(directory)}, {"checkpoint": "test"})
    return directory


def write_windows(path: Path, ids: np.ndarray | Sequence[np.ndarray], stride: int | None = None) -> Path:
    """Write windows of token ids, all of one length or a list of any, two bytes a token."""
    length = max(map(len, ids))
    stride = stride or length
    rows = [
        {
            "window": index,
            "token_ids": row.tolist(),
            "token_bytes": [2] * len(row),
            "scored_from": 1 if index == 0 else max(1, length - stride),
        }
        for index, row in enumerate(ids)
    ]
    cut = {"window": length, "stride": stride, "bos": False}
    origin = provenance.record({"tokens": "test"}, cut=cut)
    windows.write_windows(path, rows, origin)
    return path


def capture_settings(dtype: torch.dtype = torch.float32, **changes: object) -> Settings:
    """Return settings that count everything the three definitions ask for."""
    values = {
        "sites": ("attn_in", "out_proj_in", "mlp_in", "residual"),
        "counted": ("attn_in", "out_proj_in", "mlp_in"),
        "coverages": (("attn_in", "mlp_in"), ("attn_in", "out_proj_in", "mlp_in"), ("mlp_in",)),
        "grids": Grids(grid((3.0, 4.0, 6.0, 8.0, 12.0, 20.0)), grid((2.0, 3.0, 4.0, 6.0, 8.0))),
        "dtype": dtype,
    }
    return Settings(**(values | changes))


def poisoned(path: Path, value: float) -> Path:
    """Save a dense model one gain of whose block 1 is `value`."""
    checkpoint = save_checkpoint(path, DENSE)
    for file in checkpoint.glob("*.safetensors"):
        tensors = load_file(file)
        if "model.layers.1.input_layernorm.weight" in tensors:
            tensors["model.layers.1.input_layernorm.weight"][5] = value
            save_file(tensors, file, metadata={"format": "pt"})
    return checkpoint
