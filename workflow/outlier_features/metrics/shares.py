"""Shares: of tensors and positions that a channel reaches, and whether they make it an outlier feature."""

# Shapes: N tensor (one block and site), S sequence, C channel, B selection of sequences, K candidate.

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from outlier_features.metrics.evidence import Evidence


@dataclass(frozen=True)
class Shares:
    """By how much each channel meets a criterion, and whether it is enough (all per channel)."""

    layer: np.ndarray
    position: np.ndarray
    position_mean: np.ndarray
    qualifies: np.ndarray


def outlier_sets(found: Evidence, counts_BS: np.ndarray) -> np.ndarray:
    """Return which channels are outlier features of each selection of the sequences: (B, C).

    `counts_BS` says how often each sequence is in each selection. A criterion that is applied per sequence gives the
    channels that qualify in any of them.
    """
    if not found.criterion.pooled:
        return (counts_BS @ qualifies_in_each(found)) > 0
    chosen_BC = np.zeros((len(counts_BS), found.covered_SC.shape[1]), bool)
    for chosen_C, (candidates, shares) in zip(chosen_BC, pooled_shares(found, counts_BS), strict=True):
        chosen_C[candidates] = shares.qualifies
    return chosen_BC


def shares_over(found: Evidence, members: Sequence[int]) -> Shares:
    """Return by how much each channel meets the criterion over some sequences taken together."""
    definition = found.criterion.definition
    tokens = found.length_S[members].sum()
    hits_NC = found.hits_NSC[:, members].sum(1)
    layer_C = (hits_NC > 0).mean(0)
    position_C = found.covered_SC[members].sum(0) / tokens
    qualifies_C = (hits_NC.any(0)) & (layer_C >= definition.min_layers) & (position_C >= definition.min_positions)
    return Shares(layer_C, position_C, hits_NC.mean(0) / tokens, qualifies_C)


def pooled_shares(found: Evidence, counts_BS: np.ndarray) -> Iterator[tuple[np.ndarray, Shares]]:
    """Yield, for each selection of sequences taken together, the channels that can qualify and by how much they do."""
    definition = found.criterion.definition
    ever_NC = (found.hits_NSC > 0).any(1)
    candidates = np.flatnonzero(ever_NC.any(0) & (ever_NC.mean(0) >= definition.min_layers))  # no draw can have others
    hit_SNK = (found.hits_NSC[:, :, candidates] > 0).transpose(1, 0, 2).astype(np.float32)
    covered_SK = found.covered_SC[:, candidates]
    for counts_S in counts_BS:
        layer_K = hit_SNK[counts_S > 0].any(0).mean(0)
        position_K = counts_S @ covered_SK / (counts_S @ found.length_S)
        qualifies_K = (layer_K >= definition.min_layers) & (layer_K > 0) & (position_K >= definition.min_positions)
        yield candidates, Shares(layer_K, position_K, np.full_like(position_K, np.nan), qualifies_K)


def qualifies_in_each(found: Evidence) -> np.ndarray:
    """Return in which sequences each channel meets the criterion (S, C)."""
    return np.stack([shares_over(found, [sequence]).qualifies for sequence in found.everything])
