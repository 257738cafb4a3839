"""Metrics per block and site equal those of the raw activations, and super experts are those of their definition."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from kept_magnitudes import Kept
from outlier_features.metrics import layers as metrics
from outlier_features.metrics.layers import super_experts
from outlier_features.statistics.shards import SiteTable, Statistics
from reductions import GRIDS, reduced_on_cpu
from small_models import LENGTH, WINDOWS


def test_a_super_expert_exceeds_the_percentile() -> None:
    largest = [float(value) for value in range(201)]  # 99.5 % of the way from the first to the last is 199
    assert super_experts([largest[:100], largest[100:]]) == [[], [100]]
    more = [*largest, 200.0, 200.5]  # of 203, 0.995 * 202 = 200.99 steps from the first
    assert super_experts([more]) == [[202]]


def test_a_super_expert_exceeds_a_tenth_of_the_largest() -> None:
    edge = [0.0] * 1000 + [1.0, 1.0000001, 10.0]
    assert super_experts([edge]) == [[1001, 1002]]


def test_experts_without_tokens_are_no_super_experts_and_count_for_nothing() -> None:
    assert super_experts([[None, 1.0, None], [None, 50.0, 2.0]]) == [[], [1]]
    assert super_experts([[None] * 1000 + [1.0, 3.0]]) == [[1001]]
    assert super_experts([[None, None], []]) == [[], []]
    assert super_experts([]) == []
    assert super_experts([[2.0, 2.0]]) == [[]]


def test_where_every_expert_is_chosen_the_last_leads_without_end() -> None:
    kept = Kept([{"mlp_in": [np.ones((3, 4))]}])
    routed = {"expert_count": 2, "top_k": 2, "expert_choices": [0, 1] * 3, "expert_max_abs": [1.0, 2.0]}
    kept.add(0, site="router", window=0, router_margin=[np.inf] * 3, **routed)
    (row,) = metrics._router_rows(kept.block(0))
    assert row["router_margin"] == row["router_margin_low"] == np.inf


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
            ratio = np.abs(x_STC).max(2) / np.median(np.abs(x_STC), axis=2)
            assert row["mmr"] == pytest.approx(ratio.mean(), rel=1e-5)
            share_C = (x_STC**2).sum((0, 1)) / (x_STC**2).sum()
            assert row["channel_entropy"] == pytest.approx(-(share_C * np.log2(share_C)).sum(), rel=1e-5)
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


def test_kurtosis_meets_the_identity_of_he_et_al() -> None:
    """With mean square 1: n^2 C Kurt + sum_{i != j} (X^T X)_ij^2 = sum_ab (X X^T)_ab^2."""
    x = np.random.default_rng(0).normal(size=(50, 30)) * np.linspace(0.5, 3, 30)
    x /= np.sqrt((x**2).mean())
    square = (x**2).mean(0)
    kurtosis = (square**2).mean() / square.mean() ** 2
    gram, cross = x @ x.T, x.T @ x
    off_diagonal = (cross**2).sum() - (np.diag(cross) ** 2).sum()
    assert 50**2 * 30 * kurtosis + off_diagonal == pytest.approx((gram**2).sum())
