"""Summaries of runs to be compared, written by hand."""

import pandas as pd
from outlier_features.comparison.compare import QUANTITIES
from outlier_features.comparison.recorded_run import Run

ORIGIN = {
    "lineage": {"summary": "aaa", "reduction a": "1", "reduction b": "2", "perplexity a": "3", "perplexity b": "4"},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
}


def row(model="a", definition="arb8020", **columns):
    """Return a row of a summary; every value with an interval is 50 (40-60)."""
    values = {"model": model, "label": model.upper(), "kind": "dense", "hub": None, "total_params": 1_000_000}
    values |= {"corpus": "sotu", "sequences": 16, "length": 512, "windows": "packed", "windows_digest": "f00d"}
    values |= {"definition": definition, "threshold": 6.0, "dtype": "float32"}
    values |= {"min_layers": 0.25, "min_positions": 0.06, "scope": "sequence", "sites": "attn_in+mlp_in"}
    values |= {"rounding": "bfloat16", "interval_note": None}
    for quantity in QUANTITIES:
        values[quantity.column] = 50.0
        if quantity.column not in ("kurtosis_max", "massive_count"):
            values |= {f"{quantity.column}_low": 40.0, f"{quantity.column}_high": 60.0}
    return values | columns


def run(*rows, origin=ORIGIN):
    return Run(pd.DataFrame(rows), origin)


def verdict(comparison, quantity, model="a"):
    rows = comparison.rows
    (found,) = rows[(rows["quantity"] == quantity) & (rows["model"] == model)]["verdict"]
    return found


def interval(low, high, name="mean_layer_pct"):
    return {name: (low + high) / 2, f"{name}_low": low, f"{name}_high": high}
