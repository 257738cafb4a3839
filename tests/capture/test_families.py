"""Every family of the sweep runs through the same engine and probes, with nothing per architecture."""

from pathlib import Path

import pytest
import torch
from families import DENSE, FAMILIES, MOE, save_family
from families_table import Table
from forwards import run_engine, run_ordinary, whole_model
from outlier_features.config.entries import Model
from outlier_features.models import architectures, fused_experts, parameters
from outlier_features.models.weights import Weights
from outlier_features.site_names import POSITIONAL
from outlier_features.sources.fetch import fetch

CPU = torch.device("cpu")
WINDOWS, LENGTH = 2, 24


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
    assert observed.keys() == {(block, site) for block in range(len(weights.blocks)) for site in POSITIONAL}
    assert expected.keys() == observed.keys()
    for key, tensors in observed.items():
        assert [len(tensor) for tensor in tensors] == [LENGTH] * WINDOWS, key
        assert all(torch.equal(*pair) for pair in zip(tensors, expected[key], strict=True)), key
    rows = {site: sum(len(x) for x in observed[0, site]) for site in POSITIONAL}
    families_table.add(name, type(weights.model).__name__, len(weights.blocks), rows, dtype)


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
