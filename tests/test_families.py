"""Every family of the sweep runs through the same engine and probes, with nothing per architecture."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from conftest import Table
from families import DENSE, FAMILIES, MOE, save_family
from number_formats import plain
from outlier_features.capture import engine
from outlier_features.capture.hooks import observed
from outlier_features.config.entries import Model
from outlier_features.models import architectures, fused_experts, parameters, sites
from outlier_features.models.weights import Weights
from outlier_features.site_names import SITES
from outlier_features.sources.fetch import fetch
from test_engine import Silent
from torch import nn
from transformers import PreTrainedModel

CPU = torch.device("cpu")
WINDOWS, LENGTH = 2, 24
READERS: dict[str, tuple[str, ...]] = {
    "attn_in": (
        "self_attn.q_proj",
        "self_attn.q_a_proj",
        "linear_attn.in_proj_qkvz",
        "attention.query_key_value",
        "attn.c_attn",
        "attn.q_proj",
    ),
    "out_proj_in": (
        "self_attn.o_proj",
        "linear_attn.out_proj",
        "self_attn.out_proj",
        "attention.dense",
        "attn.c_proj",
        "attn.out_proj",
    ),
    "mlp_in": ("mlp.gate", "mlp.router", "mlp.gate_proj", "mlp.dense_h_to_4h", "mlp.c_fc", "mlp.fc_in", "fc1"),
}
"""The matrices that read each site, by the names the architectures give them; the library knows none of these."""

Seen = dict[tuple[int, str], list[torch.Tensor]]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a family, and its tiny checkpoint as fetched."""
    root = tmp_path_factory.mktemp(request.param)
    original = save_family(FAMILIES[request.param], root / "original")
    fetch(Model(path=str(original)), root / "fetched", {"checkpoint": "test"})
    return request.param, root / "fetched"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_logits_and_sites_are_those_of_the_ordinary_forward_to_the_bit(
    family: tuple[str, Path], dtype: torch.dtype, families_table: Table
) -> None:
    name, checkpoint = family
    windows = list(torch.randint(0, 300, (WINDOWS, LENGTH), generator=torch.Generator().manual_seed(3)))
    weights = Weights(checkpoint, dtype, CPU)
    observed, logits = run_engine(weights, windows)
    expected, full_logits = run_ordinary(whole_model(checkpoint, dtype), windows)

    assert all(torch.equal(*pair) for pair in zip(logits, full_logits, strict=True))
    assert observed.keys() == {(block, site) for block in range(len(weights.blocks)) for site in SITES}
    assert expected.keys() == observed.keys()
    for key, tensors in observed.items():
        assert [len(tensor) for tensor in tensors] == [LENGTH] * WINDOWS, key
        assert all(torch.equal(*pair) for pair in zip(tensors, expected[key], strict=True)), key
    rows = {site: sum(len(x) for x in observed[0, site]) for site in SITES}
    families_table.add(name, type(weights.model).__name__, len(weights.blocks), rows, dtype)


def run_engine(weights: Weights, windows: list[torch.Tensor]) -> tuple[Seen, list[torch.Tensor]]:
    """Return what the probes see, and the logits, when the engine runs block by block."""
    seen: Seen = defaultdict(list)
    with ExitStack() as hooks:
        for index, block in enumerate(weights.blocks):
            hooks.enter_context(observed(sites.probes(block, SITES), keep(seen, index)))
        logits = engine.run(weights, windows, lambda _, logits: logits.clone(), Silent())
    return seen, logits


def keep(seen: Seen, block: int) -> Callable[[str, torch.Tensor], None]:
    return lambda site, x: seen[block, site].append(x.clone())


@torch.inference_mode()
def run_ordinary(full: PreTrainedModel, windows: list[torch.Tensor]) -> tuple[Seen, list[torch.Tensor]]:
    """Return the same from an ordinary forward, the sites read at the matrices that `READERS` names.

    The output of a block is what the next block, or the norm at the end, receives.
    """
    _, blocks = architectures.decoder_blocks(full)
    seen: Seen = defaultdict(list)
    with ExitStack() as hooks:
        for index, block in enumerate(blocks):
            for site, names in READERS.items():
                hooks.callback(spy(first_of(block, names), seen, (index, site)).remove)
            hooks.callback(block.register_forward_hook(returned(seen, (index, "residual"))).remove)
        logits = [full(input_ids=window[None].to(full.device), use_cache=False).logits[0] for window in windows]
    return seen, logits


def whole_model(checkpoint: Path, dtype: torch.dtype, device: torch.device = CPU) -> PreTrainedModel:
    """Return the model as transformers loads it from the tensors that the checkpoint stands for."""
    config = architectures.read(checkpoint)
    automatic = architectures.automatic(config)
    return automatic.from_pretrained(plain(checkpoint), dtype=dtype, device_map={"": device}).eval()


def first_of(block: nn.Module, names: tuple[str, ...]) -> nn.Module:
    modules = dict(block.named_modules())
    return next(modules[name] for name in names if name in modules)


def spy(module: nn.Module, seen: Seen, key: tuple[int, str]):
    def before(_module: nn.Module, args: tuple) -> None:
        seen[key].append(args[0].reshape(-1, args[0].shape[-1]).clone())

    return module.register_forward_pre_hook(before)


def returned(seen: Seen, key: tuple[int, str]) -> Callable:
    def after(_module: nn.Module, _args: tuple, output: object) -> None:
        x = output if isinstance(output, torch.Tensor) else output[0]
        seen[key].append(x.reshape(-1, x.shape[-1]).clone())

    return after


def test_every_kind_of_block_of_a_mixture_of_experts_shows_its_routing(family: tuple[str, Path]) -> None:
    name, checkpoint = family
    model = architectures.skeleton(architectures.read(checkpoint))
    _, blocks = architectures.decoder_blocks(model)
    routed = [index for index, block in enumerate(blocks) if fused_experts.of_block(block) is not None]
    dense = {"qwen3-moe": [1], "glm4-moe": [0], "deepseek-v3": [0]}.get(name, [])
    assert routed == ([index for index in range(len(blocks)) if index not in dense] if name in MOE else [])
    counts = parameters.count(model)
    assert (counts.kind, counts.experts, counts.top_k) == (("moe", 4, 2) if name in MOE else ("dense", None, None))


def test_active_parameters_are_those_one_token_touches(family: tuple[str, Path]) -> None:
    name, checkpoint = family
    if name not in MOE:
        pytest.skip("every token of a dense model passes all of it")
    counts = parameters.count(architectures.skeleton(architectures.read(checkpoint)))
    full = whole_model(checkpoint, torch.float32)
    full(input_ids=torch.tensor([[5]]), use_cache=False).logits.sum().backward()
    banks = [bank for bank in map(fused_experts.of_block, architectures.decoder_blocks(full)[1]) if bank is not None]
    experts = [parameter for bank in banks for parameter in bank.parameters(recurse=False)]
    idle = sum(int((p.grad.flatten(1) == 0).all(1).sum()) * p[0].numel() for p in experts)
    assert counts.total_params - counts.active_params == idle


def test_only_the_text_of_a_vision_language_model_is_read(tmp_path: Path) -> None:
    checkpoint = save_family(DENSE["gemma3-vision"], tmp_path / "model")
    weights = Weights(checkpoint, torch.float32, torch.device("cpu"))
    assert weights.left_out == ("model.vision_tower.", "model.multi_modal_projector.")
    assert len(weights.blocks) == 3  # the vision tower has five
    assert all(parameter.is_meta for parameter in weights.model.model.vision_tower.parameters())
