"""Routers: the choices that experts are handed, and the lead of the last chosen expert by NumPy from the logits."""

# Shapes: T position, k expert a token is routed to, C channel, E expert.

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from families import COMMON, MOE, random_model
from outlier_features.capture import routing
from outlier_features.capture.hooks import observed
from outlier_features.models import architectures, fused_experts, sites
from outlier_features.models.sites import Probe
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

IDS = torch.arange(3, 27)[None]


def keep_choice(found: dict[int, routing.Choice], block: int) -> Callable[[routing.Choice], None]:
    return lambda choice: found.update({block: choice})


def keep(inputs: dict[int, torch.Tensor], block: int) -> Callable[[str, torch.Tensor], None]:
    return lambda _, x_TC: inputs.update({block: x_TC.clone()})


def choices_of(model: PreTrainedModel) -> dict[int, routing.Choice]:
    """Return what the experts of every block are handed in one forward."""
    found: dict[int, routing.Choice] = {}
    with ExitStack() as hooks, torch.inference_mode():
        for index, block in enumerate(architectures.decoder_blocks(model)[1]):
            if (bank := fused_experts.of_block(block)) is not None:
                hooks.enter_context(routing.observed(block, bank, keep_choice(found, index)))
        model(IDS, use_cache=False)
    return found


@pytest.mark.parametrize("name", MOE)
def test_the_lead_of_the_last_choice_is_that_of_numpy_from_the_logits(name: str) -> None:
    model = random_model(MOE[name], 0, {3: 12.0}).float().eval()
    inputs: dict[int, torch.Tensor] = {}
    blocks = architectures.decoder_blocks(model)[1]
    with ExitStack() as hooks:
        for index, block in enumerate(blocks):
            hooks.enter_context(observed([Probe("mlp_in", sites.mlp(block))], keep(inputs, index)))
        choices = choices_of(model)
    assert choices
    for index, choice in choices.items():
        matrix_EC = sites.router_matrix(blocks[index])
        x_TC = inputs[index].double().numpy()
        logits_TE = x_TC @ matrix_EC.detach().double().numpy().T + bias_of(blocks[index], matrix_EC)
        expected = leads(logits_TE, choice.experts_Tk.numpy(), correction_of(blocks[index]))
        np.testing.assert_allclose(choice.margin_T, expected, rtol=1e-3, atol=1e-5, err_msg=name)


def bias_of(block: nn.Module, matrix: torch.Tensor) -> np.ndarray | float:
    """Return what GPT-OSS adds to its logits."""
    (router,) = (module for module in block.modules() if any(p is matrix for p in module.parameters(recurse=False)))
    bias = getattr(router, "bias", None)
    return 0.0 if bias is None else bias.detach().double().numpy()


def correction_of(block: nn.Module) -> np.ndarray | None:
    """Return what DeepSeek and GLM add to the sigmoid of logits before they choose; None where logits choose."""
    found = [b for name, b in block.named_buffers() if name.endswith("e_score_correction_bias")]
    return found[0].double().numpy() if found else None


def leads(logits_TE: np.ndarray, choices_Tk: np.ndarray, correction_E: np.ndarray | None) -> np.ndarray:
    """Return the lead of the last chosen over the first unchosen expert in logits, by the slope of scores if biased."""
    is_chosen = np.zeros(logits_TE.shape, bool)
    np.put_along_axis(is_chosen, choices_Tk.astype(int), True, 1)
    sigmoid = 1 / (1 + np.exp(-logits_TE))
    plain = np.where(is_chosen, logits_TE, np.inf).min(1) - np.where(is_chosen, -np.inf, logits_TE).max(1)
    if correction_E is None or (plain >= 0).all():
        return plain
    scores = sigmoid + correction_E
    last, following = np.where(is_chosen, scores, np.inf).argmin(1), np.where(is_chosen, -np.inf, scores).argmax(1)
    rows = np.arange(len(scores))
    slopes = [(sigmoid * (1 - sigmoid))[rows, place] for place in (last, following)]
    return (scores[rows, last] - scores[rows, following]) / np.sqrt((slopes[0] ** 2 + slopes[1] ** 2) / 2)


def test_a_bias_that_decides_is_seen(tmp_path: Path) -> None:
    model = random_model(MOE["deepseek-v3"], 0, {}).float().eval()
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.tensor([0.0, 0.3, 0.0, 0.1]))
    choices = choices_of(model)
    assert all((choice.margin_T > 0).all() for choice in choices.values())
    assert all((choice.experts_Tk == 1).any(1).float().mean() > 0.8 for choice in choices.values())


def test_a_bias_on_a_softmax_is_brought_back_by_the_slope_of_the_softmax() -> None:
    fields = {"moe_num_experts": 32, "moe_k": 2, "moe_layer_start_index": 0, "moe_num_shared_experts": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("ernie4_5_moe", **COMMON | fields)).eval()
    blocks, logits = architectures.decoder_blocks(model)[1], {}
    for index, block in enumerate(blocks):
        block.mlp.gate.moe_statics.e_score_correction_bias.data.normal_(std=0.01)
        weight, read = block.mlp.gate.weight, block.mlp.gate
        read.register_forward_pre_hook(lambda _, x, i=index, w=weight: logits.update({i: x[0].reshape(-1, 32) @ w.T}))
    for index, choice in choices_of(model).items():
        correction = blocks[index].mlp.gate.moe_statics.e_score_correction_bias.detach().squeeze()
        p_TE = logits[index].softmax(-1)
        last, following = (p_TE + correction).sort(descending=True).indices[:, 1:3].T
        (a, b), rows = (p_TE.gather(1, place[:, None])[:, 0] for place in (last, following)), torch.arange(len(p_TE))
        slope = (((a * (1 - a)) ** 2 + (b * (1 - b)) ** 2) / 2).sqrt()
        expected = (a + correction[last] - b - correction[following]) / slope
        assert (logits[index][rows, last] < logits[index][rows, following]).any()  # the bias decides
        torch.testing.assert_close(choice.margin_T, expected, rtol=1e-3, atol=1e-5)


def test_routing_is_the_choice_of_the_router(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints["moe"], dtype=torch.float32).float().eval()
    block = model.model.layers[1]
    chosen: list[torch.Tensor] = []
    routed: list[routing.Choice] = []
    block.mlp.gate.register_forward_hook(lambda _m, _a, output: chosen.append(output[2]))
    bank = fused_experts.of_block(block)
    with torch.inference_mode(), routing.observed(block, bank, routed.append):
        model(torch.from_numpy(ids[:1]).long())
    assert torch.equal(routed[0].experts_Tk, chosen[0])
    assert not any("forward" in vars(module) for module in block.modules())


def test_the_distance_between_rows_of_a_router_is_that_of_all_pairs() -> None:
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    wide = matrix.double().numpy()
    pairs = [((wide[a] - wide[b]) ** 2).sum() for a in range(5) for b in range(5) if a != b]
    assert routing.router_distance(matrix).item() == pytest.approx(np.sqrt(np.mean(pairs)), rel=1e-12)
