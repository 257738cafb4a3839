"""Hooks hand on the tensors that consumers really receive, and are gone afterwards."""

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from outlier_features.capture.hooks import changed, observed, replaced
from outlier_features.models import sites
from outlier_features.site_names import POSITIONAL
from small_models import BLOCKS, HIDDEN, LENGTH
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
            probes = sites.probes(block, POSITIONAL)
            hooks.enter_context(observed(probes, lambda site, x: seen[site].append(x.clone())))
            modules = {"attn_in": block.self_attn, "mlp_in": block.mlp, "out_proj_in": block.self_attn.o_proj}
            for site, module in modules.items():
                module.register_forward_pre_hook(keep(site), with_kwargs=True)
            block.register_forward_hook(lambda _m, _a, output: expected["residual"].append(output[0]))
        model(window, use_cache=False)
    for site in POSITIONAL:
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
                hooks.enter_context(observed(sites.probes(block, POSITIONAL), lambda *_: None))
            assert torch.equal(model(window).logits, plain)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_a_module_is_handed_another_first_argument_by_place_or_by_name() -> None:
    class Both(nn.Module):
        def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return hidden + mask

    module, x, mask = Both(), torch.ones(2), torch.zeros(2)
    with changed(module, lambda x: 3 * x):
        assert module(x, mask).tolist() == module(mask=mask, hidden=x).tolist() == [3.0, 3.0]
    assert module(x, mask).tolist() == [1.0, 1.0]


def test_forwards_that_are_replaced_twice_come_back_one_by_one() -> None:
    module = nn.Identity()
    with replaced(module, lambda forward: lambda x: forward(x) + 1):
        with replaced(module, lambda forward: lambda x: 10 * forward(x)):
            assert module(1) == 20
        assert module(1) == 2
    assert module(1) == 1
    assert "forward" not in vars(module)
