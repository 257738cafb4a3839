"""Sites are found by structure, and refused where it does not tell."""

from pathlib import Path

import pytest
from outlier_features.errors import ArchitectureError
from outlier_features.models import fused_experts, sites
from torch import nn
from transformers import AutoModelForCausalLM


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
