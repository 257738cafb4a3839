"""Schemas: the columns of the shards of a pass with variants; sums only, so that parts add up."""

import pyarrow as pa

SQNR_SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("block", pa.int32()),
        ("site", pa.string()),
        ("matrix", pa.string()),
        ("expert", pa.int32()),
        ("parameters", pa.int64()),
        ("signal", pa.float64()),
        ("error", pa.float64()),
        ("signal_rest", pa.float64()),
        ("error_rest", pa.float64()),
        ("output_signal", pa.float64()),
        ("output_error", pa.float64()),
        ("output_error_kept", pa.float64()),
        ("top_channel", pa.int32()),
        ("kept_channels", pa.int64()),
        ("windows", pa.int32()),
    ]
)
"""One row per variant, block and matrix, and expert of fused ones (null: all of them); sums over compared windows.

`top_channel` is the one of largest |x| on the calibration windows; `_rest` leaves it out, `output_error_kept` is the
error of y where it stays in 16 bit. `kept_channels` is a sum over `windows`. `parameters` are those of the matrix.
"""
EFFECT_SCHEMA = pa.schema(
    [
        ("run", pa.int32()),
        ("block", pa.int32()),
        ("window", pa.int32()),
        ("attention_top1", pa.float64()),
        ("attention_entropy", pa.float64()),
        ("attention_sink", pa.float64()),
        ("tokens", pa.int64()),
        ("jaccard", pa.float64()),
        ("routing_kl", pa.float64()),
        ("load", pa.list_(pa.int64())),
    ]
)
"""One row per run whose effects are looked at, block and window; `jaccard` and `routing_kl` are sums over `tokens`."""
LOSS_SCHEMA = pa.schema([("run", pa.int32()), ("window", pa.int32()), ("loss", pa.list_(pa.float32()))])
"""One row per run and window: the negative log-likelihood in nats of each token after the first."""
