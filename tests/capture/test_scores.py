"""Scores: logits and losses that are no finite numbers stop a pass by name, or are counted and left out."""

# Shapes: T position, V vocabulary.

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import capture_settings
from outlier_features.capture.run import capture
from outlier_features.capture.scores import not_finite
from outlier_features.errors import NonFiniteActivations
from outlier_features.metrics.perplexity import write_perplexity
from outlier_features.models.checkpoints import seal
from outlier_features.statistics.shards import Statistics
from transformers import AutoModelForCausalLM

LINEAGE = {"statistics": "test"}


def poisoned(checkpoint: Path, directory: Path, value: float) -> Path:
    """Save a checkpoint whose head has one weight that is no number, and whose blocks are sound."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    weight = model.lm_head.weight.detach().clone()
    weight[7, 3] = value
    model.lm_head.weight = torch.nn.Parameter(weight)
    model.save_pretrained(directory)
    seal(directory, {"path": str(directory)}, {"checkpoint": "test"})
    return directory


def naive_losses(checkpoint: Path, ids: np.ndarray) -> np.ndarray:
    """Return the losses of an ordinary forward, worked out in float64."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    rows = []
    for window in ids:
        with torch.inference_mode():
            logits_TV = model(torch.from_numpy(window)[None], use_cache=False).logits[0].double().numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            normed_T = np.log(np.exp(logits_TV).sum(1))
            rows.append((normed_T - logits_TV[np.arange(len(window)), np.roll(window, -1)])[:-1])
    return np.array(rows)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_stop_the_pass_by_window_and_position(value, checkpoints, tokens, tmp_path) -> None:
    checkpoint = poisoned(checkpoints["dense"], tmp_path / "model", value)
    with pytest.raises(
        NonFiniteActivations, match=r"model: logits of window 1, position \d+: NaN or inf.*in a float32"
    ):
        capture(checkpoint, tokens, tmp_path / "out.json", capture_settings(), LINEAGE, windows=[1, 2])
    assert not (tmp_path / "out.json").exists()


def test_what_is_counted_is_left_out_of_the_perplexity(checkpoints, tokens, ids, tmp_path, capsys) -> None:
    checkpoint = poisoned(checkpoints["dense"], tmp_path / "model", np.inf)
    settings = capture_settings(count_nonfinite=True)
    capture(checkpoint, tokens, tmp_path / "out.json", settings, LINEAGE)
    losses = naive_losses(checkpoint, ids)
    is_finite = np.isfinite(losses)
    assert 0 < is_finite.sum() < losses.size
    write_perplexity([tmp_path / "out.json"], tokens, tmp_path / "quality.json", LINEAGE)
    found = json.loads((tmp_path / "quality.json").read_text(), parse_constant=pytest.fail)
    assert found["nonfinite_losses"] == (~is_finite).sum()
    assert found["tokens"] == is_finite.sum()
    assert found["perplexity"] == pytest.approx(np.exp(losses[is_finite].mean()), rel=1e-5)
    per_window = {str(window): int(count) for window, count in enumerate((~is_finite).sum(1)) if count}
    assert Statistics([tmp_path / "out.json"]).facts["nonfinite_losses"] == per_window
    for part in ([0], [1, 2, 3, 4, 5][: len(ids) - 1]):
        capture(checkpoint, tokens, tmp_path / f"{part[0]}.json", settings, LINEAGE, windows=part)
    merged = Statistics([tmp_path / "1.json", tmp_path / "0.json"])
    assert merged.facts["nonfinite_losses"] == per_window
    assert f"{(~is_finite).sum()} of {losses.size} losses are not finite and left out" in capsys.readouterr().out


def test_losses_of_which_none_is_finite_give_null_with_the_reason(checkpoints, tokens, tmp_path) -> None:
    checkpoint = poisoned(checkpoints["dense"], tmp_path / "model", np.nan)
    capture(checkpoint, tokens, tmp_path / "out.json", capture_settings(count_nonfinite=True), LINEAGE)
    write_perplexity([tmp_path / "out.json"], tokens, tmp_path / "quality.json", LINEAGE)
    found = json.loads((tmp_path / "quality.json").read_text(), parse_constant=pytest.fail)
    assert [found[name] for name in ("perplexity", "loss", "bits_per_byte")] == [None] * 3
    assert found["interval"]["perplexity"] == [None, None]
    assert found["reason"] == f"no loss is finite ({found['nonfinite_losses']} are not)"


def test_a_token_that_is_ruled_out_everywhere_is_no_fault() -> None:
    logits_TV = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    logits_TV[:, 2] = -torch.inf
    assert not not_finite(logits_TV).any()
    logits_TV[3, 4], logits_TV[1, 0], logits_TV[4, 6] = torch.nan, torch.inf, -torch.inf
    assert not_finite(logits_TV).tolist() == [False, True, False, True, True]
    assert not_finite(torch.full((2, 3), -torch.inf)).all()
