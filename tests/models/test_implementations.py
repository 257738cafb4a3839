"""Experts run in the fastest way that can, or as asked for; what fails in a model's code is told in one line."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from conftest import MOE, capture_settings, save_checkpoint
from outlier_features.artefacts.lineage import Lineages
from outlier_features.capture import engine, expert_outputs
from outlier_features.capture.run import capture
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError, ForwardFailed
from outlier_features.models import fused_experts
from outlier_features.models.weights import Weights
from silent import Silent, windows_of
from torch import nn
from transformers import AutoModelForCausalLM

CPU, PROJECT = torch.device("cpu"), Path(__file__).parents[2]
NARROW = MOE | {"moe_intermediate_size": 20}
"""In bfloat16 a row of 20 has 40 bytes, no multiple of the 16 that grouped products want."""


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "narrow", NARROW)


def run(weights: Weights, ids: np.ndarray) -> list[torch.Tensor]:
    return engine.run(weights, windows_of(ids), lambda _, logits: logits.clone(), Silent())


def test_experts_that_cannot_be_grouped_run_one_after_the_other(narrow: Path, ids: np.ndarray) -> None:
    weights = Weights(narrow, torch.bfloat16, CPU)
    assert weights.experts_note == (
        "experts run one after the other (eager): torch has no grouped products of their widths in bfloat16"
    )
    model = AutoModelForCausalLM.from_pretrained(narrow, dtype=torch.bfloat16, experts_implementation="eager").eval()
    with torch.inference_mode():
        for found, window in zip(run(weights, ids), windows_of(ids), strict=True):
            assert torch.equal(found, model(input_ids=window[None], use_cache=False).logits[0])


@pytest.mark.parametrize(("kind", "dtype"), [("narrow", torch.float32), ("moe", torch.bfloat16)])
def test_others_keep_the_way_of_transformers(kind: str, dtype: Any, narrow: Path, checkpoints: dict[str, Path]) -> None:
    weights = Weights((checkpoints | {"narrow": narrow})[kind], dtype, CPU)
    assert weights.experts_note is None
    assert weights.model.config._experts_implementation == "grouped_mm"


def test_a_capture_says_and_records_how_experts_ran(narrow: Path, tokens: Path, tmp_path: Path, capsys) -> None:
    settings = capture_settings(torch.bfloat16)
    capture(narrow, tokens, tmp_path / "x.json", settings, {"statistics": "test"}, device=CPU)
    assert "narrow: experts run one after the other (eager)" in capsys.readouterr().out
    provenance = json.loads((tmp_path / "x.json").read_text())["provenance"]
    assert provenance["experts_implementation"] == "eager"


@pytest.mark.parametrize("way", ["eager", "batched_mm"])
def test_experts_run_as_asked_for(way: str, checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    weights = Weights(checkpoints["moe"], torch.float32, CPU, experts_implementation=way)
    model = AutoModelForCausalLM.from_pretrained(
        checkpoints["moe"], dtype=torch.float32, experts_implementation=way
    ).eval()
    with torch.inference_mode():
        expected = model(input_ids=windows_of(ids)[0][None], use_cache=False).logits[0]
    assert torch.equal(run(weights, ids[:1])[0], expected)


def test_a_dense_model_is_not_told_how_to_run_experts(checkpoints: dict[str, Path]) -> None:
    words = "Qwen3ForCausalLM has no routed experts; leave experts_implementation out of the model's entry"
    with pytest.raises(ConfigError, match=words):
        Weights(checkpoints["dense"], torch.float32, CPU, experts_implementation="eager")


def failure(weights: Weights, ids: np.ndarray) -> str:
    with pytest.raises(ForwardFailed) as raised:
        run(weights, ids[:1])
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
            run(weights, ids[:1])


def test_the_way_experts_run_moves_the_statistics_and_not_the_checkpoint() -> None:
    raw = yaml.safe_load((PROJECT / "config.yaml").read_text())
    corpus, model = raw["experiments"][raw["experiment"]]["corpus"], "tiny-moe"
    changed = copy.deepcopy(raw)
    changed["models"][model]["experts_implementation"] = "eager"
    before, after = (Lineages(Config.check(values)) for values in (raw, changed))
    assert before.checkpoint(model) == after.checkpoint(model)
    assert before.tokens(corpus, model) == after.tokens(corpus, model)
    assert before.statistics(corpus, model)["statistics"] != after.statistics(corpus, model)["statistics"]
    changed["models"][model]["experts_implementation"] = "fast"
    with pytest.raises(ConfigError, match=r"experts_implementation: Input should be 'eager', 'batched_mm' or"):
        Config.check(changed)
