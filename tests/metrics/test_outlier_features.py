"""Outlier features of planted models equal a naive float64 computation of each definition, written only here."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import DEFINITIONS, HIDDEN, LENGTH, PLANTED, WINDOWS, capture_settings
from naive_features import naive_features
from outlier_features.capture.run import capture
from outlier_features.errors import ConfigError
from outlier_features.metrics import criteria, draws, evidence, outlier_features
from outlier_features.metrics import layers as metrics
from outlier_features.statistics.shards import SiteTable, Statistics
from reductions import GRIDS, reduced_on_cpu


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_features_equal_the_naive_float64_computation(kind, name, relative, manifests, activations) -> None:
    criterion = criteria.Criterion(name, DEFINITIONS[name], relative)
    (found,) = evidence.gather(Statistics([manifests[kind]], "test"), [criterion])
    table = outlier_features.features(found)
    expected = naive_features(activations[kind], DEFINITIONS[name], relative)
    assert table["channel"].tolist() == expected["channel"].tolist()
    assert (
        table["sequence"].isna().all()
        if criterion.pooled
        else (table["sequence"].tolist() == expected["sequence"].tolist())
    )
    for column in ("layer_share", "position_share", "position_share_mean", "max_value", "hit_count"):
        np.testing.assert_allclose(
            table[column].astype(float), expected[column].astype(float), rtol=1e-6, err_msg=column
        )
    np.testing.assert_array_equal(table["max_abs"], table["max_value"].abs())
    assert table["one_sided"].tolist() == expected["one_sided"].tolist()
    assert [list(names) for names in table["layers"]] == expected["layers"].tolist()
    grid = np.array(found.grid)
    for quartile, number in ((25, 1), (50, 2), (75, 3)):
        exact = np.array([q[number - 1] for q in expected["quartiles"]])
        read = table[f"quartile_{number}"].to_numpy()
        assert (np.abs(exact - read) <= table["quartile_step"]).all()
        step = np.searchsorted(grid, np.maximum(exact, read) * 1.001) - np.searchsorted(grid, np.minimum(exact, read))
        assert (step <= 2).all(), (quartile, exact, read)


def test_the_planted_channels_are_found(manifests: dict[str, Path]) -> None:
    (found,) = evidence.gather(Statistics([manifests["dense"]]), criteria.criteria({"x": DEFINITIONS["llm_int8"]})[:1])
    assert set(outlier_features.features(found)["channel"]) == set(PLANTED)


def test_sequence_count_says_in_how_many_sequences_a_channel_qualifies(manifests, activations) -> None:
    pooled, each = DEFINITIONS["llm_int8"], DEFINITIONS["llm_int8"].model_copy(update={"scope": "sequence"})
    (found,) = evidence.gather(Statistics([manifests["moe"]]), [criteria.Criterion("x", pooled, relative=False)])
    table = outlier_features.features(found)
    alone = naive_features(activations["moe"], each, relative=False)["channel"].value_counts()
    assert table["sequence_count"].tolist() == [alone.get(channel, 0) for channel in table["channel"]]


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
    from conftest import DENSE, save_checkpoint

    checkpoint = save_checkpoint(tmp_path / "wide", DENSE | {"head_dim": 12})
    capture(checkpoint, tokens, tmp_path / "wide.json", capture_settings(), {"statistics": "test"})
    criterion = criteria.Criterion("llm_int8_paper", DEFINITIONS["llm_int8_paper"], relative=False)
    (found,) = evidence.gather(Statistics([tmp_path / "wide.json"]), [criterion])
    assert outlier_features.features(found).empty
    estimates = draws.estimates(found)
    assert "48 channels" in estimates["note"]
    assert "outlier_count" not in estimates


def test_a_threshold_off_the_grid_names_the_grid(manifests: dict[str, Path]) -> None:
    definition = DEFINITIONS["llm_int8"].model_copy(update={"threshold": 7.0})
    with pytest.raises(ConfigError, match=r"threshold 7 is not on the grid of this capture \(3, 4, 6, 8, 12, 20\)"):
        evidence.gather(Statistics([manifests["dense"]]), [criteria.Criterion("x", definition, relative=False)])


def test_channels_list_every_tensor_with_a_hit(manifests: dict[str, Path], activations) -> None:
    (found,) = evidence.gather(Statistics([manifests["moe"]]), criteria.criteria({"x": DEFINITIONS["llm_int8"]})[:1])
    table = outlier_features.channels(found)
    raw = activations["moe"]
    expected = {
        (block, site, channel): int(count)
        for site in ("attn_in", "mlp_in")
        for block, x in enumerate(raw[site])
        for channel, count in enumerate((np.abs(x) >= 6).sum((0, 1)))
        if count
    }
    keys = zip(table["block"], table["site"], table["channel"], strict=True)
    assert dict(zip(keys, table["hit_count"], strict=True)) == expected


class TestMetrics:
    @pytest.fixture(scope="class")
    def layers(self, manifests: dict[str, Path]) -> pd.DataFrame:
        return metrics.layers(Statistics([manifests["moe"]]), hit_threshold=6.0).set_index(
            ["site", "block", "token_class"]
        )

    @pytest.mark.parametrize("token_class", ["all", "first", "rest"])
    @pytest.mark.parametrize("site", ["attn_in", "out_proj_in", "mlp_in", "residual"])
    def test_every_metric_equals_float64_numpy(self, site, token_class, layers, activations) -> None:
        part = {"all": slice(None), "first": slice(0, 1), "rest": slice(1, None)}[token_class]
        for block, whole in enumerate(activations["moe"][site]):
            x_STC, row = whole[:, part], layers.loc[(site, block, token_class)]
            assert row["rms"] == pytest.approx(np.sqrt((x_STC**2).mean()), rel=1e-5)
            assert row["max_abs"] == np.abs(x_STC).max()
            square_C = (x_STC**2).mean((0, 1))
            assert row["kurtosis_neuron_rms"] == pytest.approx((square_C**2).mean() / square_C.mean() ** 2, rel=1e-5)
            flat = x_STC.reshape(WINDOWS, -1)
            centred = flat - flat.mean(1, keepdims=True)
            pearson = (centred**4).mean(1) / (centred**2).mean(1) ** 2
            assert row["kurtosis_flattened"] == pytest.approx(pearson.mean(), rel=1e-4)
            token = (x_STC**4).mean(2) / x_STC.std(2) ** 4 - 3
            assert row["kurtosis_token_excess"] == pytest.approx(np.maximum(token, 0).mean(), rel=1e-4, abs=1e-6)
            mean_C = x_STC.mean((0, 1)) - x_STC.mean()
            channel = (mean_C**4).mean() / (mean_C**2).mean() ** 2 - 3
            assert row["kurtosis_channel_mean"] == pytest.approx(channel, rel=1e-4, abs=1e-4)
            if site != "residual":
                assert row["hit_share"] == pytest.approx((np.abs(x_STC) >= 6).mean())
                assert np.isnan(row["mmr"])
            else:
                ratio = np.abs(x_STC).max(2) / np.median(np.abs(x_STC), axis=2)
                assert row["mmr"] == pytest.approx(ratio.mean(), rel=1e-5)
            if token_class != "first":
                unit = x_STC / np.sqrt((x_STC**2).mean((1, 2), keepdims=True))
                gram = unit @ unit.swapaxes(1, 2) / x_STC.shape[2]
                n = x_STC.shape[1]
                correlation = ((gram.sum((1, 2)) - np.trace(gram, axis1=1, axis2=2)) / (n * (n - 1))).mean()
                assert row["input_correlation"] == pytest.approx(correlation, rel=1e-4, abs=1e-6)

    def test_routers_report_load_and_entropy_and_dense_blocks_none(self, layers: pd.DataFrame) -> None:
        routers = layers.loc["router"]
        assert sorted(routers.index.get_level_values("block")) == [1, 2]
        for _, row in routers.iterrows():
            load = np.array(row["expert_load"])
            assert sum(row["expert_tokens"]) == WINDOWS * LENGTH * 2
            assert load.sum() == pytest.approx(1)
            assert row["routing_entropy"] == pytest.approx(-(load[load > 0] * np.log2(load[load > 0])).sum())
            assert row["unused_experts"] == (load == 0).sum()


def test_kurtosis_meets_the_identity_of_he_et_al() -> None:
    """With mean square 1: n^2 C Kurt + sum_{i != j} (X^T X)_ij^2 = sum_ab (X X^T)_ab^2."""
    x = np.random.default_rng(0).normal(size=(50, 30)) * np.linspace(0.5, 3, 30)
    x /= np.sqrt((x**2).mean())
    square = (x**2).mean(0)
    kurtosis = (square**2).mean() / square.mean() ** 2
    gram, cross = x @ x.T, x.T @ x
    off_diagonal = (cross**2).sum() - (np.diag(cross) ** 2).sum()
    assert 50**2 * 30 * kurtosis + off_diagonal == pytest.approx((gram**2).sum())


@pytest.mark.parametrize(("value", "is_told"), [(1234.567, False), (0.1, False), (0.0, True)])
def test_kurtosis_is_blank_where_sums_cannot_tell_a_spread(value: float, is_told: bool) -> None:
    """All alike, or with a spread well over what rounding leaves: blank, or that of float64 NumPy."""
    x_TC = value + is_told * torch.randn(200, 60, generator=torch.Generator().manual_seed(0)) ** 3
    kept = reduced_on_cpu(x_TC, GRIDS)
    row = {name: kept[name] for name in ("first", "max", "min", "sum", "sum_2", "sum_4", "sum_3")}
    site = SiteTable(pa.Table.from_pylist([row]), SimpleNamespace(lengths=np.array([200])))
    moments = metrics._Moments(site, "all")
    found = [moments.kurtosis_flattened(), moments.kurtosis_channel_mean()]
    if not is_told:
        assert np.isnan(found).all()
        return
    wide = x_TC.double().numpy()
    for kurtosis, sample, excess in zip(found, (wide.flatten(), wide.mean(0)), (0, 3), strict=True):
        expected = ((sample - sample.mean()) ** 4).mean() / sample.var() ** 2 - excess
        assert kurtosis == pytest.approx(expected, rel=1e-4)
