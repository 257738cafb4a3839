"""GPU loads: rows of an activation as float32, and values with NaN and infinity read as 0."""

# Shapes: T position, C channel; `t` and `c` are the positions and channels of one tile.

import triton
import triton.language as tl


@triton.jit
def load(x, stride, t, is_row, c, channels, IS_LAST: tl.constexpr = True):
    """Return rows as float32, 0 where there is no value; without IS_LAST there are STEP rows."""
    mask = (c < channels)[None, :]
    if IS_LAST:
        mask = mask & is_row[:, None]
    return tl.load(x + t[:, None] * stride + c[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def finite(value):
    """Return values (float32) with NaN and infinity read as 0."""
    return tl.where(tl.abs(value) < float("inf"), value, 0.0)
