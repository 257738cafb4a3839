"""Tensor files: the values of every matrix, expert and cache equal what hooks see in a plain forward."""

import json

import numpy as np
import pytest
import torch
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    apply_quantization_config,
)
from compressed_tensors.quantization.utils import generate_gparam
from exports import LINEAGE, SCALES, Exported
from outlier_features.capture.run import capture
from outlier_features.config.parts import parts, windows
from outlier_features.site_names import SITES
from safetensors.numpy import load_file
from small_models import BLOCKS, DENSE, LENGTH, WINDOWS, capture_settings, save_checkpoint
from transformers import AutoModelForCausalLM

MATRICES = ("act_scales", "act_scales_rest", "importance")


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_the_values_of_every_matrix_are_those_that_hooks_on_it_see(kind: str, exported, inputs, expert_inputs) -> None:
    found = {name: exported[kind].tensors(name) for name in MATRICES}
    experts = {name for name in expert_inputs if "saliency" not in name} if kind == "moe" else set()
    assert found["act_scales_rest"].keys() == inputs[kind].keys()
    assert found["act_scales"].keys() == found["importance"].keys() == {*inputs[kind], *experts}
    for name, x_STC in inputs[kind].items():
        np.testing.assert_array_equal(found["act_scales"][name], np.abs(x_STC).max((0, 1)))
        np.testing.assert_array_equal(found["act_scales_rest"][name], np.abs(x_STC[:, 1:]).max((0, 1)))
        np.testing.assert_allclose(found["importance"][name], (x_STC**2).mean((0, 1)), rtol=1e-5)
        assert {tensors[name].dtype for tensors in found.values()} == {np.dtype(np.float32)}
    for name in experts:
        rows = expert_inputs[name]
        np.testing.assert_allclose(found["act_scales"][name], np.abs(rows).max(0), rtol=1e-5)
        np.testing.assert_allclose(found["importance"][name], (rows**2).mean(0), rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_scales_of_activations_reach_the_largest_value(kind: str, exported, inputs, expert_inputs) -> None:
    found, largest = exported[kind].tensors("input_scales"), exported[kind].tensors("act_scales")
    assert found.keys() == {f"{name}.{scale}" for name in largest for scale in ("input_scale", "input_global_scale")}
    for name, x in {**inputs[kind], **(expert_inputs if kind == "moe" else {})}.items():
        if "saliency" not in name:
            np.testing.assert_allclose(found[f"{name}.input_scale"], [np.abs(x).max() / 448], rtol=1e-5)
            np.testing.assert_allclose(found[f"{name}.input_global_scale"], [448 * 6 / np.abs(x).max()], rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_scales_of_a_cache_are_those_of_what_transformers_caches(kind: str, exported, checkpoints, ids) -> None:
    found = exported[kind].tensors("kv_scales")
    names = {f"{letter}_{what}" for letter in "kv" for what in ("scale", "max_abs")}
    assert found.keys() == {f"model.layers.{block}.self_attn.{name}" for block in range(BLOCKS) for name in names}
    model = AutoModelForCausalLM.from_pretrained(checkpoints[kind], dtype=torch.float32).eval()
    with torch.inference_mode():
        caches = [model(torch.from_numpy(row).long()[None], use_cache=True).past_key_values for row in ids]
    for block in range(BLOCKS):
        for part, letter in (("keys", "k"), ("values", "v")):
            cached = torch.cat([getattr(cache.layers[block], part) for cache in caches])  # sequence, head, position
            of_heads = cached.double().abs().amax((0, 2, 3)).numpy()
            assert len(of_heads) == 2
            prefix = f"model.layers.{block}.self_attn.{letter}"
            np.testing.assert_allclose(found[f"{prefix}_max_abs"], of_heads, rtol=1e-5)
            np.testing.assert_allclose(found[f"{prefix}_scale"], [of_heads.max() / 448], rtol=1e-5)


def test_global_scales_are_those_that_compressed_tensors_computes(exported, inputs) -> None:
    found = exported["dense"].tensors("input_scales")
    for name, x_STC in inputs["dense"].items():
        x = torch.from_numpy(x_STC)
        expected = generate_gparam(x.min(), x.max())
        np.testing.assert_allclose(found[f"{name}.input_global_scale"], expected.numpy(), rtol=1e-5)


def test_compressed_tensors_runs_nvfp4_inputs_with_the_global_scales(tokens, ids, tmp_path) -> None:
    checkpoint = save_checkpoint(tmp_path / "c", DENSE | {"hidden_size": 64, "head_dim": 16, "intermediate_size": 96})
    settings = capture_settings(sites=tuple(SITES))
    capture(checkpoint, tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    scales = Exported(tmp_path, [tmp_path / "x.json"], tokens).tensors("input_scales")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        before = model(torch.from_numpy(ids[0]).long()[None]).logits
    nvfp4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "dynamic": "local"}
    inputs = QuantizationScheme(targets=["Linear"], input_activations=QuantizationArgs(**nvfp4))
    apply_quantization_config(model, QuantizationConfig(config_groups={"inputs": inputs}, ignore=["lm_head"]))
    wanted = [name for name in model.state_dict() if name.endswith("_global_scale")]
    assert len(wanted) == 7 * BLOCKS
    model.load_state_dict({name: torch.from_numpy(scales[name]) for name in wanted}, strict=False)
    with torch.inference_mode():
        after = model(torch.from_numpy(ids[0]).long()[None]).logits
    assert 10 < 10 * torch.log10(before.square().sum() / (after - before).square().sum()) < 40


def test_experts_that_were_not_kept_apart_are_absent(manifests, tokens, tmp_path) -> None:
    content = json.loads(manifests["moe"].read_text())
    content["shards"] = {name: digest for name, digest in content["shards"].items() if "experts" not in name}
    whole = tmp_path / "moe.json"
    whole.write_text(json.dumps(content))
    whole.with_suffix("").symlink_to(manifests["moe"].with_suffix(""))
    found = Exported(tmp_path, [whole], tokens)
    assert not [name for name in found.tensors("act_scales") if "experts" in name]
    assert "experts were not kept apart" in found.calibration["imatrix_note"]
    assert "mlp.experts" not in found.calibration["imatrix_note"]


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_what_was_not_captured_is_absent_and_the_metadata_say_so(kind: str, exported) -> None:
    for name in MATRICES:
        metadata = exported[kind].metadata(name)
        assert not [key for key in exported[kind].tensors(name) if "lm_head" in key]
        assert "never zeros: inner projections" in metadata["absent"]
        assert ("experts" in metadata) == (kind == "moe")
        expected = WINDOWS * (LENGTH - 1) if name == "act_scales_rest" else WINDOWS * LENGTH
        assert int(metadata["tokens"]) == expected
        assert (metadata["corpus"], metadata["dtype"]) == ("words", "float32")
        assert json.loads(metadata["provenance"])["lineage"] == LINEAGE


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_an_export_of_parts_is_that_of_one_pass(kind, checkpoints, tokens, exported, tmp_path) -> None:
    captured = []
    settings = capture_settings(sites=tuple(SITES))
    for part in parts(4):
        manifest = tmp_path / f"{kind}.{part}.json"
        share = windows(part, WINDOWS)
        capture(checkpoints[kind], tokens, manifest, settings, {"statistics": "test"}, windows=share)
        captured.append(manifest)
    found = Exported(tmp_path, captured, tokens)
    for name in SCALES:
        one_pass = exported[kind].tensors(name)
        assert found.tensors(name).keys() == one_pass.keys()
        for key, values in found.tensors(name).items():
            np.testing.assert_array_equal(values, one_pass[key])
    assert found.channels == exported[kind].channels
    assert found.calibration == exported[kind].calibration
    assert (found.folder / "imatrix.gguf").read_bytes() == (exported[kind].folder / "imatrix.gguf").read_bytes()
    for name in ("table.md", "table.tex"):
        assert found.text(name) == exported[kind].text(name)


def test_a_tensor_of_zeros_has_scales_of_one(exported) -> None:
    from outlier_features.exports.matrix_inputs import MatrixInput
    from outlier_features.exports.tensor_files import CONTENT

    zeros = MatrixInput("m", 0, "mlp_in", 3, np.zeros(4, np.float32), np.zeros(4), None)
    assert CONTENT["input_scales"].of(zeros) == {"m.input_scale": [1.0], "m.input_global_scale": [1.0]}
    assert load_file(exported["dense"].folder / "input_scales.safetensors")
