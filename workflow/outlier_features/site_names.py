"""Site names: the tensors of a decoder block that are observed, each defined by what consumes it."""

from typing import Literal, get_args

SiteName = Literal["attn_in", "keys", "values", "out_proj_in", "mlp_in", "down_in", "shared_down_in", "residual"]

MatrixInput = Literal["attn_in", "out_proj_in", "mlp_in", "down_in", "shared_down_in"]

PositionalSite = Literal["attn_in", "out_proj_in", "mlp_in", "residual"]
"""Those with one row a position in every block, which definitions of outlier features may name."""
POSITIONAL: tuple[SiteName, ...] = get_args(PositionalSite)

SITES: dict[SiteName, str] = {
    "attn_in": "input of the attention",
    "keys": "keys as attention is handed them",
    "values": "values as attention is handed them",
    "out_proj_in": "input of the output projection",
    "mlp_in": "input of the MLP or the experts, and of the router",
    "down_in": "input of the MLP's or the experts' last matrix",
    "shared_down_in": "input of the shared expert's last matrix",
    "residual": "output of the block",
}
"""Every site in the order of a block, and what it is."""

MATRIX_INPUTS: tuple[MatrixInput, ...] = get_args(MatrixInput)
"""The sites whose tensor matrices read; what a block returns goes to the norms of the next."""

INNER: tuple[SiteName, ...] = ("down_in", "shared_down_in")
"""The sites inside an MLP, as wide as its hidden layer."""

CACHED: tuple[SiteName, ...] = ("keys", "values")
"""The sites that a key-value cache would hold, head after head; a block whose attention hands none on has no row."""
