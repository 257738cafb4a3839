"""Outlier features of planted models equal a naive float64 computation of each definition."""

from pathlib import Path

import numpy as np
import pytest
from naive_features import naive_features
from outlier_features.metrics import criteria, evidence, outlier_features
from outlier_features.statistics.shards import Statistics
from small_models import DEFINITIONS, PLANTED


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
