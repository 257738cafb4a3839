"""Catalogue: every figure this project can draw, in words. One more figure is one entry here and one function.

Light, so that the workflow knows the figures without what draws them.
"""

from dataclasses import dataclass
from typing import Literal

Scope = Literal["experiment", "series", "model"]


@dataclass(frozen=True)
class Figure:
    """One figure."""

    name: str
    """Its file name."""
    drawn_by: str
    """The function that draws it, as `module.function`: takes this entry and the tables of its scope."""
    scope: Scope
    """Whether it is drawn once for all models of an experiment, once for all training runs in it, or for each model."""
    topic: str
    """The heading it stands under in a report."""
    title: str
    caption: str
    """What is measured, in a sentence or two."""


REACH = (
    "How much of a model an outlier feature reaches: the share of tensors (the inputs of attention and MLP of every "
    "block) and of positions with |x| at or over the threshold, averaged over the outlier features of all sequences."
)
SIZE, PLACE, TRAINING = "Against size and quality", "Inside each model", "In the course of training"
"""Topics."""

MODEL_TABLES = ("channels", "layers", "outliers", "convergence", "positions")
"""The tables of a model that its figures are drawn from."""
PUBLISHED = ("arb8020_2025", "llm_int8_outliers", "massive_activations", "super_experts")
"""The published tables that figures show."""

FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "moe_vs_dense",
            "figures_reach.moe_vs_dense",
            "experiment",
            SIZE,
            "Outlier features in mixture-of-experts and dense models",
            REACH,
        ),
        Figure(
            "moe_vs_dense_rms",
            "figures_reach.moe_vs_dense_rms",
            "experiment",
            SIZE,
            "Outlier features in mixture-of-experts and dense models, scale-free threshold",
            REACH,
        ),
        Figure(
            "training",
            "figures_training.training",
            "series",
            TRAINING,
            "Outlier features in the course of training",
            "The same model at several steps of its training. An outlier feature is a channel that reaches the "
            "threshold in enough tensors and at enough positions of all sequences together; layers and positions "
            "affected are means over the outlier features.",
        ),
        Figure(
            "channel_map",
            "figures_channels.channel_map",
            "model",
            PLACE,
            "Where outlier features live",
            "Every channel of every tensor with an activation at or over the threshold, in any position of any "
            "sequence. An outlier feature is a channel that is hit in enough tensors and at enough positions.",
        ),
        Figure(
            "kurtosis",
            "figures_blocks.kurtosis",
            "model",
            PLACE,
            "Kurtosis by block",
            "How unequal activations are, in four statistics that the literature all calls kurtosis. They measure "
            "different things: no value of one can be compared with one of another.",
        ),
        Figure(
            "magnitude",
            "figures_blocks.magnitude",
            "model",
            PLACE,
            "Magnitude of activations by block",
            "The largest |x| over all sequences, the root mean square, and the max-median ratio (MMR: largest |x| of a "
            "hidden state over its median |x|, mean over positions). Attention sinks live at position 0 and dominate "
            "maxima, so it is shown apart.",
        ),
        Figure(
            "positions",
            "figures_positions.positions",
            "model",
            PLACE,
            "Large activations along the window",
            "At each position, over all blocks and windows: the share of hidden states whose largest |x| reaches the "
            "threshold, the part of them whose largest channel is an outlier feature (of the first pooled "
            "definition), and how large the largest |x| is.",
        ),
        Figure(
            "stability",
            "figures_stability.stability",
            "model",
            PLACE,
            "Stability of outlier channels over sequences",
            "In how many sequences each outlier channel of all sequences together qualifies on its own, and how much "
            "of the set of outlier channels fewer windows find.",
        ),
        Figure(
            "experts",
            "figures_experts.experts",
            "model",
            PLACE,
            "Load and super experts",
            "What every expert of every block sees and gives under natural routing: its share of the tokens, in units "
            "of an equal share, and its largest output. Routing entropy is that of the shares of a block.",
        ),
    )
}


def names(*scopes: Scope) -> list[str]:
    """Return the names of the figures of some scopes."""
    return [figure.name for figure in FIGURES.values() if figure.scope in scopes]
