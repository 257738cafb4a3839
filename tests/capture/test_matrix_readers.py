"""Matrix readers: the matrices that read a site's tensor are named, and looking for them changes nothing."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from families import FAMILIES, random_model, save_family
from outlier_features.capture.hooks import observed
from outlier_features.capture.matrix_readers import MatrixReaders
from outlier_features.capture.run import capture
from outlier_features.models import architectures, sites
from outlier_features.models.checkpoints import seal
from outlier_features.models.weights import Weights
from outlier_features.site_names import SITES
from safetensors.torch import load_file
from small_models import BLOCKS, capture_settings
from torch import nn

QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
DENSE_MLP = ["mlp.gate_proj", "mlp.up_proj"]
ATTENTION = {"attn_in": QKV, "out_proj_in": ["self_attn.o_proj"]}
LLAMA = ATTENTION | {"mlp_in": DENSE_MLP, "down_in": ["mlp.down_proj"]}
ROUTED = ATTENTION | {"mlp_in": ["mlp.gate", "mlp.experts"]}
OPT = {
    "attn_in": ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"],
    "out_proj_in": ["self_attn.out_proj"],
    "mlp_in": ["fc1"],
    "down_in": ["fc2"],
}
PARALLEL = ["attn.k_proj", "attn.v_proj", "attn.q_proj", "mlp.fc_in"]
SHARED_EXPERT = ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert_gate"]
QWEN3_NEXT = {
    "mlp_in": ["mlp.gate", "mlp.experts", *SHARED_EXPERT],
    "shared_down_in": ["mlp.shared_expert.down_proj"],
}
LINEAR = {"attn_in": ["linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"], "out_proj_in": ["linear_attn.out_proj"]}
WITH_SHARED = ["mlp.experts", "mlp.gate", "mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"]
SHARED = {"mlp_in": WITH_SHARED, "shared_down_in": ["mlp.shared_experts.down_proj"]}
LATENT = {"attn_in": ["self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"], "out_proj_in": ["self_attn.o_proj"]}
EXPECTED = {
    "llama": [LLAMA] * 3,
    "smollm2": [LLAMA] * 3,
    "smollm3": [LLAMA] * 4,
    "qwen3": [LLAMA] * 3,
    "gemma3": [LLAMA] * 4,
    "gemma3-vision": [LLAMA] * 3,
    "olmo2": [LLAMA] * 3,
    "pythia": [
        {
            "attn_in": ["attention.query_key_value"],
            "out_proj_in": ["attention.dense"],
            "mlp_in": ["mlp.dense_h_to_4h"],
            "down_in": ["mlp.dense_4h_to_h"],
        }
    ]
    * 3,
    "opt-350m": [OPT] * 3,
    "opt": [OPT] * 3,
    "gpt2": [
        {
            "attn_in": ["attn.c_attn"],
            "out_proj_in": ["attn.c_proj"],
            "mlp_in": ["mlp.c_fc"],
            "down_in": ["mlp.c_proj"],
        }
    ]
    * 3,
    "gptj": [{"attn_in": PARALLEL, "out_proj_in": ["attn.out_proj"], "mlp_in": PARALLEL, "down_in": ["mlp.fc_out"]}]
    * 3,  # one tensor for both
    "olmoe": [ROUTED] * 3,
    "mixtral": [ROUTED] * 3,
    "qwen3-moe": [ROUTED, LLAMA, ROUTED],
    "gpt-oss": [ATTENTION | {"mlp_in": ["mlp.router", "mlp.experts"]}] * 4,
    "qwen3-next": [QWEN3_NEXT | LINEAR] * 3 + [ATTENTION | QWEN3_NEXT],
    "glm4-moe": [LLAMA] + [ATTENTION | SHARED] * 2,
    "deepseek-v3": [LLAMA | LATENT] + [LATENT | SHARED] * 2,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_matrices_that_read_each_site_are_named(name: str) -> None:
    model = random_model(FAMILIES[name], 0, {}).float()
    _, blocks = architectures.decoder_blocks(model)
    ids = torch.arange(7)[None]
    found = [MatrixReaders(block) for block in blocks]
    with torch.inference_mode():
        plain = model(input_ids=ids, use_cache=False).logits
        with ExitStack() as hooks:
            for block, consumers in zip(blocks, found, strict=True):
                hooks.enter_context(observed(sites.probes(block, SITES), consumers.saw))
                hooks.enter_context(consumers.watched())
            assert torch.equal(model(input_ids=ids, use_cache=False).logits, plain)
    assert [in_any_order(consumers.names()) for consumers in found] == [in_any_order(e) for e in EXPECTED[name]]
    assert not any(module._forward_pre_hooks for module in model.modules())


def in_any_order(names: dict) -> dict[str, list[str]]:
    """Routers come before or behind their experts, by family."""
    return {site: sorted(found) for site, found in names.items()}


def test_a_matrix_that_reads_a_copy_or_other_rows_is_no_consumer() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same, self.view, self.copy, self.rows = (nn.Linear(4, 4) for _ in range(4))
            self.norm = nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> None:
            self.same(x), self.view(x.reshape(-1, 4)), self.copy(x.clone()), self.rows(x[:, 1:]), self.norm(x)

    block, x = Block(), torch.randn(1, 5, 4)
    consumers = MatrixReaders(block)
    consumers.saw("mlp_in", x[0])
    with consumers.watched():
        block(x)
    assert consumers.names() == {"mlp_in": ["same", "view"]}


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_a_manifest_names_the_consumers_of_every_tensor(kind: str, manifests: dict[str, Path]) -> None:
    found = json.loads(manifests[kind].read_text())["facts"]["consumers"]
    dense = range(BLOCKS) if kind == "dense" else [0]
    for block in range(BLOCKS):
        prefix = f"model.layers.{block}"
        attention = [f"{prefix}.self_attn.{name}_proj" for name in "qkv"]
        mlp = DENSE_MLP if block in dense else ["mlp.experts", "mlp.gate"]
        assert found.pop(f"{block}.attn_in") == attention
        assert found.pop(f"{block}.out_proj_in") == [f"{prefix}.self_attn.o_proj"]
        assert found.pop(f"{block}.mlp_in") == [f"{prefix}.{name}" for name in mlp]
    assert found == {}


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.is_pickled])
def test_matrices_are_called_what_the_checkpoint_calls_them(name: str, tmp_path: Path) -> None:
    weights = Weights(save_family(FAMILIES[name], tmp_path / "m"), torch.float32, torch.device("cpu"))
    keys = [key for file in (tmp_path / "m").glob("*.safetensors") for key in load_file(file)]
    for index, of_site in enumerate(EXPECTED[name]):
        for module in {module for modules in of_site.values() for module in modules}:
            own = weights.stored_name(index, module).partition(f".{index}.")[2]
            assert any(f".{index}.{own}." in f".{key}" for key in keys), own
            if name != "mixtral":
                assert own == module


def test_mixtral_is_exported_under_the_names_of_its_checkpoint(tmp_path: Path, tokens: Path) -> None:
    checkpoint = save_family(FAMILIES["mixtral"], tmp_path / "m")
    seal(checkpoint, {"path": "m"}, {"checkpoint": "test"})
    capture(checkpoint, tokens, tmp_path / "m.json", capture_settings(), {"statistics": "test"})
    found = json.loads((tmp_path / "m.json").read_text())["facts"]["consumers"]
    moe = "model.layers.1.block_sparse_moe"
    assert sorted(found["1.mlp_in"]) == [f"{moe}.experts", f"{moe}.gate"]
    assert found["1.attn_in"] == [f"model.layers.1.{name}" for name in QKV]
