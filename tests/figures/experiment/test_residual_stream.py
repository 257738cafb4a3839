"""The toy follows the rule of the library."""

import numpy as np
import pytest
from figures_of_twelve import of_twelve
from outlier_features.config.entries import Definition
from outlier_features.figures.experiment.residual_stream import COORDINATED, THRESHOLD, shares, toy
from outlier_features.metrics import criteria, evidence, outlier_features


def test_the_toy_follows_the_rule_of_the_library():
    x_LTC = toy()
    is_hit_LTC = np.abs(x_LTC) >= THRESHOLD
    hits_NSC = is_hit_LTC.sum(axis=1)[:, None]
    definition = Definition(sites=["mlp_in"], scope="pooled")
    found = evidence.Evidence(
        criterion=criteria.Criterion("toy", definition, relative=False),
        length_S=np.array([x_LTC.shape[1]]),
        grid=(THRESHOLD,),
        tensors=[(layer, "mlp_in") for layer in range(len(x_LTC))],
        hits_NSC=hits_NSC,
        covered_SC=is_hit_LTC.any(axis=0).sum(axis=0)[None],
        levels_SCG=np.stack([(~is_hit_LTC).sum(axis=(0, 1)), is_hit_LTC.sum(axis=(0, 1))], axis=-1)[None],
        high_NSC=x_LTC.max(axis=1)[:, None],
        low_NSC=x_LTC.min(axis=1)[:, None],
        scale_NS=np.ones((len(x_LTC), 1)),
    )
    found, expected = shares(x_LTC), outlier_features.features(found)
    assert list(expected["channel"]) == list(found.index[found["is_outlier"]]) == [COORDINATED]
    own = found.loc[COORDINATED]
    assert (own["layer_pct"], own["position_pct"]) == pytest.approx(
        (100 * expected["layer_share"].item(), 100 * expected["position_share"].item())
    )


def test_the_toy_shows_every_hit_and_says_of_every_channel_what_the_rule_says():
    figure, x_LTC = of_twelve("residual_stream"), toy()
    for axes, x_TC in zip(figure.axes, x_LTC, strict=False):
        colors = np.asarray(axes.images[0].get_array())
        is_colored = np.ptp(colors, axis=-1) > 0.05
        assert (is_colored == (np.abs(x_TC) >= THRESHOLD)).all()
        (frame,) = axes.patches
        assert frame.get_x() == COORDINATED - 0.5
    said = [text.get_text() for axes in figure.axes[len(x_LTC) :] for text in axes.texts]
    assert {"at least 25 %", "at least 6 %", "7 of 8 = 87.5 %", "outlier feature: coordinated"} <= set(said)
    assert sum(text.startswith("none: too few") for text in said) == 7
    assert {"none: too few layers", "none: too few positions"} <= set(said)
