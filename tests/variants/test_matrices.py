"""Matrices of every family: which there are, what they read, and which are left alone."""

from pathlib import Path

import pytest
import torch
from families import FAMILIES, VOCABULARY, save_family
from varied_models import ids_of, varied

IDS = ids_of(2, VOCABULARY)
LLAMA = {
    "attn_in": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "out_proj_in": ["self_attn.o_proj"],
    "mlp_in": ["mlp.gate_proj", "mlp.up_proj"],
    "down_in": ["mlp.down_proj"],
}
ROUTED = {"mlp_in": ["mlp.experts.gate_up_proj"], "down_in": ["mlp.experts.down_proj"]}
SHARED = {
    "mlp_in": ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.experts.gate_up_proj"],
    "shared_down_in": ["mlp.shared_experts.down_proj"],
    "down_in": ["mlp.experts.down_proj"],
}
WANTED: dict[str, dict[str, list[str]]] = {
    "llama": LLAMA,
    "gpt2": {
        "attn_in": ["attn.c_attn"],
        "out_proj_in": ["attn.c_proj"],
        "mlp_in": ["mlp.c_fc"],
        "down_in": ["mlp.c_proj"],
    },
    "gptj": {
        "attn_in": ["attn.k_proj", "attn.v_proj", "attn.q_proj", "mlp.fc_in"],
        "out_proj_in": ["attn.out_proj"],
        "down_in": ["mlp.fc_out"],
    },
    "olmoe": {name: LLAMA[name] for name in ("attn_in", "out_proj_in")} | ROUTED,
    "gpt-oss": {name: LLAMA[name] for name in ("attn_in", "out_proj_in")} | ROUTED,
    "glm4-moe": {name: LLAMA[name] for name in ("attn_in", "out_proj_in")} | SHARED,
}


@pytest.mark.parametrize("name", WANTED)
def test_the_matrices_of_the_last_block_and_what_they_read(tmp_path: Path, name: str) -> None:
    folder = save_family(FAMILIES[name], tmp_path / "model", is_pickled=False)
    found = varied(folder, tmp_path / "out", {"v": {"format": "absmax"}}, ids=IDS, dtype=torch.float32)
    last = max(row["block"] for row in found.sqnr)
    sites: dict[str, set[str]] = {}
    for row in found.rows(block=last, expert=None):
        sites.setdefault(row["site"], set()).add(row["matrix"].partition(f".{last}.")[2])
    wanted = {site: set(names) for site, names in WANTED[name].items()}
    if name == "gptj":  # one norm: attention and MLP read the same tensor
        merged = sites.pop("attn_in", set()) | sites.pop("mlp_in", set())
        assert merged == wanted.pop("attn_in")
    assert sites == wanted


def test_the_inner_matrices_of_latent_attention_are_quantised_each_by_what_it_reads(tmp_path: Path) -> None:
    folder = save_family(FAMILIES["deepseek-v3"], tmp_path / "model", is_pickled=False)
    found = varied(folder, tmp_path / "out", {"v": {"format": "absmax"}}, ids=IDS)
    inner = {row["matrix"].rpartition(".")[2] for row in found.rows(site="inner")}
    assert inner == {"q_b_proj", "kv_b_proj"}
