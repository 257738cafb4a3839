"""Failures: an error in the code of a model is one line with what to try."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from observers import logits_of
from outlier_features.capture import expert_outputs
from outlier_features.capture.run import capture
from outlier_features.errors import ForwardFailed
from outlier_features.models import fused_experts
from outlier_features.models.weights import Weights
from small_models import capture_settings
from torch import nn

CPU = torch.device("cpu")


def failure(weights: Weights, ids: np.ndarray) -> str:
    with pytest.raises(ForwardFailed) as raised:
        logits_of(weights, ids[:1])
    assert len(str(raised.value).splitlines()) == 1
    assert raised.value.__cause__ is not None
    return str(raised.value)


def test_a_way_that_cannot_run_is_told_with_one_that_can(narrow: Path, ids: np.ndarray) -> None:
    weights = Weights(narrow, torch.bfloat16, CPU, experts_implementation="grouped_mm")
    assert failure(weights, ids) == (
        "narrow: the model's own code failed in block 1: Qwen3MoeExperts raised RuntimeError (strides should be "
        "multiple of 16 bytes). Set experts_implementation: eager in the model's entry."
    )


def test_it_is_told_so_under_the_probes_of_a_capture(narrow: Path, tokens: Path, tmp_path: Path) -> None:
    settings = capture_settings(torch.bfloat16, experts_implementation="grouped_mm")
    with pytest.raises(ForwardFailed, match=r"narrow: .* in block 1: Qwen3MoeExperts raised RuntimeError"):
        capture(narrow, tokens, tmp_path / "x.json", settings, {"statistics": "test"}, device=CPU)
    assert not (tmp_path / "x.json").exists()


def test_an_error_in_a_dense_block_names_block_module_and_another_precision(
    checkpoints: dict[str, Path], ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x], -1)

    weights = Weights(checkpoints["dense"], torch.bfloat16, CPU)
    monkeypatch.setattr(weights.blocks[2].mlp, "act_fn", Doubling())
    said = failure(weights, ids)
    assert "dense: the model's own code failed in block 2: Qwen3MLP raised RuntimeError (" in said
    assert said.endswith(
        "). Try float32 as dtype of the model's entry; if that fails too, Qwen3ForCausalLM of transformers "
        f"{transformers.__version__} cannot run here."
    )


def test_an_error_outside_the_blocks_says_so(checkpoints, ids: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights(checkpoints["dense"], torch.float32, CPU)
    norm = weights.model.model.norm
    monkeypatch.setattr(norm, "weight", nn.Parameter(torch.ones(3)))
    said = failure(weights, ids)
    assert "failed outside its decoder blocks: Qwen3RMSNorm raised RuntimeError" in said
    assert "Try bfloat16 as dtype" in said


def test_an_error_of_what_watches_is_not_called_the_models(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    weights = Weights(checkpoints["moe"], torch.float32, CPU)
    bank = fused_experts.of_block(weights.blocks[1])
    with pytest.MonkeyPatch.context() as patch, expert_outputs.observed(bank, lambda *_: None):
        patch.setattr(expert_outputs._Products, "_share", lambda *_: {}["of this package"])
        with pytest.raises(KeyError, match="of this package"):
            logits_of(weights, ids[:1])
