"""SQNR table: how much of each matrix's input and output each format leaves, in decibels, beside the sums."""

import numpy as np
import pandas as pd

from outlier_features.metrics.decibels import decibels
from outlier_features.variants.results import Results

SQNR_COLUMNS = {
    "variant": "string",
    "block": "int32",
    "site": "string",
    "matrix": "string",
    "expert": "Int32",
    "parameters": "int64",
    "signal": "float64",
    "error": "float64",
    "signal_rest": "float64",
    "error_rest": "float64",
    "output_signal": "float64",
    "output_error": "float64",
    "sqnr_activation_db": "float64",
    "sqnr_rest_db": "float64",
    "sqnr_output_db": "float64",
    "top_channel": "int32",
    "gain_top_channel_db": "float64",
    "kept_channels": "float64",
}
"""One row per variant, block and matrix, and per expert of fused ones (`expert` null: all of them).

Sums of squares are over the compared windows, on the plain model's inputs: of X, of what X comes back as minus X, both
without the channel of largest |x| on the calibration windows (`_rest`), of y = X W^T and of its error. Decibels are 10
log10 of signal over error, infinite where nothing is lost. `gain_top_channel_db` is what `sqnr_output_db` gains when
`top_channel` stays in 16 bit, null for variants with an option. `kept_channels` is the mean over windows.
"""


def sqnr(results: Results) -> pd.DataFrame:
    """Return the sums of a pass with their ratios, with SQNR_COLUMNS."""
    table = results.sums()
    table["sqnr_activation_db"] = decibels(table["signal"], table["error"])
    table["sqnr_rest_db"] = decibels(table["signal_rest"], table["error_rest"])
    table["sqnr_output_db"] = decibels(table["output_signal"], table["output_error"])
    kept = table["output_error_kept"].astype("float64")
    gain = decibels(table["output_signal"], kept) - table["sqnr_output_db"]
    table["gain_top_channel_db"] = gain.where(kept.notna() & np.isfinite(gain))
    table["kept_channels"] = table["kept_channels"] / table["windows"]
    return table[list(SQNR_COLUMNS)].astype(SQNR_COLUMNS)
