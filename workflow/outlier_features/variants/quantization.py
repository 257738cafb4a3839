"""Quantization: what each format costs, and what of that an option takes away again."""

# Shapes: S sequence (window).

from typing import Any

import numpy as np
import pandas as pd

from outlier_features.config.variants import OPTIONS
from outlier_features.metrics import intervals
from outlier_features.text.windows import TokenWindows
from outlier_features.variants.results import Results
from outlier_features.variants.runs import FORMAT, NOISE

QUANTIZATION_COLUMNS = {
    "variant": "string",
    "format": "string",
    "option": "string",
    "weight_bits": "float64",
    "activation_bits": "float64",
    "perplexity": "float64",
    "delta_nll": "float64",
    "delta_nll_low": "float64",
    "delta_nll_high": "float64",
    "noise": "float64",
    "recovered": "float64",
    "nonfinite_windows": "int32",
}
"""One row per variant. `delta_nll` is its mean loss per predicted token minus the plain model's, in nats, with the 95 %
interval of that paired difference over windows (`intervals.ratio`; null below 8 windows). `noise` is how far the same
format moves when its inputs are multiplied by 1 + 2^-18: a smaller difference says nothing. `recovered` is the share of
the untreated format's `delta_nll` that an option takes away; null without an untreated twin in the same pass, or where
its `delta_nll` is not above its noise. Bits are those of a value that is quantised, with its share of block scales.
Where a loss is not finite, `nonfinite_windows` counts the windows, and the difference is null."""


def quantization(results: Results, text: TokenWindows) -> pd.DataFrame:
    """Return what each variant costs, with QUANTIZATION_COLUMNS."""
    losses, tokens_S = results.losses(text)
    numbers = {(run["name"], run["kind"]): number for number, run in enumerate(results.runs)}
    rows = []
    for (name, kind), number in numbers.items():
        if kind == FORMAT:
            twin = losses.get(numbers.get((name, NOISE), -1))
            rows.append(_row(results.runs[number], losses[0], losses[number], twin, tokens_S))
    for row in rows:
        row["recovered"] = _recovered(row, rows)
    return pd.DataFrame(rows, columns=list(QUANTIZATION_COLUMNS)).astype(QUANTIZATION_COLUMNS)


def _row(
    run: dict[str, Any], plain_S: np.ndarray, own_S: np.ndarray, twin_S: np.ndarray | None, tokens_S: np.ndarray
) -> dict[str, Any]:
    is_bad_S = ~np.isfinite(own_S)
    found = {name: run[name] for name in ("format", "option", "weight_bits", "activation_bits", "entry")}
    found |= {"variant": run["name"], "nonfinite_windows": int(is_bad_S.sum())}
    if is_bad_S.any():
        return found
    delta = intervals.ratio(own_S - plain_S, tokens_S, least=-np.inf)
    with np.errstate(over="ignore"):
        found |= {**delta.columns("delta_nll"), "perplexity": float(np.exp(own_S.sum() / tokens_S.sum()))}
    if twin_S is not None and np.isfinite(twin_S).all():
        found["noise"] = abs(float((twin_S - own_S).sum() / tokens_S.sum()))
    return found


def _recovered(row: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """Return which share of an untreated format's damage an option takes away; NaN where that cannot be said."""
    if not any(name in row["entry"] for name in OPTIONS):
        return np.nan
    bare = _without_option(row["entry"])
    twins = [other for other in rows if not set(OPTIONS) & set(other["entry"])]
    untreated = next((other for other in twins if _without_option(other["entry"]) == bare), None)
    damage = np.nan if untreated is None else untreated.get("delta_nll", np.nan)
    if untreated is None or not damage > untreated.get("noise", 0.0):
        return np.nan
    return float(1 - row.get("delta_nll", np.nan) / damage)


def _without_option(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in (*OPTIONS, "calibration", "windows")}
