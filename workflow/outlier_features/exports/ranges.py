"""Ranges: how far each tensor reaches, with position 0 and without, and how much headroom other text may need.

A scale that is fixed by the largest |x| of a capture saturates where other text reaches further. Windows are drawn
alike, so one more of them does so with a probability of at most 1 / (1 + windows); how far beyond, the windows
themselves tell: the largest of them over the largest of all others.
"""

# Shapes: S sequence, F row of position 0, C channel.

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from outlier_features.site_names import CACHED, MATRIX_INPUTS
from outlier_features.statistics.shards import BlockTable, SiteTable


def of_block(block: int, table: BlockTable, readers: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return the range of every matrix input and of keys and values of a block; `readers` are the matrices by site."""
    return [
        {"block": block, "site": site, "modules": list(readers.get(site, ())), **_of_site(table.site(site))}
        for site in (*MATRIX_INPUTS, *CACHED)
        if site in table.sites
    ]


def _of_site(site: SiteTable) -> dict[str, Any]:
    rest_S, largest_S = (each.max(1).astype(np.float64) for each in (site.rest_max_abs, site.max_abs))
    return {
        "max_abs": float(largest_S.max()),
        "max_abs_rest": float(rest_S.max()) if site.statistics.lengths.max() > 1 else None,
        "smallest_window": float(largest_S.min()),
        "median_window": float(np.median(largest_S)),
        "headroom_needed": _headroom(largest_S),
    }


def _headroom(largest_S: np.ndarray) -> float | None:
    """Return what the widest window would have needed, had the others fixed the scale; None where they fix none."""
    others = np.sort(largest_S)[:-1]
    return float(largest_S.max() / others[-1]) if len(others) and others[-1] > 0 else None
