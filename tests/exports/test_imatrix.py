"""Imatrix: sums of squares and counts as gguf reads them back, against hooks, under the names of llama.cpp."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from exports import Exported
from families import FAMILIES, save_family
from outlier_features.capture.run import capture
from outlier_features.config.entries import Model
from outlier_features.errors import ArchitectureError
from outlier_features.exports.imatrix import Imatrix, architecture
from outlier_features.exports.matrix_inputs import MatrixInput, MatrixInputs
from outlier_features.site_names import SITES
from outlier_features.sources.fetch import fetch
from outlier_features.statistics.shards import Statistics
from small_models import BLOCKS, HIDDEN, LENGTH, WINDOWS, capture_settings, write_windows

THEIRS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}
OF_EXPERTS = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}

DENSE_OF_MIXTURE = [f"model.layers.1.mlp.{matrix}_proj" for matrix in ("gate", "up", "down")]
LEFT_OUT = {
    "qwen3-moe": [f"gguf has no name for {', '.join(DENSE_OF_MIXTURE)}"],
    "deepseek-v3": [
        "what a low-rank attention hands to its inner matrices is not captured: attn_kv_b, attn_k_b, attn_v_b, attn_q_b"
    ],
}


def read(found: Exported) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.data for tensor in gguf.GGUFReader(found.folder / "imatrix.gguf").tensors}


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_sums_of_squares_of_every_matrix_are_those_of_hooks(kind: str, exported, inputs) -> None:
    found = read(exported[kind])
    # llama.cpp's Qwen3 mixture has no dense block, as block 0 of that model
    named = {n: x for n, x in inputs[kind].items() if kind == "dense" or not n.startswith("model.layers.0.mlp")}
    for name, x_STC in named.items():
        _, _, block, *rest = name.split(".")
        theirs = f"blk.{block}.{THEIRS['.'.join(rest)]}.weight"
        np.testing.assert_allclose(found[f"{theirs}.in_sum2"], (x_STC**2).sum((0, 1)), rtol=1e-5)
        assert found[f"{theirs}.counts"].tolist() == [WINDOWS * LENGTH]
    assert len(found) == 2 * (len(named) + (3 * (BLOCKS - 1) if kind == "moe" else 0))
    assert found["blk.0.attn_q.weight.in_sum2"].shape == (HIDDEN,)


def test_experts_are_rows_with_counts_of_their_own(exported, expert_inputs) -> None:
    found = read(exported["moe"])
    for block in (1, 2):
        for part, theirs in OF_EXPERTS.items():
            sums, counts = (found[f"blk.{block}.{theirs}.weight.{what}"] for what in ("in_sum2", "counts"))
            for expert in range(6):
                rows = expert_inputs[f"model.layers.{block}.mlp.experts.{expert}.{part}"]
                assert counts[expert, 0] == len(rows)
                np.testing.assert_allclose(sums[expert], (rows**2).sum(0), rtol=1e-5)


def test_the_file_says_what_it_is_and_of_what_text(exported) -> None:
    fields = gguf.GGUFReader(exported["dense"].folder / "imatrix.gguf").fields
    assert fields["general.type"].contents() == "imatrix"
    assert fields["imatrix.datasets"].contents() == ["words"]
    assert (fields["imatrix.chunk_count"].contents(), fields["imatrix.chunk_size"].contents()) == (WINDOWS, LENGTH)


@pytest.mark.parametrize(
    ("model_type", "theirs"),
    [
        ("llama", "llama"),
        ("mixtral", "llama"),
        ("qwen3", "qwen3"),
        ("qwen3_moe", "qwen3moe"),
        ("qwen3_next", "qwen3next"),
        ("gpt_oss", "gpt-oss"),
        ("gpt_neox", "gptneox"),
        ("gemma3_text", "gemma3"),
        ("glm4_moe", "glm4moe"),
        ("deepseek_v3", "deepseek2"),
        ("olmoe", "olmoe"),
        ("smollm3", "smollm3"),
        ("olmo3", "olmo2"),
        ("gpt_bigcode", "starcoder"),
    ],
)
def test_architectures_have_the_name_of_gguf(model_type: str, theirs: str) -> None:
    assert gguf.MODEL_ARCH_NAMES[architecture(model_type)] == theirs


def test_an_architecture_without_names_is_one_line() -> None:
    with pytest.raises(ArchitectureError, match="gguf has no names for tensors of the architecture opt, so no imatrix"):
        architecture("opt")


def written(model_type: str, names: list[str], path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return what is written of matrices of one block that all read ones, and what is said of those left out."""
    imatrix = Imatrix(model_type, 2)
    imatrix.add([MatrixInput(name, 1, "attn_in", 5, np.ones(4), np.full(4, 5.0), None) for name in names], None)
    if not imatrix.is_empty:
        imatrix.write(path, {"corpus": "words", "sequences": 1, "length": 5})
    found = {} if imatrix.is_empty else {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    return {name: values for name, values in found.items() if name.endswith("in_sum2")}, imatrix.left_out


@pytest.mark.parametrize("prefix", ["model.layers", "model.language_model.layers", "language_model.model.layers"])
def test_the_text_part_of_a_model_for_images_has_the_names_of_text(prefix: str, tmp_path: Path) -> None:
    found, left_out = written("gemma3_text", [f"{prefix}.1.mlp.down_proj"], tmp_path / "x.gguf")
    assert (list(found), left_out) == (["blk.1.ffn_down.weight.in_sum2"], [])


def test_a_matrix_that_conversion_cuts_has_an_entry_for_each_piece(tmp_path: Path) -> None:
    found, _ = written("qwen3_next", ["model.layers.1.linear_attn.in_proj_qkvz"], tmp_path / "x.gguf")
    assert sorted(found) == [f"blk.1.{kind}.weight.in_sum2" for kind in ("attn_gate", "attn_qkv", "ssm_in")]
    assert all(values.tolist() == [5.0] * 4 for values in found.values())


def test_channels_that_conversion_reorders_are_left_out_and_named(tmp_path: Path) -> None:
    name = "model.layers.1.linear_attn.out_proj"
    found, left_out = written("qwen3_5_text", [name], tmp_path / "x.gguf")
    assert (found, left_out) == ({}, [f"llama.cpp reorders the input channels of {name}"])
    found, left_out = written("qwen3_next", [name], tmp_path / "x.gguf")
    assert (list(found), left_out) == (["blk.1.ssm_out.weight.in_sum2"], [])


def test_inner_matrices_of_a_low_rank_attention_are_named_as_left_out(tmp_path: Path) -> None:
    names = [f"model.layers.1.self_attn.{matrix}" for matrix in ("q_a_proj", "kv_a_proj_with_mqa", "strange")]
    found, left_out = written("deepseek_v3", names, tmp_path / "x.gguf")
    assert sorted(found) == [f"blk.1.{kind}.weight.in_sum2" for kind in ("attn_kv_a_mqa", "attn_q_a")]
    assert left_out[0] == "gguf has no name for model.layers.1.self_attn.strange"
    assert left_out[1].endswith("is not captured: attn_kv_b, attn_k_b, attn_v_b, attn_q_b")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_matrix_of_a_family_has_an_entry_or_is_named(name: str, tmp_path: Path) -> None:
    save_family(FAMILIES[name], tmp_path / "original")
    fetch(Model(path=str(tmp_path / "original")), tmp_path / "checkpoint", {"checkpoint": "a"})
    tokens = write_windows(tmp_path / "tokens.arrow", np.random.default_rng(0).integers(300, size=(3, 32)))
    manifest = tmp_path / "statistics.json"
    settings = capture_settings(sites=tuple(SITES))
    capture(tmp_path / "checkpoint", tokens, manifest, settings, {"statistics": "a"})
    statistics = Statistics([manifest])
    if FAMILIES[name].model_type == "opt":
        with pytest.raises(ArchitectureError):
            Imatrix(statistics.facts["model_type"], statistics.blocks)
        return
    imatrix = Imatrix(statistics.facts["model_type"], statistics.blocks)
    matrices = []
    for block in range(statistics.blocks):
        matrices += MatrixInputs(statistics, manifest).of_block(block, statistics.block(block))
    imatrix.add(matrices, 4)
    imatrix.write(tmp_path / "imatrix.gguf", {"corpus": "words", "sequences": 3, "length": 32})
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "imatrix.gguf").tensors}
    assert imatrix.left_out == LEFT_OUT.get(name, [])
    of_experts = {(each.fused, each.part) for each in matrices if each.fused}
    entries = len(of_experts) + len({each.name for each in matrices if each.fused is None})
    further = 2 * 3 if name == "qwen3-next" else -3 if name == "qwen3-moe" else 0
    assert len(found) == 2 * (entries + further)
    for block in range(statistics.blocks):
        kinds = [f"blk.{block}.{kind}.weight.in_sum2" for kind in ("ffn_down", "ffn_down_exps")]
        assert len([kind for kind in kinds if kind in found]) == (0 if (name, block) == ("qwen3-moe", 1) else 1)
