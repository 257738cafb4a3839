"""The answer for one model: every value equals a computation in float64 NumPy from the raw activations."""

import numpy as np
import pandas as pd
import pytest
from outlier_features.config.entries import Definition
from outlier_features.metrics import criteria, evidence, model_answer
from outlier_features.metrics import layers as metrics
from outlier_features.metrics.damage import damage
from outlier_features.statistics.shards import Statistics
from small_models import DEFINITIONS, HIDDEN


def answered(manifests, kind: str, definition: Definition) -> dict:
    statistics = Statistics([manifests[kind]])
    found = evidence.gather(statistics, criteria.criteria({"x": definition}))
    layers = metrics.layers(statistics, definition.threshold)
    return model_answer.answer(statistics, model_answer.preferred(found), layers, damage(statistics))


def stacked(raw: dict[str, np.ndarray], definition: Definition) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Return the tensors of a definition (N, S, T, C), and what each is."""
    tensors = [(block, site) for block in range(len(raw["mlp_in"])) for site in definition.sites]
    return np.stack([raw[site][block] for block, site in tensors]), tensors


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_channels_equal_those_of_the_raw_activations(kind, manifests, activations) -> None:
    definition = DEFINITIONS["llm_int8"]
    told = answered(manifests, kind, definition)
    x, tensors = stacked(activations[kind], definition)
    hit = np.abs(x) >= definition.threshold
    layer_C, position_C = hit.any((1, 2)).mean(0), hit.any(0).mean((0, 1))
    qualifies = (layer_C >= definition.min_layers) & (position_C >= definition.min_positions)
    assert told["outlier_channels"] == qualifies.sum() > 0
    assert {entry["channel"] for entry in told["channels"]} == set(np.flatnonzero(qualifies))
    reach = [entry["tensors"] for entry in told["channels"]]
    assert reach == sorted(reach, reverse=True)
    for entry in told["channels"]:
        h, v = hit[..., entry["channel"]], x[..., entry["channel"]]
        assert entry["tensors"] == h.any((1, 2)).sum()
        assert entry["of_tensors"] == len(tensors)
        expected: dict[str, list[int]] = {}
        for (block, site), hits in zip(tensors, h.any((1, 2)), strict=True):
            if hits:
                expected.setdefault(site, []).append(block)
        assert entry["blocks"] == expected
        assert entry["position_share"] == pytest.approx(h.any(0).mean())
        assert entry["hits"] == h.sum()
        assert entry["hits_at_first"] == h[:, :, 0].sum()
        peak = np.unravel_index(np.abs(v).argmax(), v.shape)
        assert entry["max_value"] == pytest.approx(v[peak], rel=1e-6)
        assert entry["max_at"] == {
            "block": tensors[peak[0]][0],
            "site": tensors[peak[0]][1],
            "is_first": bool(peak[2] == 0),
        }
        assert entry["one_sided"] == bool((v[h] > 0).all() or (v[h] < 0).all())


def test_where_no_channel_qualifies_the_nearest_ones_are_told(manifests, activations) -> None:
    definition = DEFINITIONS["llm_int8"].model_copy(update={"min_layers": 1.0, "min_positions": 0.9999})
    told = answered(manifests, "dense", definition)
    x, _ = stacked(activations["dense"], definition)
    hit = np.abs(x) >= definition.threshold
    nearness = np.minimum(hit.any((1, 2)).mean(0), hit.any(0).mean((0, 1)) / 0.9999)
    if told["outlier_channels"] == 0:
        assert told["channels"][0]["channel"] == nearness.argmax()
        assert told["sentences"][0].startswith("No channel is an outlier feature")
        assert told["sentences"][0].endswith("These come nearest.")
    else:
        pytest.fail("the planted channels must not reach every position for this test to mean anything")


def test_the_tensors_that_lose_most_are_named_in_order(manifests) -> None:
    layers = metrics.layers(Statistics([manifests["dense"]]), 6.0)
    worst = answered(manifests, "dense", DEFINITIONS["llm_int8"])["int8"]["tensor"]
    rows = layers.dropna(subset="int8_tensor_db").sort_values("int8_tensor_db")[:3]
    assert [(entry["block"], entry["site"]) for entry in worst] == list(zip(rows["block"], rows["site"], strict=True))


def test_experts_and_magnitudes_are_those_of_the_table_of_layers(manifests, activations) -> None:
    told = answered(manifests, "moe", DEFINITIONS["llm_int8"])
    by_site = {entry["site"]: entry for entry in told["largest"]}
    for site, found in activations["moe"].items():
        peak_L = np.abs(found).max((1, 2, 3))
        assert by_site[site]["all"] == {"block": int(peak_L.argmax()), "max_abs": pytest.approx(peak_L.max(), rel=1e-6)}
        rest_L = np.abs(found[:, :, 1:]).max((1, 2, 3))
        assert by_site[site]["rest"]["max_abs"] == pytest.approx(rest_L.max(), rel=1e-6)
    assert told["experts"]["experts"] == 12  # two routed blocks of six
    assert answered(manifests, "dense", DEFINITIONS["llm_int8"])["experts"] is None


def test_a_definition_without_an_answer_says_why(manifests) -> None:
    definition = Definition(sites=("attn_in", "out_proj_in"))
    statistics = Statistics([manifests["dense"]])
    gap = criteria.Gap(criteria.Criterion("x", definition, relative=False), "they differ")
    told = model_answer.answer(statistics, gap, metrics.layers(statistics, 6.0), damage(statistics))
    assert told["outlier_channels"] is None
    assert told["channels"] == []
    assert told["sentences"][0] == "By x there is no answer: they differ."


def test_what_is_not_finite_is_told_with_its_tensors(manifests) -> None:
    statistics = Statistics([manifests["dense"]])
    found = evidence.gather(statistics, criteria.criteria({"x": DEFINITIONS["llm_int8"]}))
    layers = metrics.layers(statistics, 6.0)
    assert (
        model_answer.answer(statistics, model_answer.preferred(found), layers, damage(statistics))["left_out"] is None
    )
    at = (layers["block"] == 1) & (layers["token_class"] == "all")
    layers.loc[at & (layers["site"] == "residual"), "nan_count"] = 1200
    layers.loc[at & (layers["site"] == "mlp_in"), "inf_count"] = 3
    told = model_answer.answer(statistics, model_answer.preferred(found), layers, damage(statistics))
    assert (told["left_out"]["nan"], told["left_out"]["inf"]) == (1200, 3)
    assert told["left_out"]["blocks"] == {"mlp_in": [1], "residual": [1]}
    assert told["sentences"][1] == (
        "Not all activations are finite: 1,200 NaN and 3 infinite ones (mlp_in 1; residual 1) were left out of "
        "everything told here."
    )


def test_massive_activations_at_position_0_are_told_apart() -> None:
    top = [{"window": 0, "position": 0, "channel": 7, "token": 1, "value": -2000.0}]
    rows = [
        {"block": 2, "site": "residual", "token_class": "all", "massive_count": 3, "massive_top": top},
        {"block": 2, "site": "residual", "token_class": "first", "massive_count": 3, "massive_top": top},
        {"block": 2, "site": "residual", "token_class": "rest", "massive_count": 0, "massive_top": []},
    ]
    found = model_answer._massive(pd.DataFrame(rows))
    assert found is not None
    assert (found["count"], found["count_at_first"], found["channels"], found["blocks"]) == (3, 3, [7], [2])
    assert HIDDEN > 7


def predicted(*rows: tuple[int, str, str, float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["block", "site", "format", "predicted_sqnr_db", "rank"])


def test_the_tensors_that_a_format_is_predicted_to_lose_most_at_are_named(manifests) -> None:
    statistics = Statistics([manifests["dense"]])
    found = model_answer.preferred(evidence.gather(statistics, criteria.criteria(DEFINITIONS)))
    layers = metrics.layers(statistics, 6.0)
    absmax = [(1, "mlp_in", "absmax", 9.4, 2), (0, "down_in", "absmax", 3.2, 1), (0, "mlp_in", "absmax", 30.0, 4)]
    tokens = [(0, "down_in", "row_wise", 25.0, 2), (1, "mlp_in", "row_wise", 20.0, 1)]
    lossless = [(0, "down_in", "mxfp4", np.inf, 1)]
    told = model_answer.answer(statistics, found, layers, predicted(*absmax, *tokens, *lossless))
    assert told["damage"]["absmax"] == [
        {"block": 0, "site": "down_in", "db": 3.2},
        {"block": 1, "site": "mlp_in", "db": 9.4},
    ]
    assert told["damage"]["mxfp4"] == [{"block": 0, "site": "down_in", "db": None}]
    sentence = (
        "Of the matrix inputs that were captured, int8 loses most with one scale a window (absmax) at down_in of block "
        "0 (3 dB), mlp_in of block 1 (9 dB) and with one scale a token (row_wise) at mlp_in of block 1 (20 dB), "
        "down_in of block 0 (25 dB) (predicted)."
    )
    assert told["sentences"][-1] == sentence


def test_without_predictions_the_estimates_of_int8_are_told(manifests) -> None:
    statistics = Statistics([manifests["dense"]])
    found = model_answer.preferred(evidence.gather(statistics, criteria.criteria(DEFINITIONS)))
    told = model_answer.answer(statistics, found, metrics.layers(statistics, 6.0), predicted())
    assert told["damage"] is None
    assert "estimated" in told["sentences"][-1]
