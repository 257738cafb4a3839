"""Tensors in a terminal: what is estimated of int8, and what is predicted where the table of damage has rows."""

import io
import math

import pandas as pd
from outlier_features.cli.show_answer import show_layers

LAYERS = pd.DataFrame(
    [
        {"block": block, "site": site, "int8_tensor_db": ratio, "int8_token_db": ratio + 5, "max_abs": 8.0, "rms": 1.0}
        | {"kurtosis_neuron_rms": 2.0}
        for block, site, ratio in [(0, "attn_in", 30.0), (1, "mlp_in", 20.0), (1, "residual", math.nan)]
    ]
)
DAMAGE = pd.DataFrame(
    [
        (0, "attn_in", "absmax", 31.25),
        (0, "attn_in", "mxfp4", 17.0),
        (0, "attn_in", "row_wise", 33.0),
        (1, "mlp_in", "absmax", 12.5),
        (1, "mlp_in", "mxfp4", 19.0),
        (1, "mlp_in", "row_wise", 30.5),
    ],
    columns=["block", "site", "format", "predicted_sqnr_db"],
)


def rows(**options) -> list[str]:
    """Return what is written of each tensor, its cells apart by one space."""
    stream = io.StringIO()
    show_layers({"Model": LAYERS}, stream, **options)
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_the_tensors_that_lose_most_come_first_with_what_is_predicted_of_them() -> None:
    found = [line for line in rows(damage={"Model": DAMAGE}) if "_in" in line]
    assert found == ["1 mlp_in 12.5 30.5 absmax 12.5 8 1 2.0", "0 attn_in 31.2 33.0 mxfp4 17.0 8 1 2.0"]
    assert any("worst format" in line for line in rows(damage={"Model": DAMAGE}))


def test_without_predictions_there_are_no_columns_of_them() -> None:
    for options in ({}, {"damage": {}}, {"damage": {"Model": DAMAGE.head(0)}}):
        text = rows(**options)
        assert "1 mlp_in 20.0 25.0 8 1 2.0" in text
        assert not any("worst format" in line for line in text)
