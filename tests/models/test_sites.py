"""Sites are the tensors their consumers really receive."""

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BLOCKS, HIDDEN, LENGTH
from outlier_features.capture.hooks import observed
from outlier_features.capture.hooks import routed as observe_routing
from outlier_features.errors import ArchitectureError
from outlier_features.models import fused_experts, sites
from outlier_features.site_names import SITES
from torch import nn
from transformers import AutoModelForCausalLM


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_observed_tensors_are_what_the_modules_receive(
    kind: str, checkpoints: dict[str, Path], ids: np.ndarray
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints[kind], dtype=torch.float32).eval()
    window = torch.from_numpy(ids[:1]).long()
    seen, expected = defaultdict(list), defaultdict(list)

    def keep(site: str):
        return lambda _module, args, kwargs: expected[site].append((args[0] if args else kwargs["hidden_states"])[0])

    with ExitStack() as hooks, torch.inference_mode():
        for block in model.model.layers:
            probes = sites.probes(block, SITES)
            hooks.enter_context(observed(probes, lambda site, x: seen[site].append(x.clone())))
            modules = {"attn_in": block.self_attn, "mlp_in": block.mlp, "out_proj_in": block.self_attn.o_proj}
            for site, module in modules.items():
                module.register_forward_pre_hook(keep(site), with_kwargs=True)
            block.register_forward_hook(lambda _m, _a, output: expected["residual"].append(output[0]))
        model(window, use_cache=False)
    for site in SITES:
        assert len(seen[site]) == BLOCKS
        assert seen[site][0].shape == (LENGTH, HIDDEN)
        assert all(torch.equal(a, b) for a, b in zip(seen[site], expected[site], strict=True)), site


def test_hooks_leave_logits_untouched_and_are_gone_afterwards(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints["moe"], dtype=torch.float32).eval()
    window = torch.from_numpy(ids[:1]).long()
    with torch.inference_mode():
        plain = model(window).logits
        with ExitStack() as hooks:
            for block in model.model.layers:
                hooks.enter_context(observed(sites.probes(block, SITES), lambda *_: None))
                if (bank := fused_experts.of_block(block)) is not None:
                    hooks.enter_context(observe_routing(bank, lambda _: None))
            assert torch.equal(model(window).logits, plain)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_routing_is_the_choice_of_the_router(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints["moe"], dtype=torch.float32).eval()
    block = model.model.layers[1]
    chosen, routed = [], []
    block.mlp.gate.register_forward_hook(lambda _m, _a, output: chosen.append(output[2]))
    with torch.inference_mode(), observe_routing(fused_experts.of_block(block), routed.append):
        model(torch.from_numpy(ids[:1]).long())
    assert torch.equal(routed[0], chosen[0])
    assert routed[0].shape == (LENGTH, 2)


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
