"""Positions: where along the window large activations stand, from the statistics and from the activations."""

import numpy as np
import pandas as pd
import pytest
from outlier_features.metrics.positions import positions
from outlier_features.statistics.shards import Statistics
from small_models import LENGTH


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_positions_are_those_of_the_activations(kind, manifests, activations) -> None:
    marked = {3, 17}
    table = positions(Statistics([manifests[kind]]), 6.0, marked).set_index(["site", "position"])
    for site, x in activations[kind].items():
        peak = np.abs(x).max(-1)
        expected = pd.DataFrame(
            {
                "hit_share": (peak >= 6).mean((0, 1)),
                "outlier_share": ((peak >= 6) & np.isin(np.abs(x).argmax(-1), list(marked))).mean((0, 1)),
                "max_abs": peak.max((0, 1)),
                "mean_max_abs": peak.mean((0, 1)),
                "rms": np.sqrt((x**2).mean((0, 1, 3))),
            }
        )
        own = table.loc[site]
        assert len(own) == LENGTH
        np.testing.assert_allclose(own[list(expected)].to_numpy(), expected.to_numpy(), rtol=1e-5)
