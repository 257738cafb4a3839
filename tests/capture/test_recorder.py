"""Recorder: what is watched stays as it is; what is not finite stops a pass or is counted."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from outlier_features.capture.run import capture
from outlier_features.errors import ArchitectureError, NonFiniteActivations
from outlier_features.metrics import criteria, evidence, outlier_features
from outlier_features.metrics import layers as metrics
from outlier_features.metrics.damage import damage
from outlier_features.site_names import SITES
from outlier_features.statistics.shards import Statistics
from safetensors.torch import load_file, save_file
from small_models import DEFINITIONS, WINDOWS, capture_settings, poisoned


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


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_infinity_inside_an_mlp_is_named_by_its_site(kind: str, checkpoints, tokens, tmp_path) -> None:
    folder = shutil.copytree(checkpoints[kind], tmp_path / "model")
    part = "mlp.up_proj" if kind == "dense" else "mlp.experts.2.up_proj"
    name = f"model.layers.1.{part}.weight"
    (file,) = (path for path in folder.glob("*.safetensors") if name in load_file(path))
    found = load_file(file)
    save_file(found | {name: found[name] * 3e38}, file, metadata={"format": "pt"})
    settings = capture_settings(sites=tuple(SITES))
    with pytest.raises(NonFiniteActivations, match=r"block 1, down_in, window 0: \d+ NaN and \d+ infinite values"):
        capture(folder, tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_only_what_criteria_need_gives_the_same_outlier_features(kind, checkpoints, tokens, tmp_path) -> None:
    full = capture_settings(sites=tuple(SITES))
    fewer = capture_settings(sites=full.counted, is_full=False)
    for name, settings in (("full", full), ("fewer", fewer)):
        capture(checkpoints[kind], tokens, tmp_path / f"{name}.json", settings, {"statistics": "test"})
    kept = Statistics([tmp_path / "fewer.json"]).block(1)
    assert set(kept.sites) == {*full.counted, *(["router"] if kind == "moe" else [])}
    assert kept.table["mmr"].null_count == kept.table["magnitudes_rest"].null_count == kept.table.num_rows
    assert kept.table["router_distance"].null_count == kept.table.num_rows
    found = [
        evidence.gather(Statistics([tmp_path / f"{name}.json"]), criteria.criteria(DEFINITIONS))
        for name in ("full", "fewer")
    ]
    for whole, part in zip(*found, strict=True):
        pd.testing.assert_frame_equal(outlier_features.features(part), outlier_features.features(whole))
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).iterdir()) for name in ("full", "fewer")]
    assert sizes[1] < 0.75 * sizes[0]


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_what_is_not_finite_is_left_out_at_every_site_and_the_tables_stand(kind, checkpoints, tokens, tmp_path) -> None:
    folder = shutil.copytree(checkpoints[kind], tmp_path / "model")
    name = "model.layers.1.input_layernorm.weight"
    (file,) = (path for path in folder.glob("*.safetensors") if name in load_file(path))
    found = load_file(file)
    found[name][5] = float("inf")
    save_file(found, file, metadata={"format": "pt"})
    settings = capture_settings(sites=tuple(SITES), count_nonfinite=True)
    capture(folder, tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    statistics = Statistics([tmp_path / "x.json"])
    layers = metrics.layers(statistics, 6.0)
    rows = layers[(layers["block"] == 1) & (layers["token_class"] == "all")].set_index("site")
    for site in (site for site in SITES if site in rows.index):
        assert rows.loc[site, "nan_count"] + rows.loc[site, "inf_count"] > 0, site
        assert np.isfinite(rows.loc[site, "max_abs"]), site
    assert damage(statistics)["predicted_sqnr_db"].notna().all()
