"""Hooks hand on the tensors that consumers really receive, and are gone afterwards."""

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from outlier_features.capture.hooks import observed
from outlier_features.models import sites
from outlier_features.site_names import POSITIONAL
from small_models import BLOCKS, HIDDEN, LENGTH
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
