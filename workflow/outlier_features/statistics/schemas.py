"""Schemas: the columns of the shards: of blocks, of coverage over sites, and of losses."""

import pyarrow as pa
import pyarrow.compute

from outlier_features.magnitude_bins import SPREADS

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
        ("first_rows", pa.int32()),
        ("heads", pa.int32()),
        *((f"{name}_{part}", _INDEX) for name in SPREADS for part in ("first", "rest")),
        ("median_abs", pa.float64()),
        ("mmr", _REAL),
        ("massive_position", _INDEX),
        ("massive_channel", _INDEX),
        ("massive_token", _INDEX),
        ("massive_value", _REAL),
        ("input_rms", _REAL),
        ("input_cosine", _REAL),
        ("attention_top1", pa.float64()),
        ("attention_entropy", pa.float64()),
        ("attention_sink", pa.float64()),
        ("expert_count", pa.int32()),
        ("top_k", pa.int32()),
        ("expert_choices", pa.list_(pa.int16())),
        ("expert_max_abs", _REAL),
        ("router_margin", _REAL),
        ("router_distance", pa.float64()),
        ("shared_energy", pa.float64()),
        ("routed_energy", pa.float64()),
    ]
)
"""One row per site and window of a block; a router's row has the site `router`, that of sampled attention `attention`.

Columns are those that `kernels.reference` computes: channel lists hold C values, `first` `first_rows` times as many
(the rows of position 0: one, or one for each expert it was sent to), position lists one for each row of that window, in
the order of positions and then of experts, `expert_choices` T x top_k. `heads` is the number of key-value heads, whose
channels follow each other. `expert_max_abs` holds, for each expert, the largest |down-projection output| over the
tokens routed to it, null if there were none. `router_margin` is, for each position, the logit of the last chosen expert
minus that of the first unchosen one, and `router_distance` the RMS distance between two rows of the router's matrix.
`input_rms` and `input_cosine` (of `residual`) are of what the block was handed, and between that and its output.
`shared_energy` and `routed_energy` are sums of squares of what the shared expert, by its gate, and the routed ones add;
null where the block itself adds them.
"""
EXPERT_SCHEMA = pa.schema(
    [
        ("block", pa.int32()),
        ("site", pa.string()),
        ("expert", pa.int32()),
        ("tokens", pa.int64()),
        ("sum_2", _WIDE),
        ("sum_2_low", _WIDE),
        ("max_abs", _REAL),
        ("saliency", pa.float64()),
        ("saliency_low", pa.float64()),
    ]
)
"""One row per expert of a block and site (`mlp_in`, `down_in`), over all windows of a capture and the tokens that the
router sent to it: how many, per channel the sum of squares and the largest |x|, and (at `down_in`) the sum of the
router's weight times the norm of the expert's output. A sum is `x + x_low`, which parts of a capture add up exactly.
An expert without tokens has 0 of them, and null."""
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
