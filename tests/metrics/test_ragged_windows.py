"""Windows that are not equally long: every share is taken over the own length of a window."""

# Shapes: N tensor, S sequence, T position, C channel.

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from outlier_features.capture.hooks import observed
from outlier_features.capture.run import capture
from outlier_features.config.entries import Definition
from outlier_features.metrics import criteria, evidence, outlier_features
from outlier_features.metrics import layers as metrics
from outlier_features.metrics.bootstrap import resampling_counts
from outlier_features.metrics.draws import draws
from outlier_features.models import sites
from outlier_features.site_names import POSITIONAL
from outlier_features.statistics.shards import Statistics
from small_models import BLOCKS, HIDDEN, VOCABULARY, capture_settings, write_windows
from transformers import AutoModelForCausalLM

LENGTHS = [33, 12, 40, 25, 34]
DEFINITIONS = {
    "arb8020": Definition(sites=("attn_in", "mlp_in"), scope="sequence", rounding="bfloat16"),
    "llm_int8": Definition(sites=("attn_in", "mlp_in")),
    "strict": Definition(sites=("mlp_in",), threshold=4.0, min_layers=0.6, min_positions=0.3),
}
Activations = dict[str, list[np.ndarray]]
"""Per site, the activations (N, T, C) of each window in float64."""


@pytest.fixture(scope="module")
def ragged_ids() -> list[np.ndarray]:
    generator = np.random.default_rng(11)
    return [generator.integers(VOCABULARY, size=length) for length in LENGTHS]


@pytest.fixture(scope="module")
def ragged_tokens(ragged_ids, tmp_path_factory) -> Path:
    return write_windows(tmp_path_factory.mktemp("ragged") / "windows.arrow", ragged_ids)


@pytest.fixture(scope="module")
def ragged(checkpoints, ragged_tokens, tmp_path_factory) -> dict[str, Statistics]:
    root = tmp_path_factory.mktemp("statistics")
    for kind, checkpoint in checkpoints.items():
        capture(checkpoint, ragged_tokens, root / f"{kind}.json", capture_settings(), {"statistics": "test"})
    return {kind: Statistics([root / f"{kind}.json"]) for kind in checkpoints}


@pytest.fixture(scope="module")
def activations(checkpoints: dict[str, Path], ragged_ids: list[np.ndarray]) -> dict[str, Activations]:
    """What an ordinary forward shows at each site, window by window."""
    result: dict[str, Activations] = {}
    for kind, checkpoint in checkpoints.items():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        seen: dict[str, list[np.ndarray]] = defaultdict(list)
        with ExitStack() as hooks, torch.inference_mode():
            for block in model.model.layers:
                probes = sites.probes(block, POSITIONAL)
                hooks.enter_context(observed(probes, lambda site, x, seen=seen: seen[site].append(x.double().numpy())))
            for window in ragged_ids:
                model(torch.from_numpy(window).long()[None], use_cache=False)
        result[kind] = {
            site: [np.stack(parts[start : start + BLOCKS]) for start in range(0, len(parts), BLOCKS)]
            for site, parts in seen.items()
        }
    return result


def hits(raw: Activations, definition: Definition, relative: bool) -> list[np.ndarray]:
    """Return where each tensor hits (N, T, C), window by window."""
    found = []
    for window in range(len(LENGTHS)):
        x_NTC = np.concatenate([raw[site][window] for site in definition.sites])
        if definition.rounding and not relative:
            x_NTC = torch.from_numpy(x_NTC).bfloat16().double().numpy()
        unit = np.sqrt((x_NTC**2).mean((1, 2), keepdims=True)) if relative else 1.0
        found.append(np.abs(x_NTC) / unit >= definition.threshold)
    return found


def naive_features(hit: list[np.ndarray], members: list[int], definition: Definition) -> pd.DataFrame:
    """Return the features over some windows put one after another."""
    hit_NTC = np.concatenate([hit[member] for member in members], axis=1)
    columns = {
        "channel": np.arange(HIDDEN),
        "layer_share": hit_NTC.any(1).mean(0),
        "position_share": hit_NTC.any(0).mean(0),
        "position_share_mean": hit_NTC.mean((0, 1)),
        "hit_count": hit_NTC.sum((0, 1)),
    }
    table = pd.DataFrame(columns)
    enough = (table["layer_share"] >= definition.min_layers) & (table["position_share"] >= definition.min_positions)
    return table[enough & (table["hit_count"] > 0)]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_shares_are_over_the_length_of_each_window(kind, name, relative, ragged, activations) -> None:
    definition = DEFINITIONS[name]
    (found,) = evidence.gather(ragged[kind], [criteria.Criterion(name, definition, relative)])
    hit = hits(activations[kind], definition, relative)
    each = [[window] for window in range(len(LENGTHS))]
    scopes = each if definition.scope == "sequence" else [list(range(len(LENGTHS)))]
    expected = pd.concat([naive_features(hit, members, definition) for members in scopes])
    table = outlier_features.features(found)
    assert len(table)
    np.testing.assert_allclose(table[expected.columns].astype(float), expected.astype(float), rtol=1e-12)


@pytest.mark.parametrize("relative", [False, True])
def test_a_draw_weighs_each_sequence_with_its_length(relative: bool, ragged, activations) -> None:
    definition = Definition(sites=("attn_in", "mlp_in"), threshold=4.0, min_positions=0.2)
    (found,) = evidence.gather(ragged["moe"], [criteria.Criterion("x", definition, relative)])
    hit = hits(activations["moe"], definition, relative)
    expected = defaultdict(list)
    for counts in resampling_counts(len(LENGTHS)):
        table = naive_features(hit, np.repeat(np.arange(len(LENGTHS)), counts).tolist(), definition)
        expected["outlier_count"].append(len(table))
        expected["mean_position_pct"].append(100 * table["position_share"].mean())
    drawn = draws(found)
    for name, values in expected.items():
        np.testing.assert_allclose(drawn[name], values, rtol=1e-12)


def test_each_window_reads_as_if_it_were_captured_alone(checkpoints, ragged_tokens, ragged, tmp_path) -> None:
    wanted = criteria.criteria({"arb8020": DEFINITIONS["arb8020"]})
    together = [outlier_features.features(found) for found in evidence.gather(ragged["moe"], wanted)]
    for window in range(len(LENGTHS)):
        path = tmp_path / f"{window}.json"
        settings = capture_settings()
        capture(checkpoints["moe"], ragged_tokens, path, settings, {"statistics": "test"}, windows=[window])
        alone = Statistics([path])
        assert np.array_equal(alone.losses()[0], ragged["moe"].losses()[window, : LENGTHS[window] - 1])
        for found, table in zip(evidence.gather(alone, wanted), together, strict=True):
            expected = table[table["sequence"] == window].drop(columns=["sequence", "sequence_count"])
            columns = outlier_features.features(found).drop(columns=["sequence", "sequence_count"])
            pd.testing.assert_frame_equal(columns, expected.reset_index(drop=True), check_exact=True)


def test_windows_captured_in_parts_give_the_tables_of_one_pass(checkpoints, ragged_tokens, ragged, tmp_path) -> None:
    parts = {"a": [3, 1], "b": [4, 0, 2]}
    for name, members in parts.items():
        path = tmp_path / f"{name}.json"
        settings = capture_settings()
        capture(checkpoints["dense"], ragged_tokens, path, settings, {"statistics": "test"}, windows=members)
    merged, whole = Statistics([tmp_path / f"{name}.json" for name in parts]), ragged["dense"]
    assert merged.facts == whole.facts
    assert whole.facts["positions_per_window"] == LENGTHS
    assert whole.facts["positions"] == max(LENGTHS)
    pd.testing.assert_frame_equal(metrics.layers(merged, 6.0), metrics.layers(whole, 6.0), check_exact=True)
    assert np.array_equal(merged.losses(), whole.losses(), equal_nan=True)


@pytest.mark.parametrize("token_class", ["all", "first", "rest"])
@pytest.mark.parametrize("site", ["mlp_in", "residual"])
def test_metrics_take_each_window_at_its_length(site: str, token_class: str, ragged, activations) -> None:
    part = {"all": slice(None), "first": slice(0, 1), "rest": slice(1, None)}[token_class]
    layers = metrics.layers(ragged["moe"], hit_threshold=6.0).set_index(["site", "block", "token_class"])
    for block in range(BLOCKS):
        row, windows = layers.loc[(site, block, token_class)], [x[block, part] for x in activations["moe"][site]]
        x_TC = np.concatenate(windows)
        square_C = (x_TC**2).mean(0)
        assert row["rms"] == pytest.approx(np.sqrt((x_TC**2).mean()), rel=1e-5)
        assert row["kurtosis_neuron_rms"] == pytest.approx((square_C**2).mean() / square_C.mean() ** 2, rel=1e-5)
        token_T = (x_TC**4).mean(1) / x_TC.std(1) ** 4 - 3
        assert row["kurtosis_token_excess"] == pytest.approx(np.maximum(token_T, 0).mean(), rel=1e-4, abs=1e-6)
        centred = [x - x.mean() for x in windows]
        flattened = np.mean([(x**4).mean() / (x**2).mean() ** 2 for x in centred])
        assert row["kurtosis_flattened"] == pytest.approx(flattened, rel=1e-4)
        if site == "residual":
            ratio_T = np.abs(x_TC).max(1) / np.median(np.abs(x_TC), axis=1)
            assert row["mmr"] == pytest.approx(ratio_T.mean(), rel=1e-5)
        else:
            assert row["hit_share"] == pytest.approx((np.abs(x_TC) >= 6).mean())
        if token_class != "first":
            correlations = []
            for x in windows:
                gram, n = x @ x.T / (x**2).mean() / HIDDEN, len(x)
                correlations.append((gram.sum() - np.trace(gram)) / (n * (n - 1)))
            assert row["input_correlation"] == pytest.approx(np.mean(correlations), rel=1e-4, abs=1e-6)


def test_every_token_of_every_window_is_routed(ragged) -> None:
    routers = metrics.layers(ragged["moe"], hit_threshold=6.0).query("site == 'router'")
    assert [sum(tokens) for tokens in routers["expert_tokens"]] == [2 * sum(LENGTHS)] * 2
