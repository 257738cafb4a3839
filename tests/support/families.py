"""Tiny checkpoints of every family of the sweep: random seeded weights, every kind of block, the published layout.

On disk they look like the originals: per-expert tensors, MXFP4 and FP8 where the originals are, `.bin` where there is
nothing else, the extra tensors that originals carry (causal masks, blocks that predict several tokens), several files.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from outlier_features.models import architectures
from outlier_features.training.tokenizer import train_tokenizer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig

VOCABULARY, FILES = 320, 3
PLANTED = {3: 12.0, 17: -9.0}
"""Channels whose norm gain is set, so that every family has outlier features."""
NORMS = ("layernorm.weight", "layer_norm.weight", "ln_1.weight", "ln_2.weight")

Tensors = dict[str, torch.Tensor]

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
ROUTED = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GROUPED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1}
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 12, "qk_rope_head_dim": 16, "qk_nope_head_dim": 8, "v_head_dim": 10}
CUT = {"hidden_size": 40, "intermediate_size": 72, "moe_intermediate_size": 24}
"""Sides that are no multiple of a tile: the last tiles of every matrix are cut."""
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 32,
    "num_hidden_layers": 4,
}
GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
GPT |= {"bos_token_id": 0, "eos_token_id": 0}
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 14}
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}


@dataclass(frozen=True)
class Family:
    """One architecture: the fields of its tiny configuration, and how its publishers store it."""

    model_type: str
    fields: dict[str, Any]
    stored: torch.dtype = torch.bfloat16
    published: Callable[[Tensors], Tensors] = dict
    """Turns the tensors as transformers saves them into those of the original files."""
    is_pickled: bool = False
    """Whether the original has only `.bin` files."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of config.json that describe the stored format."""


def without_prefix(tensors: Tensors) -> Tensors:
    """GPT-2's files name the tensors of the bare model, and keep the causal masks of every block."""
    masks = {f"h.{block}.attn.bias": torch.ones(1, 1, 64, 64).tril() for block in range(GPT["n_layer"])}
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()} | masks


def with_masks(attention: str) -> Callable[[Tensors], Tensors]:
    """GPT-J and GPT-NeoX keep causal masks and the value that is masked with."""

    def add(tensors: Tensors) -> Tensors:
        mask, value = torch.ones(1, 1, 64, 64).tril().to(torch.uint8), torch.tensor(-1e9)
        blocks = [attention.format(block) for block in range(3)]
        return (
            tensors | {f"{b}.bias": mask.clone() for b in blocks} | {f"{b}.masked_bias": value.clone() for b in blocks}
        )

    return add


def with_further_block(tensors: Tensors) -> Tensors:
    """GLM and DeepSeek ship one block more, which predicts the token after next."""
    return tensors | {
        name.replace(".layers.2.", ".layers.3."): tensor.clone()
        for name, tensor in tensors.items()
        if ".layers.2." in name
    }


def with_prediction_head(tensors: Tensors) -> Tensors:
    """Qwen3-Next ships its multi-token prediction apart."""
    return tensors | {"mtp.fc.weight": torch.zeros(4, 4, dtype=torch.bfloat16)}


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def in_mxfp4(tensors: Tensors) -> Tensors:
    """GPT-OSS stores its experts in groups of 32 four-bit values with a shared power of two (OCP MX)."""
    stored: Tensors = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 3:
            stored |= dict(zip((f"{name}_blocks", f"{name}_scales"), packed(tensor), strict=True))
        else:
            stored[name] = tensor
    return stored


def packed(weight_EKN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return blocks (E, N, K / 32, 16) and scales (E, N, K / 32) of weights with the input axis in the middle."""
    groups = weight_EKN.float().transpose(1, 2).unflatten(-1, (-1, 32))
    exponent = torch.floor(torch.log2(groups.abs().amax(-1).clamp_min(2.0**-100))) - 2
    scaled = (groups / torch.exp2(exponent)[..., None]).clamp(-6, 6)
    codes = (scaled[..., None] - FP4).abs().argmin(-1).to(torch.uint8)
    blocks = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return blocks.contiguous(), (exponent + 127).to(torch.uint8).contiguous()


def in_fp8(tensors: Tensors) -> Tensors:
    """DeepSeek-V3 stores the matrices of its blocks in eight bits, with one scale a tile."""
    stored: Tensors = {}
    for name, tensor in with_further_block(tensors).items():
        if name.endswith("proj.weight") or "_proj_with_mqa" in name:
            stored |= dict(zip((name, f"{name}_scale_inv"), tiled(tensor), strict=True))
        else:
            stored[name] = tensor
    return stored


def tiled(weight: torch.Tensor, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matrices (..., R, C) in float8 and the scale of each tile of `size` by `size`, the last ones cut."""
    rows, columns = weight.shape[-2:]
    padded = nn.functional.pad(weight.float(), (0, -columns % size, 0, -rows % size))
    tiles = padded.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
    scale = tiles.abs().amax((-3, -1), keepdim=True) / 448
    values = (tiles / scale).flatten(-4, -3).flatten(-2)[..., :rows, :columns]
    return values.to(torch.float8_e4m3fn).contiguous(), scale[..., :, 0, :, 0].contiguous()


DENSE = {
    "llama": Family("llama", COMMON),
    "smollm2": Family("llama", COMMON | {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "smollm3": Family("smollm3", COMMON | {"num_hidden_layers": 4, "tie_word_embeddings": True}),
    "qwen3": Family("qwen3", COMMON | {"tie_word_embeddings": True}),
    "gemma3": Family(
        "gemma3_text",
        COMMON
        | {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4, "sliding_window": 8},
    ),
    "gemma3-vision": Family("gemma3", {"text_config": COMMON, "vision_config": VISION, "mm_tokens_per_image": 4}),
    "olmo2": Family("olmo2", COMMON),
    "pythia": Family("gpt_neox", COMMON, torch.float16, with_masks("gpt_neox.layers.{}.attention")),
    "opt-350m": Family(
        "opt",
        COMMON | {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        torch.float16,
        is_pickled=True,
    ),
    "opt": Family("opt", COMMON | {"ffn_dim": 48, "word_embed_proj_dim": 32}, torch.float16, is_pickled=True),
    "gpt2": Family("gpt2", GPT, torch.float32, without_prefix),
    "gptj": Family(
        "gptj", GPT | {"rotary_dim": 4}, torch.float16, with_masks("transformer.h.{}.attn"), is_pickled=True
    ),
}
MOE = {
    "olmoe": Family("olmoe", COMMON | ROUTED, torch.float32),
    "mixtral": Family("mixtral", COMMON | ROUTED),
    "qwen3-moe": Family("qwen3_moe", COMMON | ROUTED | {"mlp_only_layers": [1]}),
    "gpt-oss": Family(
        "gpt_oss",
        COMMON | ROUTED | {"num_hidden_layers": 4, "sliding_window": 8},
        published=in_mxfp4,
        config={"quantization_config": MXFP4},
    ),
    "qwen3-next": Family("qwen3_next", COMMON | ROUTED | LINEAR, published=with_prediction_head),
    "glm4-moe": Family(
        "glm4_moe", COMMON | ROUTED | GROUPED | {"num_nextn_predict_layers": 1}, published=with_further_block
    ),
    "deepseek-v3": Family(
        "deepseek_v3",
        COMMON
        | ROUTED
        | GROUPED
        | LATENT
        | CUT
        | {"num_key_value_heads": 4, "head_dim": 16, "num_nextn_predict_layers": 1},
        published=in_fp8,
        config={"quantization_config": FP8},
    ),
}
FAMILIES = DENSE | MOE


def save_family(
    family: Family,
    directory: Path,
    seed: int = 0,
    planted: dict[int, float] | None = None,
    *,
    is_pickled: bool | None = None,
) -> Path:
    """Write the tiny checkpoint of a family with a tokenizer to `directory`, as its publishers would.

    `is_pickled` chooses the files, where those of the publishers are not wanted.
    """
    model = random_model(family, seed, PLANTED if planted is None else planted)
    model.save_pretrained(directory)
    whole = directory / "model.safetensors"
    tensors = family.published(load_file(whole))
    whole.unlink()
    write_files(tensors, directory, is_pickled=family.is_pickled if is_pickled is None else is_pickled)
    described = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(described | family.config, indent=2))
    save_tokenizer(directory)
    return directory


def random_model(family: Family, seed: int, planted: dict[int, float]) -> Any:
    """Return a model of random weights; norms, biases and buffers too, lest a mistake hides behind ones and zeros."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family.model_type, **family.fields)
    model = architectures.automatic(config).from_config(config).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *persistent(model)):
            tensor.add_(0.02 * torch.randn_like(tensor))
        for name, parameter in model.named_parameters():
            if parameter.shape == (config.get_text_config().hidden_size,) and name.endswith(NORMS):
                for channel, gain in planted.items():
                    parameter[channel] = gain
    return model.to(family.stored)


def persistent(model: torch.nn.Module) -> list[torch.Tensor]:
    kept = set(model.state_dict())
    return [buffer for name, buffer in model.named_buffers() if name in kept and buffer.is_floating_point()]


def write_files(tensors: Tensors, directory: Path, *, is_pickled: bool) -> None:
    """Write tensors to several files with their index, as safetensors or pickled."""
    stem, suffix = ("pytorch_model", "bin") if is_pickled else ("model", "safetensors")
    names = sorted(tensors)
    files = {f"{stem}-{n + 1:05}-of-{FILES:05}.{suffix}": names[n::FILES] for n in range(FILES)}
    for file, part in files.items():
        content = {name: tensors[name].contiguous() for name in part}
        if is_pickled:
            torch.save(content, directory / file)
        else:
            save_file(content, directory / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (directory / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def save_tokenizer(directory: Path) -> None:
    """Write a small byte-level BPE tokenizer, of fewer tokens than the embedding has rows, as is usual."""
    train_tokenizer(["outlier features of language models live in a few channels " * 4], 300).save_pretrained(directory)
