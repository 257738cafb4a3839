"""Expert scores: how often each expert was chosen, how much it adds, and how many tokens all of them would need."""

# Shapes: E expert.

import math
from typing import Any

import numpy as np

from outlier_features.statistics.shards import BlockTable

FEW = (0, 1, 10, 100, 1000)
"""Numbers of tokens that calibration of an expert may ask for."""


def of_block(block: int, table: BlockTable) -> dict[str, Any] | None:
    """Return the experts of a block, None in a dense one.

    `reap` is the mean, over the tokens sent to an expert, of the router's weight times the norm of its output (Lasby et
    al. 2025); None without tokens, or where the experts are not handed the weights. `tokens_needed` says, for a
    number of tokens, how many the whole text needs so that every expert of the block sees so many, by the shares seen
    here; None where an expert saw none.
    """
    if "router" not in table.sites:
        return None
    router = table.site("router")
    count, top_k = (int(router.values(name)[0]) for name in ("expert_count", "top_k"))
    choices = np.concatenate(router.lists("expert_choices"))
    tokens_E = np.bincount(choices, minlength=count)
    inputs = table.experts.get("down_in")
    saliency_E = np.full(count, np.nan) if inputs is None else inputs.saliency_E
    return {
        "block": block,
        "tokens": tokens_E.tolist(),
        "reap": [_mean(total, tokens) for total, tokens in zip(saliency_E, tokens_E, strict=True)],
        "experts_with_at_most": {str(few): int((tokens_E <= few).sum()) for few in FEW},
        "tokens_needed": _needed(tokens_E, len(choices) // top_k),
    }


def _mean(total: float, tokens: int) -> float | None:
    return None if tokens == 0 or math.isnan(total) else float(total / tokens)


def _needed(tokens_E: np.ndarray, seen: int) -> dict[str, int | None]:
    """Return how many tokens the text needs so that the rarest expert sees each of FEW."""
    rarest = int(tokens_E.min())
    return {str(few): math.ceil(few * seen / rarest) if rarest else None for few in FEW if few}
