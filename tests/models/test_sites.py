"""Sites are found by structure, and refused where it does not tell."""

from pathlib import Path

import pytest
import torch
from families import COMMON, GROUPED, LATENT, LINEAR, ROUTED
from outlier_features.errors import ArchitectureError
from outlier_features.models import architectures, fused_experts, sites
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

DECLARED_BEFORE = {
    "phi3": COMMON,
    "afmoe": COMMON | ROUTED | {"num_dense_layers": 1, "num_shared_experts": 1, "sliding_window": 8},
    "minimax": COMMON | ROUTED | {"layer_types": ["linear_attention", "full_attention"] * 2, "num_hidden_layers": 4},
    "qwen3_5_text": COMMON | LINEAR,
    "qwen3_5_moe_text": COMMON | ROUTED | LINEAR,
    "recurrent_gemma": COMMON | {"lru_width": 32, "attention_window_size": 8},
    "glm_moe_dsa": COMMON | ROUTED | GROUPED | LATENT | {"num_key_value_heads": 4, "qk_rope_head_dim": 8},
}
"""Architectures whose attention declares its output projection before other matrices."""
SHARED = {
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1, "moe_layer_start_index": 0},
    "qwen3_5_moe_text": ROUTED | LINEAR,
}


def test_a_dense_block_has_no_experts_and_a_moe_block_has(checkpoints: dict[str, Path]) -> None:
    blocks = AutoModelForCausalLM.from_pretrained(checkpoints["moe"]).model.layers
    assert fused_experts.of_block(blocks[0]) is None  # mlp_only_layers
    assert fused_experts.expert_count(fused_experts.of_block(blocks[1])) == 6


def test_a_block_whose_structure_does_not_tell_is_refused() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    with pytest.raises(ArchitectureError, match="Plain has 0 parts"):
        sites.probes(Plain(), ["attn_in"])


@pytest.mark.parametrize("model_type", DECLARED_BEFORE)
def test_the_output_projection_is_the_matrix_that_attention_runs_last(model_type: str) -> None:
    config = AutoConfig.for_model(model_type, **DECLARED_BEFORE[model_type])
    model = AutoModelForCausalLM.from_config(config).eval()
    ran: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda module, _: ran.append(module))
    with torch.inference_mode():
        model(torch.arange(12)[None], use_cache=False)
    for block in architectures.decoder_blocks(model)[1]:
        mixer = set(sites.attention(block).modules())
        assert sites.output_projection(block) is [module for module in ran if module in mixer][-1]


@pytest.mark.parametrize("model_type", SHARED)
def test_a_shared_expert_is_no_router_and_leads_back_to_the_width_of_the_block(model_type: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **COMMON | SHARED[model_type]))
    for block in architectures.decoder_blocks(model)[1]:
        shared = next(child for name, child in block.mlp.named_children() if name.rstrip("s") == "shared_expert")
        assert sites.shared_expert(block) is shared
        assert sites.shared_down_projection(block) is shared.down_proj
