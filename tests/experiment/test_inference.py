"""Inference: a planted phase shift is found, an absent one is not, and the answer claims what its numbers allow."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from outlier_features.artefacts.tables import read_table, write_table
from outlier_features.errors import StaleFile
from outlier_features.experiment import answer, inference
from outlier_features.experiment.inference import TRENDS, conclusions
from outlier_features.experiment.table_of_2025 import as_summary
from outlier_features.metrics.bootstrap import resampling_counts

PUBLISHED = pd.read_csv(Path(__file__).parents[2] / "resources/published/arb8020_2025.csv")
HIDDEN, DRAWS = 1000, 200
JUMP_AT = 4.5e9
"""Active parameters; seven of the twelve models have fewer."""


def sweep(jump: float = 0.0, spread: float = 4.0, rows: slice = slice(None), **columns: object) -> pd.DataFrame:
    """Return a summary of models with the sizes of 2025, whose share of layers jumps by so many points."""
    sizes = PUBLISHED.sort_values("active_params_b").reset_index(drop=True)
    active, total = (1e9 * sizes[f"{name}_params_b"] for name in ("active", "total"))
    noise = spread * np.random.default_rng(0).standard_normal((3, len(sizes)))
    values = {
        "model": sizes["model"],
        "label": sizes["model"],
        "kind": sizes["kind"],
        "series": None,
        "step": None,
        "hidden_size": HIDDEN,
        "total_params": total,
        "active_params": active,
        "sparsity": active / total,
        "definition": "arb8020",
        "distinct_channels": 10.0,
        "mean_layer_pct": 35 + jump * (active > JUMP_AT) + noise[0],
        "mean_position_pct": 60 + noise[1],
        "perplexity": 40 * (active / 1e9) ** -0.3 * np.exp(noise[2] / 100),
        "bits_per_byte": 1.2 * (active / 1e9) ** -0.1,
    }
    return pd.DataFrame(values | columns).iloc[rows]


def draws(summary: pd.DataFrame, spread: float = 1.0) -> dict[str, pd.DataFrame]:
    """Return draws of the sequences around the estimates of a summary."""
    measures = ["mean_layer_pct", "mean_position_pct", "distinct_channels"]
    shake = spread * np.random.default_rng(1).standard_normal((len(summary), DRAWS, 3))
    return {
        row["model"]: pd.DataFrame(row[measures].to_numpy(float) + own, columns=measures).assign(definition="arb8020")
        for (_, row), own in zip(summary.iterrows(), shake, strict=True)
    }


def trend(found: dict, axis: str = "active_params", group: str = "all", measure: str = "mean_layer_pct") -> dict:
    (row,) = [r for r in found["trends"] if (r["axis"], r["group"], r["measure"]) == (axis, group, measure)]
    return row


@pytest.fixture(scope="module")
def shifted() -> dict:
    summary = sweep(jump=45)
    return conclusions(summary, draws(summary), {}, {})


@pytest.fixture(scope="module")
def steady() -> dict:
    summary = sweep()
    return conclusions(summary, draws(summary), {}, {})


def test_a_planted_phase_shift_is_found_where_it_is(shifted: dict) -> None:
    row = trend(shifted)
    assert row["found"]
    assert row["preferred"] == "step"
    assert row["shift_p_adjusted"] == pytest.approx(row["shift_tests"] * row["shift_p_value"])
    assert row["odd_model"] is None
    assert row["shift_position_low"] <= JUMP_AT <= row["shift_position_high"]
    assert 3e9 < row["shift_position_low"] < row["shift_position_high"] < 9e9
    assert row["shift_size"] == pytest.approx(45, abs=8)
    assert row["weight_step"] > 0.9
    assert "jumps by +4" in shifted["answer"]
    assert "active parameters" in shifted["answer"]


def test_where_nothing_is_planted_nothing_is_found_and_the_answer_says_what_could_have_been(steady: dict) -> None:
    assert not any(row["found"] for row in steady["trends"])
    row = trend(steady)
    assert row["detectable_jump_low"] < row["detectable_jump"] < row["detectable_jump_high"]
    assert 10 < row["detectable_jump"] < 35
    assert row["detectable_jump"] / row["noise"] == pytest.approx(row["detectable_jump_high"] / row["noise_high"])
    jumps = [trend(steady, axis) for axis in answer.ASKED]
    low = min(row["detectable_jump_low"] for row in jumps)
    assert f"a sharp jump between the middle ones of {low:.0f} to" in steady["answer"]
    assert "No jump of the share of layers" in steady["answer"]
    assert "Smaller ones may be there." in steady["answer"]


def test_every_trend_has_the_documented_columns_and_json_holds_it(shifted: dict) -> None:
    assert {name for row in shifted["trends"] for name in row} == set(TRENDS)
    assert len(shifted["trends"]) == 3 * 3 * 5
    json.dumps(shifted, allow_nan=False)


def test_draws_of_the_sequences_reach_the_intervals() -> None:
    summary = sweep()
    alone = trend(conclusions(summary, {}, {}, {}))
    shaken = trend(conclusions(summary, draws(summary, spread=40), {}, {}))
    assert shaken["spearman"] == alone["spearman"]
    assert shaken["spearman_low"] < alone["spearman_low"]
    assert shaken["slope_high"] > alone["slope_high"]


def test_a_draw_without_value_in_one_model_is_left_out() -> None:
    summary = sweep()
    drawn = draws(summary)
    drawn["Mixtral-8x7B"].loc[:150, "mean_layer_pct"] = math.nan
    row = trend(conclusions(summary, drawn, {}, {}))
    assert row["models"] == 12
    assert math.isfinite(row["spearman_low"])


@pytest.mark.parametrize("models", [0, 1, 3])
def test_fewer_than_four_models_conclude_nothing(models: int) -> None:
    summary = sweep(rows=slice(0, models))
    found = conclusions(summary, draws(summary), {}, {})
    assert "nothing can be concluded" in found["answer"]
    assert all(row["preferred"] is None for row in found["trends"] if "preferred" in row)
    json.dumps(found, allow_nan=False)


def test_four_to_six_models_have_a_trend_and_no_test_of_a_shift() -> None:
    found = conclusions(sweep(jump=45, rows=slice(0, 6)), {}, {}, {})
    row = trend(found)
    assert row["spearman"] is not None
    assert row.get("shift_p_value") is None
    assert not row["found"]
    assert "cannot be said: 6 models, a phase shift needs 7" in found["answer"]
    assert row["spearman_low"] is None


def test_models_without_outlier_features_are_left_out_and_named() -> None:
    summary = sweep()
    summary.loc[summary.index[:3], ["mean_layer_pct", "mean_position_pct"]] = math.nan
    found = conclusions(summary, {}, {}, {})
    assert trend(found)["models"] == 9
    assert "3 without a value left out" in trend(found)["note"]
    (said,) = [sentence for sentence in found["sentences"] if "3 without a value left out" in sentence]
    assert said.startswith("Total parameters, active parameters, perplexity: ")
    assert trend(found, measure="distinct_pct")["models"] == 12


def test_no_outlier_feature_anywhere_concludes_nothing_about_shares() -> None:
    blank = {"mean_layer_pct": math.nan, "mean_position_pct": math.nan, "distinct_channels": 0.0}
    found = conclusions(sweep(**blank), {}, {}, {})
    assert "is known of 0" in found["answer"]
    assert trend(found, measure="distinct_pct")["spearman"] is None


@pytest.mark.parametrize("share", [0.0, 35.0, 100.0])
def test_where_every_model_has_the_same_value_nothing_is_tested(share: float) -> None:
    found = conclusions(sweep(mean_layer_pct=share), {}, {}, {})
    assert (trend(found)["constant"], trend(found)["note"]) == (share, "all models have the same value")
    assert "jumps cannot be said: all models have the same value" in found["answer"]
    assert "cannot be compared: all models have the same value" in found["answer"]


@pytest.mark.parametrize(("dense", "moe"), [(0.0, 100.0), (50.0, 25.0), (0.0, 0.1)])
def test_kinds_that_do_not_vary_are_compared_without_a_spread(dense: float, moe: float) -> None:
    summary = sweep()
    summary["mean_layer_pct"] = [moe if kind == "moe" else dense for kind in summary["kind"]]
    found = conclusions(summary, {}, {}, {})
    (comparison, *_) = found["comparisons"]
    assert comparison["difference"] == pytest.approx(moe - dense)
    assert "cannot be compared" not in found["answer"]


def test_missing_perplexity_leaves_the_other_axes() -> None:
    found = conclusions(sweep(jump=45, perplexity=math.nan, bits_per_byte=math.nan), {}, {}, {})
    assert trend(found)["found"]
    assert trend(found, "perplexity")["note"].startswith("0 models")
    assert "Along perplexity a jump cannot be tested for." in found["answer"]


def test_one_kind_only_is_not_compared_with_the_other() -> None:
    summary = sweep()
    found = conclusions(summary[summary["kind"] == "dense"], {}, {}, {})
    (comparison, *_) = found["comparisons"]
    assert comparison["note"] == "no moe model has a value"
    assert "cannot be compared: no moe model has a value" in found["answer"]


def test_a_planted_difference_between_kinds_is_found_within_the_sizes_they_share() -> None:
    summary = sweep()
    summary.loc[summary["kind"] == "moe", "mean_layer_pct"] += 25
    (comparison, *_) = conclusions(summary, draws(summary), {}, {})["comparisons"]
    assert (comparison["range_low"], comparison["range_high"]) == pytest.approx((1.3e9, 12.9e9))
    assert (comparison["dense"], comparison["moe"]) == (3, 7)
    assert comparison["low"] < 25 < comparison["high"]
    assert comparison["p_value"] < 0.05


def test_of_a_training_run_only_the_last_step_counts() -> None:
    steps = sweep(rows=slice(0, 5)).assign(series="run", step=[1, 2, 3, 4, 5])
    found = conclusions(pd.concat([steps, sweep(rows=slice(5, 12))]), {}, {}, {})
    assert trend(found)["models"] == 8


@pytest.fixture(scope="module")
def published() -> dict:
    return conclusions(as_summary(PUBLISHED), {}, {}, {})


def test_the_published_table_shows_neither_a_jump_nor_a_correlation(published: dict) -> None:
    row = trend(published, "total_params")
    assert row["models"] == 12
    assert not row["found"]
    assert row["spearman"] == pytest.approx(0.67, abs=0.01)
    assert row["p_adjusted"] == pytest.approx(0.053, abs=0.002)
    assert (row["spearman_within"], row["p_within"]) == pytest.approx((0.45, 0.2), abs=0.01)
    dense, moe = (trend(published, "total_params", group)["spearman"] for group in ("dense", "moe"))
    assert (dense, moe) == pytest.approx((-0.2, 0.43), abs=0.01)
    assert trend(published, "perplexity")["models"] == 5
    assert "None is shown." in published["answer"]


def test_the_published_table_could_not_have_shown_the_jump_of_2022(published: dict) -> None:
    for axis in ("total_params", "active_params"):
        assert trend(published, axis)["detectable_jump_low"] > 100 - 65
    assert trend(published, "total_params")["detectable_jump_high"] is None
    assert "to more than 100 points" in published["answer"]


def sized(models: int, share: np.ndarray, **columns: object) -> pd.DataFrame:
    """Return dense models over two decades with shares of layers."""
    sizes = np.geomspace(1e8, 2e10, models)
    names = [f"Some-{size:.3g}" for size in sizes]
    common = {"model": names, "label": names, "kind": "dense", "series": None, "step": None, "hidden_size": HIDDEN}
    sizes_of = {"total_params": sizes, "active_params": sizes, "sparsity": 1.0}
    quality = {"perplexity": math.nan, "bits_per_byte": math.nan}
    values = {"mean_layer_pct": share, "mean_position_pct": math.nan, "distinct_channels": math.nan}
    return pd.DataFrame(common | sizes_of | quality | values | {"definition": "arb8020"} | columns)


def test_a_saturating_rise_rises_steadily() -> None:
    u = np.linspace(0, 1, 12)
    share = 25 + 47 * (1 - np.exp(-3 * u)) / (1 - np.exp(-3)) + 2 * np.random.default_rng(3).standard_normal(12)
    found = conclusions(sized(12, share), {}, {}, {})
    assert "It rises steadily along parameters (total and active are the same)." in found["answer"]
    assert "jumps" not in found["answer"]


def test_a_jump_of_dense_models_along_total_and_active_parameters_is_one_finding() -> None:
    share = 30 + 50 * (np.arange(12) >= 6) + np.random.default_rng(4).standard_normal(12)
    found = conclusions(sized(12, share), {}, {}, {})
    assert found["answer"].count("jumps by") == 1
    rows = [trend(found, axis, group) for axis in ("total_params", "active_params") for group in ("all", "dense")]
    assert all(row["found"] and row["shift_tests"] == 1 for row in rows)
    assert trend(found)["shift_p_adjusted"] == trend(found)["shift_p_value"]


def test_one_odd_model_is_named_and_no_jump() -> None:
    share = 30 + np.random.default_rng(5).standard_normal(20)
    share[-2:] += 2.5, 50
    row = trend(conclusions(sized(20, share), {}, {}, {}))
    assert not row["found"]
    assert row["odd_model"] == "Some-2e+10"


def test_models_are_grouped_by_what_they_share_beside_a_size() -> None:
    models = pd.DataFrame(
        {
            "model": list("abcdef"),
            "label": ["Qwen3-0.6B", "Qwen3-30B-A3B", "Qwen3-8B", "GPT-OSS-20B", "GPT-OSS-120B", "OLMoE-1B-7B"],
            "kind": ["dense", "moe", "dense", "moe", "moe", "moe"],
            "hub": ["Qwen/a", "Qwen/b", "Qwen/c", "openai/d", "openai/e", None],
        }
    )
    partitions = {tuple(pd.factorize(np.array(each))[0]) for each in inference.groupings(models)}
    assert partitions == {(0, 1, 0, 1, 1, 1), (0, 1, 0, 2, 2, 3)}


def test_a_draw_counts_where_it_has_a_value_of_both_in_every_model() -> None:
    x = inference.Values(["a", "b"], np.array([[1.0, 2], [10, 20], [11, 21], [12, 22]]))
    y = inference.Values(["a", "b"], np.array([[3.0, 4], [30, 40], [math.nan, 41], [32, 42]]))
    x_BN, y_BN = inference.paired(x, y, ["b", "a"])
    assert x_BN.tolist() == [[2, 1], [20, 10], [22, 12]]
    assert y_BN.tolist() == [[4, 3], [40, 30], [42, 32]]
    alone, _ = inference.paired(inference.Values(["a"], np.array([[5.0]])), y, ["a"])
    assert alone.tolist() == [[5]] * 3


def test_windows_needed_are_the_fewest_that_stay_close_to_the_full_set() -> None:
    table = pd.DataFrame({"definition": "arb8020", "windows": [1, 2, 3, 4], "jaccard": [0.5, 0.97, 0.9, 1.0]})
    empty = table.assign(definition="llm_int8", jaccard=math.nan)
    (first, second) = conclusions(sweep(), {}, {}, {"m": pd.concat([table, empty])})["windows_needed"]
    assert (first["windows"], first["of"]) == (4, 4)
    assert second["windows"] is None


def test_several_tests_share_one_error() -> None:
    assert answer.holm({"a": 0.01, "b": 0.02, "c": 0.5}) == pytest.approx({"a": 0.03, "b": 0.04, "c": 0.5})


def test_files_are_read_and_written(tmp_path: Path) -> None:
    summary = sweep(jump=45)
    paths: dict[str, dict[str, Path]] = {name: {} for name in ("draws", "perplexity", "convergence")}
    for model, drawn in draws(summary).items():
        for name, files in paths.items():
            files[model] = tmp_path / f"{model}.{name}"
        write_table(paths["draws"][model], drawn, {})
        write_table(paths["convergence"][model], pd.DataFrame(columns=["definition", "windows", "jaccard"]), {})
        each = {"loss": [3.0, 4.0], "weight": [2, 2], "nats": [3.0, 4.0], "bytes": [9, 9]}
        paths["perplexity"][model].write_text(json.dumps({"per_sequence": each}))
    write_table(tmp_path / "summary.parquet", summary, {"lineage": {"summary": "a"}})
    outputs = tmp_path / "inference.parquet", tmp_path / "inference.json"
    inference.infer(tmp_path / "summary.parquet", *paths.values(), *outputs, {"inference": "b", "summary": "a"})
    table, origin = read_table(outputs[0], "inference", "b")
    assert list(table.columns) == list(TRENDS)
    assert origin["lineage"]["inference"] == "b"
    for name in ("reduction Mixtral-8x7B", "perplexity Mixtral-8x7B"):
        with pytest.raises(StaleFile, match="Mixtral-8x7B"):
            inference.infer(tmp_path / "summary.parquet", *paths.values(), *outputs, {"inference": "b", name: "other"})
    written = json.loads(outputs[1].read_text())
    assert "jumps by" in written["answer"]
    assert len(written["trends"]) == len(table)


def test_resampling_counts_are_those_of_every_other_interval() -> None:
    each = {"loss": [3.0, 4.0, 5.0], "weight": [2, 2, 2], "nats": [3.0, 4.0, 5.0], "bytes": [9, 9, 9]}
    found = inference.resampled(each, resampling_counts(3))
    assert found["perplexity"].shape == (1000,)
    assert found["perplexity"].min() >= math.exp(1.5)
