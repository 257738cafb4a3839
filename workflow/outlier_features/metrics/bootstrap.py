"""Bootstrap over sequences: how a statistic of a text sample varies, by drawing the sequences anew."""

# Shapes: B bootstrap draw, S sequence.

from collections.abc import Mapping, Sequence

import numpy as np

DRAWS = 1000


def resampling_counts(sequences: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Return how often each sequence is in each draw: counts (B, S), each row sums to S; the same for a seed."""
    picked = np.random.default_rng(seed).integers(sequences, size=(draws, sequences))
    counts = np.zeros((draws, sequences), np.int64)
    np.add.at(counts, (np.arange(draws)[:, None], picked), 1)
    return counts


def resampled(per_sequence: Mapping[str, Sequence[float]], counts_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Return perplexity, bits per byte and loss of each selection of sequences, from what is kept of each sequence.

    `counts_BS` says how often each sequence is in each selection; `loss` and `nats` are sums in nats, `loss` over
    `weight` is the mean loss, `bytes` the bytes of the predicted tokens.
    """
    loss_S, weight_S, nats_S, bytes_S = (
        np.asarray(per_sequence[name], float) for name in ("loss", "weight", "nats", "bytes")
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a draw may hold nothing that was predicted
        mean_B = counts_BS @ loss_S / (counts_BS @ weight_S)
        bits_B = counts_BS @ nats_S / np.log(2) / (counts_BS @ bytes_S)
        return {"perplexity": np.exp(mean_B), "bits_per_byte": bits_B, "loss": mean_B}
