"""Recorder: what is watched stays as it is; what is not finite stops a pass or is counted."""

from pathlib import Path

import numpy as np
import pytest
from outlier_features.capture.run import capture
from outlier_features.errors import ArchitectureError, NonFiniteActivations
from outlier_features.metrics import layers as metrics
from outlier_features.statistics.shards import Statistics
from small_models import WINDOWS, capture_settings, poisoned


def test_observing_does_not_change_the_losses(checkpoints, tokens, manifests, tmp_path) -> None:
    settings = capture_settings(sites=("residual",), counted=(), coverages=())
    capture(checkpoints["moe"], tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    assert np.array_equal(Statistics([tmp_path / "x.json"]).losses(), Statistics([manifests["moe"]]).losses())


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "33 NaN and 0 infinite"), (float("inf"), "0 NaN and 33 inf")]
)
def test_nan_and_infinity_stop_the_pass_and_leave_nothing(value, words, tmp_path, tokens) -> None:
    checkpoint = poisoned(tmp_path / "model", value)
    with pytest.raises(NonFiniteActivations, match=f"block 1, attn_in, window 0: {words}.*capture.nonfinite to count"):
        capture(checkpoint, tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_nan_can_be_counted_instead(tmp_path: Path, tokens: Path) -> None:
    checkpoint = poisoned(tmp_path / "model", float("nan"))
    settings = capture_settings(count_nonfinite=True)
    capture(checkpoint, tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    layers = metrics.layers(Statistics([tmp_path / "x.json"]), 6.0).query("token_class == 'all' and site == 'attn_in'")
    assert layers["nan_count"].tolist()[:2] == [0, 33 * WINDOWS]


def test_a_site_that_saw_nothing_stops_the_run_and_names_the_block(checkpoints, tokens, tmp_path, monkeypatch) -> None:
    from outlier_features.models import sites

    def blind(block, wanted):
        return [probe for probe in found(block, wanted) if probe.site != "mlp_in"]

    found = sites.probes
    monkeypatch.setattr(sites, "probes", blind)
    with pytest.raises(ArchitectureError, match="block 0: no activation was seen at mlp_in"):
        capture(checkpoints["dense"], tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})
