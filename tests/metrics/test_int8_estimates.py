"""Estimates of int8 are near real quantisation."""

import numpy as np
import pytest
from outlier_features.metrics import layers as metrics
from outlier_features.statistics.shards import Statistics
from small_models import LENGTH, WINDOWS


def quantised(x: np.ndarray, largest: np.ndarray) -> np.ndarray:
    step = np.where(largest == 0, 1, largest / 127)
    return np.round(x / step) * step


def sqnr(x: np.ndarray, y: np.ndarray) -> float:
    return 10 * np.log10((x**2).sum() / ((x - y) ** 2).sum())


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_int8_estimates_are_near_real_quantisation(kind, manifests, activations) -> None:
    layers = metrics.layers(Statistics([manifests[kind]]), 6.0)
    for site in ("attn_in", "out_proj_in", "mlp_in"):
        for block, x in enumerate(activations[kind][site]):
            assert x.shape == (WINDOWS, LENGTH, x.shape[-1])
            own = layers[(layers["site"] == site) & (layers["block"] == block) & (layers["token_class"] == "all")]
            for column, axes in (("int8_tensor_db", (1, 2)), ("int8_token_db", 2)):
                direct = sqnr(x, quantised(x, np.abs(x).max(axes, keepdims=True)))
                assert own[column].item() == pytest.approx(direct, abs=1.0), (site, block, column)
    others = layers[layers["site"].isin(["residual", "router"]) | (layers["token_class"] != "all")]
    assert others[["int8_tensor_db", "int8_token_db"]].isna().all(axis=None)
