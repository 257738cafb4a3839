"""Draws: estimates over sequences agree with the features, or say why there is no answer."""

from pathlib import Path

import pytest
from outlier_features.capture.run import capture
from outlier_features.metrics import criteria, draws, evidence, outlier_features
from outlier_features.statistics.shards import Statistics
from small_models import DEFINITIONS, HIDDEN, WINDOWS, capture_settings


@pytest.mark.parametrize("name", DEFINITIONS)
def test_estimates_agree_with_the_features(name: str, manifests: dict[str, Path]) -> None:
    for found in evidence.gather(Statistics([manifests["moe"]]), criteria.criteria({name: DEFINITIONS[name]})):
        table, estimates = outlier_features.features(found), draws.estimates(found)
        assert estimates["outlier_count"] == len(table)
        assert estimates["distinct_channels"] == table["channel"].nunique() <= HIDDEN
        stable = table[table["sequence_count"] >= WINDOWS / 2]["channel"].nunique()
        assert estimates["stable_channels"] >= stable if found.criterion.pooled else stable
        if len(table):
            assert estimates["mean_layer_pct"] == pytest.approx(100 * table["layer_share"].mean())
            assert estimates["median_position_pct"] == pytest.approx(100 * table["position_share"].median())


def test_another_width_of_the_output_projection_has_no_answer_and_says_why(tmp_path, checkpoints, tokens) -> None:
    from small_models import DENSE, save_checkpoint

    checkpoint = save_checkpoint(tmp_path / "wide", DENSE | {"head_dim": 12})
    capture(checkpoint, tokens, tmp_path / "wide.json", capture_settings(), {"statistics": "test"})
    criterion = criteria.Criterion("llm_int8_paper", DEFINITIONS["llm_int8_paper"], relative=False)
    (found,) = evidence.gather(Statistics([tmp_path / "wide.json"]), [criterion])
    assert outlier_features.features(found).empty
    estimates = draws.estimates(found)
    assert "48 channels" in estimates["note"]
    assert "outlier_count" not in estimates
