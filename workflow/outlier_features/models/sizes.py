"""Sizes: those of a model that decide what measuring it takes. Arithmetic only, no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number, by its type."""


@dataclass(frozen=True)
class Footprint:
    """The sizes of a model that decide what measuring it takes. Parameters are counts, not bytes."""

    architecture: str
    counts: Mapping[str, Any]
    """Of parameters: total, active by each convention, of the embedding, of experts; `parameters` has the words."""
    blocks: int
    channels: int
    vocabulary: int
    block_params: int
    """Of the largest decoder block."""
    bank_params: int
    """Of the largest fused experts of a block; 0 in a dense model."""
    resident_params: int
    """Outside the decoder blocks: embedding, head, final norm."""
    heads: int
    head_channels: int
    """Channels of one attention head."""
    inner_channels: int
    """Values one token has inside an MLP: gate, up and their product, over all experts it passes."""
    is_attention_materialised: bool
    """Whether attention keeps its scores, one a head and pair of positions."""
    stored_bytes: int
    """What the weights take on disk."""

    def plain(self) -> dict[str, Any]:
        """Return the footprint as plain values."""
        return asdict(self)
