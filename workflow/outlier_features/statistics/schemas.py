"""Schemas: the columns of the shards: of blocks, of coverage over sites, and of losses."""

import pyarrow as pa
import pyarrow.compute

_REAL, _WIDE, _INDEX = pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.int32())
_HITS = [
    ("hit_channel", _INDEX),
    ("hit_level", pa.list_(pa.uint8())),
    ("hit_count", _INDEX),
    ("rms_hit_channel", _INDEX),
    ("rms_hit_level", pa.list_(pa.uint8())),
    ("rms_hit_count", _INDEX),
]
"""Over the absolute grid of thresholds and over that in RMS: channels, the levels they reach, and how often."""

BLOCK_SCHEMA = pa.schema(
    [
        ("block", pa.int32()),
        ("site", pa.string()),
        ("window", pa.int32()),
        ("first", _REAL),
        ("max", _REAL),
        ("min", _REAL),
        ("sum", _WIDE),
        ("sum_2", _WIDE),
        ("sum_4", _WIDE),
        ("sum_3", pa.float64()),
        ("rms", pa.float64()),
        ("position_max_abs", _REAL),
        ("position_channel", _INDEX),
        ("position_rms", _REAL),
        ("position_kurtosis", _REAL),
        ("nan_count", pa.int64()),
        ("inf_count", pa.int64()),
        *_HITS,
        ("median_abs", pa.float64()),
        ("mmr", _REAL),
        ("massive_position", _INDEX),
        ("massive_channel", _INDEX),
        ("massive_token", _INDEX),
        ("massive_value", _REAL),
        ("expert_count", pa.int32()),
        ("top_k", pa.int32()),
        ("expert_choices", pa.list_(pa.int16())),
        ("expert_max_abs", _REAL),
    ]
)
"""One row per site and window of a block; a router's row has the site `router`. Columns are those that
`kernels.reference` computes: channel lists hold C values, position lists T of that window, `expert_choices` T x top_k;
`expert_max_abs` holds, for each expert, the largest |down-projection output| over the tokens routed to it, null if
there were none."""
COVERAGE_SCHEMA = pa.schema(
    [
        ("sites", pa.string()),
        ("window", pa.int32()),
        *_HITS,
    ]
)
"""One row per set of sites (joined by +) and window: at how many positions a channel reaches a level in any tensor."""
LOSS_SCHEMA = pa.schema([("window", pa.int32()), ("loss", _REAL)])
"""One row per window: the negative log-likelihood in nats of each token after the first."""
