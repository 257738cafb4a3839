"""Expert scores: REAP and coverage by hooks in float64, and none of an expert without tokens."""

import numpy as np
import pytest
from exports import Exported
from outlier_features.capture.run import capture
from outlier_features.site_names import SITES
from small_models import LENGTH, WINDOWS, capture_settings, write_windows


def test_scores_are_the_mean_weight_times_norm_of_each_experts_output(exported, expert_inputs) -> None:
    found = exported["moe"].calibration["experts"]
    assert [entry["block"] for entry in found] == [1, 2]
    for entry in found:
        name = f"model.layers.{entry['block']}.mlp.experts"
        values = [expert_inputs[f"{name}.{expert}.saliency"] for expert in range(6)]
        assert entry["tokens"] == [len(rows) for rows in values]
        np.testing.assert_allclose(entry["reap"], [rows.mean() for rows in values], rtol=1e-5)
        rarest = min(entry["tokens"])
        assert entry["tokens_needed"]["100"] == int(np.ceil(100 * WINDOWS * LENGTH / rarest))
        assert entry["experts_with_at_most"]["100"] == sum(tokens <= 100 for tokens in entry["tokens"])
    assert exported["dense"].calibration["experts"] == []


def test_an_expert_without_tokens_has_no_score_and_no_entry(checkpoints, tmp_path) -> None:
    ids = np.random.default_rng(3).integers(160, size=(1, 2))  # two tokens go to at most four of six experts
    tokens = write_windows(tmp_path / "tokens.arrow", ids)
    settings = capture_settings(sites=tuple(SITES))
    capture(checkpoints["moe"], tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    found = Exported(tmp_path, [tmp_path / "x.json"], tokens)
    (entry, _) = found.calibration["experts"]
    unseen = [expert for expert, count in enumerate(entry["tokens"]) if count == 0]
    assert unseen
    assert [expert for expert, score in enumerate(entry["reap"]) if score is None] == unseen
    assert entry["tokens_needed"]["1"] is None
    for expert in unseen:
        prefix = f"model.layers.1.mlp.experts.{expert}."
        assert not [name for name in found.tensors("importance") if name.startswith(prefix)]


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_the_form_is_the_documented_one(kind: str, exported) -> None:
    assert exported[kind].calibration["imatrix"] is True
    note = exported[kind].calibration["imatrix_note"]
    assert (note is None) == (kind == "dense")  # llama.cpp's Qwen3 mixture has no dense block, as that model's block 0
    assert note is None or note.startswith("gguf has no name for model.layers.0.mlp.gate_proj, ")
