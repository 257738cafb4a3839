"""Perplexity and bits per byte, from the per-token losses of the capture pass."""

# Shapes: S sequence, T position, B bootstrap draw.

from pathlib import Path
from typing import Any

import numpy as np

from outlier_features import atomic, provenance
from outlier_features.bootstrap import estimate, resampling_counts
from outlier_features.corpora import TokenWindows, read_windows
from outlier_features.lineage import Lineage
from outlier_features.shards import Statistics


def write_perplexity(manifest: Path, tokens: Path, output: Path, lineage: Lineage) -> None:
    """Write the perplexity of a model on its windows to `output` as JSON."""
    statistics = Statistics([manifest], lineage.get("statistics"))
    windows = read_windows(tokens, lineage.get("tokens"))
    found = perplexity(statistics.losses(), windows, statistics.facts["windows"])
    origin = provenance.record(lineage, statistics=statistics.provenance)
    atomic.write_json(output, {**found, "provenance": origin})


def perplexity(loss_ST: np.ndarray, windows: TokenWindows, chosen: list[int]) -> dict[str, Any]:
    """Return exp of the mean loss per predicted token, bits per byte, and how the text was cut.

    `loss_ST` is (S, T - 1) in nats, for the windows `chosen`. No token is predicted twice: where windows overlap, a
    later one counts only for what is new in it. Intervals are 95 % bootstrap intervals over sequences.
    """
    position_T = np.arange(1, loss_ST.shape[1] + 1)
    scored_ST = position_T >= windows.scored_from_S[chosen][:, None]
    nats_S = np.where(scored_ST, loss_ST.astype(np.float64), 0).sum(1)
    tokens_S, bytes_S = scored_ST.sum(1), np.where(scored_ST, windows.bytes_ST[chosen, 1:], 0).sum(1)
    counts_BS = resampling_counts(len(nats_S))

    def mean_loss(weights: np.ndarray) -> np.ndarray:
        return weights @ nats_S / (weights @ tokens_S)

    def bits_per_byte(weights: np.ndarray) -> np.ndarray:
        return weights @ nats_S / np.log(2) / (weights @ bytes_S)

    once_1S = np.ones((1, len(nats_S)))
    interval = {
        "perplexity": estimate(np.exp(mean_loss(once_1S))[0], np.exp(mean_loss(counts_BS))),
        "bits_per_byte": estimate(bits_per_byte(once_1S)[0], bits_per_byte(counts_BS)),
        "loss": estimate(mean_loss(once_1S)[0], mean_loss(counts_BS)),
    }
    return {
        **{name: found.value for name, found in interval.items()},
        "tokens": int(tokens_S.sum()),
        "bytes": int(bytes_S.sum()),
        "sequences": len(nats_S),
        **windows.cut,
        "interval": {name: [found.low, found.high] for name, found in interval.items()},
    }
