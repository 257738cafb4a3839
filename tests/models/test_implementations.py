"""Experts run in the fastest way that can, or as asked for; what fails in a model's code is told in one line."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from observers import logits_of, windows_of
from outlier_features.artefacts.lineage import Lineages
from outlier_features.capture.run import capture
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError
from outlier_features.models.weights import Weights
from projects import PROJECT
from small_models import capture_settings
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")


def test_experts_that_cannot_be_grouped_run_one_after_the_other(narrow: Path, ids: np.ndarray) -> None:
    weights = Weights(narrow, torch.bfloat16, CPU)
    assert weights.experts_note == (
        "experts run one after the other (eager): torch has no grouped products of their widths in bfloat16"
    )
    model = AutoModelForCausalLM.from_pretrained(narrow, dtype=torch.bfloat16, experts_implementation="eager").eval()
    with torch.inference_mode():
        for found, window in zip(logits_of(weights, ids), windows_of(ids), strict=True):
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
    assert torch.equal(logits_of(weights, ids[:1])[0], expected)


def test_a_dense_model_is_not_told_how_to_run_experts(checkpoints: dict[str, Path]) -> None:
    words = "Qwen3ForCausalLM has no routed experts; leave experts_implementation out of the model's entry"
    with pytest.raises(ConfigError, match=words):
        Weights(checkpoints["dense"], torch.float32, CPU, experts_implementation="eager")


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
