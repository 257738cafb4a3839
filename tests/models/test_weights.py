"""Weights: a checkpoint that does not fit its configuration, or is of another kind, is refused before it runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import DENSE, FAMILIES, save_family
from outlier_features.config.entries import Model
from outlier_features.errors import ArchitectureError, OutlierFeaturesError, SourceError
from outlier_features.models.weights import Weights
from outlier_features.sources import fetch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel, T5Config, T5ForConditionalGeneration

Tensors = dict[str, torch.Tensor]


def opened(checkpoint: Path) -> Weights:
    weights = Weights(checkpoint, torch.float32, torch.device("cpu"))
    for block in range(len(weights.blocks)):
        weights.read(block)
    return weights


def with_tensors(checkpoint: Path, change: Callable[[Tensors], object]) -> Path:
    """Change the tensors of a checkpoint; they go into one file."""
    tensors = {k: v for file in sorted(checkpoint.glob("*.safetensors")) for k, v in load_file(file).items()}
    for file in (*checkpoint.glob("*.safetensors"), *checkpoint.glob("*.index.json")):
        file.unlink()
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    return checkpoint


def with_config(checkpoint: Path, change: Callable[[dict], object]) -> Path:
    described = json.loads((checkpoint / "config.json").read_text())
    change(described)
    (checkpoint / "config.json").write_text(json.dumps(described))
    return checkpoint


def refusal(checkpoint: Path, kind: type[OutlierFeaturesError] = SourceError) -> str:
    with pytest.raises(kind) as raised:
        opened(checkpoint)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.layers.2.input_layernorm.weight", "model.norm.weight"]
)
def test_a_missing_tensor_is_named_before_anything_is_read(name: str, tmp_path: Path) -> None:
    checkpoint = with_tensors(save_family(DENSE["llama"], tmp_path / "m"), lambda tensors: tensors.pop(name))
    with pytest.raises(SourceError, match=f"the checkpoint lacks {name}, which LlamaForCausalLM .*needs"):
        Weights(checkpoint, torch.float32, torch.device("cpu"))


def test_an_unexpected_tensor_is_named_and_others_counted(tmp_path: Path) -> None:
    extra = {f"model.layers.{block}.self_attn.q_proj.bias": torch.zeros(32) for block in range(3)}
    checkpoint = with_tensors(save_family(DENSE["llama"], tmp_path / "m"), lambda tensors: tensors.update(extra))
    said = refusal(checkpoint)
    assert "has model.layers.0.self_attn.q_proj.bias and 2 more" in said
    assert "does not know" in said


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    checkpoint = with_tensors(
        save_family(DENSE["llama"], tmp_path / "m"), lambda tensors: tensors.update({name: torch.zeros(3, 3)})
    )
    assert f"do not fit the model that config.json describes: {name} is (3, 3), not (64, 32)" in refusal(checkpoint)


def test_a_missing_expert_is_refused(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    checkpoint = with_tensors(save_family(FAMILIES["olmoe"], tmp_path / "m"), lambda tensors: tensors.pop(name))
    said = refusal(checkpoint)
    assert "model.layers.1.mlp.experts.gate_up_proj" in said
    assert "site-packages" not in said


def test_blocks_for_several_tokens_are_passed_over_only_where_the_configuration_has_them(tmp_path: Path) -> None:
    checkpoint = save_family(FAMILIES["glm4-moe"], tmp_path / "m")
    opened(checkpoint)
    with_config(checkpoint, lambda config: config.update(num_nextn_predict_layers=0))
    assert "has model.layers.3." in refusal(checkpoint)


def test_mxfp4_without_its_name_is_refused(tmp_path: Path) -> None:
    checkpoint = save_family(FAMILIES["gpt-oss"], tmp_path / "m")
    with_config(checkpoint, lambda config: config["quantization_config"].pop("quant_method"))
    assert "quantised (none)" in refusal(checkpoint)


def test_mxfp4_blocks_without_any_quantization_config_are_refused(tmp_path: Path) -> None:
    checkpoint = save_family(FAMILIES["gpt-oss"], tmp_path / "m")
    with_config(checkpoint, lambda config: config.pop("quantization_config"))
    assert "config.json lacks the quantization_config of an MXFP4 checkpoint" in refusal(checkpoint)


def test_mxfp4_blocks_without_scales_are_refused(tmp_path: Path) -> None:
    checkpoint = save_family(FAMILIES["gpt-oss"], tmp_path / "m")
    with_tensors(checkpoint, lambda tensors: tensors.pop("model.layers.2.mlp.experts.down_proj_scales"))
    assert "model.layers.2.mlp.experts.down_proj_scales" in refusal(checkpoint)


def test_an_eight_bit_matrix_without_its_scale_is_refused(tmp_path: Path) -> None:
    checkpoint = save_family(FAMILIES["deepseek-v3"], tmp_path / "m")
    name = "model.layers.1.self_attn.o_proj.weight_scale_inv"
    with_tensors(checkpoint, lambda tensors: tensors.pop(name))
    assert f"lacks {name}" in refusal(checkpoint)


def test_another_quantisation_is_refused_by_name_before_its_weights_are_taken(tmp_path: Path) -> None:
    checkpoint = save_family(DENSE["llama"], tmp_path / "m")
    with_config(checkpoint, lambda config: config.update(quantization_config={"quant_method": "gptq", "bits": 4}))
    with pytest.raises(SourceError, match=r"quantised \(gptq\); .*only mxfp4 and fp8"):
        fetch.fetch(Model(path=str(checkpoint)), tmp_path / "fetched", {"checkpoint": "test"})
    assert not (tmp_path / "fetched").exists()


SMALL_BERT = BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SMALL_T5 = T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=2)


@pytest.mark.parametrize(
    "model",
    [BertForMaskedLM(SMALL_BERT), BertLMHeadModel(SMALL_BERT), T5ForConditionalGeneration(SMALL_T5)],
    ids=["encoder", "encoder-with-head", "encoder-decoder"],
)
def test_what_is_no_decoder_is_refused_by_name(model: torch.nn.Module, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    said = refusal(tmp_path / "m", ArchitectureError)
    assert type(model).__name__ in said
    assert "no decoder-only language model" in said


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    checkpoint = save_family(DENSE["llama"], tmp_path / "m")
    with_config(checkpoint, lambda config: config.update(architectures=["LlamaModel"]))
    assert "LlamaModel is no decoder-only language model with a head" in refusal(checkpoint, ArchitectureError)


def test_an_unknown_architecture_asks_for_a_newer_transformers(tmp_path: Path) -> None:
    checkpoint = save_family(DENSE["llama"], tmp_path / "m")
    with_config(checkpoint, lambda config: config.update(model_type="of_next_year", architectures=["NextForCausalLM"]))
    assert "newer architectures need a newer one" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "config.json is no JSON"),
        ("{", "config.json is no JSON"),
        ("[]", "config.json is no JSON object"),
        ("{}", "config.json has no model_type"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused(content: str, words: str, tmp_path: Path) -> None:
    checkpoint = save_family(DENSE["llama"], tmp_path / "m")
    (checkpoint / "config.json").write_text(content)
    assert words in refusal(checkpoint)
