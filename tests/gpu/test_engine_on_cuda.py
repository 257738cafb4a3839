"""On a device: logits and weights are those of from_pretrained on it, to the bit, and near those of a CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, save_family
from outlier_features.capture import engine
from outlier_features.models.weights import Weights
from passes import run_engine, run_ordinary, whole_model
from silent import Silent
from transformers import AutoConfig, AutoModelForCausalLM

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
REPEATS = 6

LARGE = {
    "vocab_size": 1024,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "pad_token_id": None,
}
EXPERTS = {"num_experts": 64, "num_local_experts": 64, "num_experts_per_tok": 4, "moe_intermediate_size": 512}
KINDS: dict[str, dict[str, Any]] = {
    "qwen3": LARGE,
    "qwen3_moe": LARGE | EXPERTS,
    "gpt_oss": LARGE | EXPERTS | {"intermediate_size": 512, "sliding_window": 64},
}
"""Large enough that the next block is still being copied while the device computes with this one."""


@pytest.fixture(scope="module", params=KINDS)
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16 whose blocks take some time to copy, one tensor an expert where it has any."""
    directory = tmp_path_factory.mktemp(request.param) / "model"
    torch.manual_seed(0)
    with CUDA:
        config = AutoConfig.for_model(request.param, **KINDS[request.param])
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("is_checked", [False, True], ids=["logits", "weights"])
def test_what_is_read_beside_a_busy_device_is_what_from_pretrained_reads(large: Path, is_checked: bool) -> None:
    """Comparing weights waits for the device, and could hide a race from the logits; so each has runs of its own."""
    draw = torch.Generator().manual_seed(0)
    windows = list(torch.randint(0, 1024, (8, 512), generator=draw))
    model = AutoModelForCausalLM.from_pretrained(large, dtype=torch.bfloat16, device_map={"": CUDA}).eval()
    with torch.inference_mode():
        expected = [model(input_ids=ids.to(CUDA)[None], use_cache=False).logits[0] for ids in windows]
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del model
    weights = Weights(large, torch.bfloat16, CUDA)
    wrong: set[str] = set()

    class Comparing(Silent):
        def begin(self, block: int, reading: object) -> None:
            for name, tensor in weights.blocks[block].state_dict(prefix=f"model.layers.{block}.").items():
                if is_checked and not torch.equal(tensor, stored[name]):
                    wrong.add(name)

    for _ in range(REPEATS):
        found = engine.run(weights, windows, lambda _, logits: logits.clone(), Comparing())
        assert not wrong
        assert [torch.equal(*pair) for pair in zip(found, expected, strict=True)] == [True] * len(windows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_logits_and_sites_of_from_pretrained_to_the_bit(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    checkpoint = save_family(FAMILIES[name], tmp_path / "model", is_pickled=False)
    windows = list(torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(3)))
    observed, logits = run_engine(Weights(checkpoint, dtype, CUDA), windows)
    expected, full_logits = run_ordinary(whole_model(checkpoint, dtype, CUDA), windows)
    assert all(torch.equal(*pair) for pair in zip(logits, full_logits, strict=True))
    assert observed.keys() == expected.keys()
    for key, tensors in observed.items():
        assert all(torch.equal(*pair) for pair in zip(tensors, expected[key], strict=True)), key


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_logits_of_a_cpu_but_for_rounding(name: str, tmp_path: Path) -> None:
    """In float32 both sum products in orders of their own: 1e-3 of the largest logit is far above that."""
    checkpoint = save_family(FAMILIES[name], tmp_path / "model", is_pickled=False)
    windows = list(torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(3)))
    _, found = run_engine(Weights(checkpoint, torch.float32, CUDA), windows)
    _, expected = run_engine(Weights(checkpoint, torch.float32, CPU), windows)
    for logits, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(logits.cpu(), reference, rtol=0, atol=1e-3 * reference.abs().max().item())
