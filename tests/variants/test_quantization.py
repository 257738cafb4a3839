"""The table of formats: differences, intervals, noise, and what options recover, from losses written by hand."""

import numpy as np
import pandas as pd
import pytest
from outlier_features.config.variants import Variant
from outlier_features.text.windows import TokenWindows
from outlier_features.variants.quantization import QUANTIZATION_COLUMNS, quantization
from outlier_features.variants.treatments import format_of

WINDOWS, LENGTH = 10, 5
TEXT = TokenWindows(
    np.zeros((WINDOWS, LENGTH), int), np.full((WINDOWS, LENGTH), 2), np.array([1] + [2] * (WINDOWS - 1)), {"cut": {}}
)
TOKENS = np.array([4] + [3] * (WINDOWS - 1))
PLAIN = np.linspace(5, 9, WINDOWS)


class Written:
    """Results whose losses are written by hand."""

    def __init__(self, deltas: dict[tuple[str, str], np.ndarray | float], entries: dict[str, dict]) -> None:
        self.windows = list(range(WINDOWS))
        self.runs: list[dict] = [{"name": "", "kind": "plain", "draw": None}]
        self._losses = {0: PLAIN}
        for (name, kind), delta in deltas.items():
            entry = Variant(**entries[name])
            form = format_of(entry)
            self._losses[len(self.runs)] = PLAIN + delta
            self.runs.append(
                {"name": name, "kind": kind, "draw": None, "format": entry.format, "option": entry.option}
                | {"weight_bits": form.weight_bits, "activation_bits": form.activation_bits}
                | {"entry": entry.canonical()}
            )

    def losses(self, _text: TokenWindows) -> tuple[dict[int, np.ndarray], np.ndarray]:
        return self._losses, TOKENS


def table(deltas: dict, entries: dict[str, dict]) -> pd.DataFrame:
    return quantization(Written(deltas, entries), TEXT).set_index("variant")


def test_a_difference_is_per_predicted_token_with_its_paired_interval_and_its_noise() -> None:
    delta = 0.1 * TOKENS + np.random.default_rng(0).normal(0, 0.02, WINDOWS)
    found = table({("a", "format"): delta, ("a", "noise"): delta - 0.003 * TOKENS}, {"a": {"format": "absmax"}})
    row = found.loc["a"]
    assert row["delta_nll"] == pytest.approx(delta.sum() / TOKENS.sum())
    assert row["delta_nll_low"] < row["delta_nll"] < row["delta_nll_high"]
    assert row["delta_nll_high"] - row["delta_nll_low"] < 0.02
    assert row["noise"] == pytest.approx(0.003)
    assert row["perplexity"] == pytest.approx(np.exp((PLAIN + delta).sum() / TOKENS.sum()))
    assert list(found.reset_index().columns) == list(QUANTIZATION_COLUMNS)


def test_a_difference_may_be_negative_to_both_ends() -> None:
    delta = -0.1 * TOKENS + np.random.default_rng(1).normal(0, 0.02, WINDOWS)
    row = table({("a", "format"): delta}, {"a": {"format": "absmax"}}).loc["a"]
    assert row["delta_nll_low"] < row["delta_nll"] < row["delta_nll_high"] < 0
    assert np.isnan(row["noise"])


def test_an_option_recovers_a_share_of_its_untreated_twin_only() -> None:
    entries = {
        "a": {"format": "absmax"},
        "kept": {"format": "absmax", "keep_channels": 2, "calibration": "measured"},
        "worse": {"format": "absmax", "smooth": 0.5},
        "other": {"format": "int4", "keep_channels": 2},
        "w": {"format": "absmax", "weights_only": True, "keep_channels": 1},
        "n": {"format": "nvfp4"},
        "n kept": {"format": "nvfp4", "keep_channels": 1},
    }
    sizes = {"a": 0.4, "kept": 0.1, "worse": 0.6, "other": 0.2, "w": 0.1, "n": 0.001, "n kept": 0.0005}
    deltas: dict = {(name, "format"): size * TOKENS for name, size in sizes.items()}
    deltas["n", "noise"] = deltas["n", "format"] + 0.01 * TOKENS
    found = table(deltas, entries)["recovered"]
    assert found["kept"] == pytest.approx(0.75)
    assert found["worse"] == pytest.approx(-0.5)
    assert found[["a", "other", "w", "n", "n kept"]].isna().all()


def test_a_loss_that_is_no_number_is_counted_and_says_nothing() -> None:
    delta = np.zeros(WINDOWS)
    delta[3] = np.nan
    found = table({("a", "format"): delta, ("b", "format"): 0.1}, {"a": {"format": "absmax"}, "b": {"format": "int4"}})
    assert found.loc["a", "nonfinite_windows"] == 1
    assert np.isnan(found.loc["a", "delta_nll"])
    assert found.loc["b", "delta_nll"] == pytest.approx(0.1 * WINDOWS / TOKENS.sum())
