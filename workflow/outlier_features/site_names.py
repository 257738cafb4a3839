"""Site names: the tensors of a decoder block that are observed, each defined by what consumes it."""

from typing import Literal

SiteName = Literal["attn_in", "out_proj_in", "mlp_in", "residual"]

SITES: dict[SiteName, str] = {
    "attn_in": "input of the attention",
    "out_proj_in": "input of the output projection",
    "mlp_in": "input of the MLP or the experts, and of the router",
    "residual": "output of the block",
}
"""Every site in the order of a block, and what it is."""

MATRIX_INPUTS: tuple[SiteName, ...] = ("attn_in", "out_proj_in", "mlp_in")
"""The sites whose tensor matrices read; what a block returns goes to the norms of the next."""
