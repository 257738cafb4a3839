"""Ranges: how far tensors reach in each window, against hooks in float64."""

import numpy as np
import pytest
from exports import Exported, consumers
from outlier_features.capture.run import capture
from outlier_features.exports import ranges
from outlier_features.exports.matrix_inputs import MatrixInputs
from outlier_features.site_names import SITES
from outlier_features.statistics.shards import Statistics
from small_models import BLOCKS, capture_settings, write_windows

SITES_OF_BLOCK = ["attn_in", "out_proj_in", "mlp_in", "down_in", "keys", "values"]


def of(found: Exported) -> dict[tuple[int, str], dict]:
    return {(entry["block"], entry["site"]): entry for entry in found.calibration["ranges"]}


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_ranges_are_those_of_each_window_that_hooks_see(kind: str, exported, inputs) -> None:
    found = of(exported[kind])
    assert list(found) == [(block, site) for block in range(BLOCKS) for site in SITES_OF_BLOCK]
    for tensor, modules in consumers(kind).items():
        block, site = tensor.split(".")
        entry = found[int(block), site]
        assert entry["modules"] == modules
        if (x_STC := inputs[kind].get(modules[-1])) is not None:
            largest_S = np.abs(x_STC).max((1, 2))
            assert entry["max_abs"] == largest_S.max()
            assert entry["max_abs_rest"] == np.abs(x_STC[:, 1:]).max()
            assert (entry["smallest_window"], entry["median_window"]) == (largest_S.min(), np.median(largest_S))
            assert entry["headroom_needed"] == pytest.approx(largest_S.max() / np.sort(largest_S)[-2], rel=1e-12)


def test_the_range_of_routed_experts_is_that_over_all_of_them(exported, expert_inputs) -> None:
    for block in (1, 2):
        rows = [expert_inputs[f"model.layers.{block}.mlp.experts.{expert}.down_proj"] for expert in range(6)]
        largest = max(np.abs(values).max() for values in rows)
        assert of(exported["moe"])[block, "down_in"]["max_abs"] == pytest.approx(largest, rel=1e-5)


def test_one_window_says_nothing_of_headroom(checkpoints, tmp_path) -> None:
    tokens = write_windows(tmp_path / "tokens.arrow", np.arange(20)[None])
    settings = capture_settings(sites=tuple(SITES))
    capture(checkpoints["dense"], tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    ranges = of(Exported(tmp_path, [tmp_path / "x.json"], tokens))
    assert {entry["headroom_needed"] for entry in ranges.values()} == {None}
    assert all(entry["smallest_window"] == entry["max_abs"] > 0 for entry in ranges.values())


@pytest.mark.parametrize("lengths", [(1, 1), (1, 20)])
def test_a_window_of_one_token_counts_with_its_position_0(lengths, checkpoints, tmp_path) -> None:
    tokens = write_windows(tmp_path / "tokens.arrow", [np.arange(3, 3 + length) for length in lengths])
    settings = capture_settings(sites=tuple(SITES))
    capture(checkpoints["dense"], tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    statistics = Statistics([tmp_path / "x.json"])
    table = statistics.block(0)
    (entry, *_) = ranges.of_block(0, table, {})
    assert entry["smallest_window"] == np.abs(table.site("attn_in").first[0]).max()
    has_rest = max(lengths) > 1
    assert (entry["max_abs_rest"] is not None) == has_rest
    for found in MatrixInputs(statistics, tmp_path / "x.json").of_block(0, table):
        assert (found.rest_max_abs_C is not None) == has_rest
        assert np.isfinite(found.max_abs_C).all()
