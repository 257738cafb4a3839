"""Catalogue: every figure this project can draw, in words.

Light, so that the workflow knows the figures without what draws them. One more figure is one entry here, and its
function under the same name in `draw`.
"""

from dataclasses import dataclass
from typing import Literal

Scope = Literal["experiment", "series", "model", "mixture"]


@dataclass(frozen=True)
class Figure:
    """One figure."""

    name: str
    """Its file name."""
    scope: Scope
    """Whether it is drawn once for all models of an experiment, once for all training runs in it, for each model, or
    for each mixture of experts."""
    topic: str
    """The heading it stands under in a report."""
    title: str
    caption: str
    """What is measured, in a sentence or two."""


REACH = (
    "How much of a model an outlier feature reaches: the share of tensors (the inputs of attention and MLP of every "
    "block) and of positions with |x| at or over the threshold, averaged over the outlier features of all sequences."
)
REACH_OF_ALL = (
    "Share of tensors, and of positions of all sequences together, in which an outlier feature reaches the threshold; "
    "the mean over the outlier features."
)
OF_THE_PAPER = (
    "Measured here: distinct channels over all sequences together, in the inputs of attention and MLP, on the corpus "
    "of the experiment. The paper's models were measured on other text."
)
SIZE, PAPER = "Against size and quality", "The figures of LLM.int8()"
PICTURE = "What is measured"
PLACE, TRAINING = "Inside each model", "In the course of training"
"""Topics."""

MODEL_TABLES = ("channels", "layers", "outliers", "convergence", "positions", "damage")
"""The tables of a model that its figures are drawn from."""

FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "residual_stream",
            "experiment",
            PICTURE,
            "What an outlier feature is: a toy residual stream",
            "Each block of a transformer reads the residual stream: a vector of channels (columns) at each position of "
            "the text (rows). Here is what eight blocks read, one grid each. A hit is an activation of 6 or more on "
            "either side of zero. A channel is an outlier feature when it is hit in at least 25 % of the layers and at "
            "no fewer than 6 % of the positions: the blocks agree on its index, it is coordinated. Many hits in one "
            "block, or at one position, or here and there, make none. A layer is a tensor that is read: one a block "
            "here, two in a model (the inputs of attention and of MLP).",
        ),
        Figure(
            "moe_vs_dense",
            "experiment",
            SIZE,
            "Outlier features in mixture-of-experts and dense models",
            REACH,
        ),
        Figure(
            "moe_vs_dense_rms",
            "experiment",
            SIZE,
            "Outlier features in mixture-of-experts and dense models, scale-free threshold",
            REACH,
        ),
        Figure(
            "moe_vs_dense_median",
            "experiment",
            SIZE,
            "Outlier features in mixture-of-experts and dense models: medians",
            "How much of a model the median outlier feature reaches: the share of tensors (the inputs of attention and "
            "MLP of every block) and of positions with |x| at or over the threshold, over the outlier features of all "
            "sequences. A few features that reach everything move a mean, not a median.",
        ),
        Figure(
            "reach_vs_perplexity",
            "experiment",
            SIZE,
            "How far outlier features reach, against the quality of the model",
            REACH,
        ),
        Figure(
            "count_vs_perplexity",
            "experiment",
            SIZE,
            "How many outlier features there are, against the quality of the model",
            "Left each sequence is counted on its own and the counts are added up, so that a channel counts up to once "
            "a sequence; right a channel counts once, by all sequences together. Counts are on logarithmic axes.",
        ),
        Figure(
            "phase_shift",
            "experiment",
            SIZE,
            "Is there a phase shift?",
            "Layers affected by outlier features, and the ways in which they could depend on the size or the quality "
            "of a model: not at all (constant), steadily (a line or a smooth curve), by kinds and families, or "
            "with a jump (a step of half a decade at most). Fits are of the models measured here; best is the one of "
            "the smallest AICc (weight: how much speaks for it beside the others). A jump is shown where the step is "
            "best, noise looks like one less than one time in twenty over all panels, and no single model makes it. "
            "p-values are adjusted for being several. Power: which jump these models would have shown four times in "
            "five, for the noise that they may have.",
        ),
        Figure(
            "reach_lines",
            "experiment",
            SIZE,
            "Layers and positions affected, model by model in the order of size",
            REACH,
        ),
        Figure(
            "llm_int8_figure_3a",
            "experiment",
            PAPER,
            "LLM.int8() Figure 3a: layers and positions affected, against size",
            f"{REACH_OF_ALL} {OF_THE_PAPER}",
        ),
        Figure(
            "llm_int8_figure_3b",
            "experiment",
            PAPER,
            "LLM.int8() Figure 3b: layers and positions affected, against perplexity",
            f"{REACH_OF_ALL} {OF_THE_PAPER}",
        ),
        Figure(
            "llm_int8_figure_4a",
            "experiment",
            PAPER,
            "LLM.int8() Figure 4a: magnitude of the largest outlier feature, against size",
            "Median and quartiles of the magnitude of the outlier feature with the largest activation, over its "
            f"activations that reach the threshold. {OF_THE_PAPER}",
        ),
        Figure(
            "llm_int8_figure_4b",
            "experiment",
            PAPER,
            "LLM.int8() Figure 4b: number of outlier features, against perplexity",
            f"Channels that reach the threshold in enough tensors and at enough positions. {OF_THE_PAPER}",
        ),
        Figure(
            "training",
            "series",
            TRAINING,
            "Outlier features in the course of training",
            "The same model at several steps of its training. An outlier feature is a channel that reaches the "
            "threshold in enough tensors and at enough positions of all sequences together; layers and positions "
            "affected are means over the outlier features.",
        ),
        Figure(
            "channel_map",
            "model",
            PLACE,
            "Where outlier features live",
            "Every channel of every tensor with an activation at or over the threshold, in any position of any "
            "sequence; the colour is the largest |x| of the channel in that tensor. An outlier feature is a channel "
            "that is hit in enough tensors and at enough positions.",
        ),
        Figure(
            "kurtosis",
            "model",
            PLACE,
            "Kurtosis by block",
            "How unequal activations are, in four statistics that the literature all calls kurtosis. They measure "
            "different things: no value of one can be compared with one of another.",
        ),
        Figure(
            "magnitude",
            "model",
            PLACE,
            "Magnitude of activations by block",
            "The largest |x| over all sequences, the root mean square, and the max-median ratio (MMR: largest |x| of a "
            "hidden state over its median |x|, mean over positions). Attention sinks live at position 0 and dominate "
            "maxima, so it is shown apart.",
        ),
        Figure(
            "positions",
            "model",
            PLACE,
            "Large activations along the window",
            "At each position, over all blocks and windows: the share of hidden states whose largest |x| reaches the "
            "threshold, the part of them whose largest channel is an outlier feature (of the first pooled "
            "definition), and how large the largest |x| is.",
        ),
        Figure(
            "stability",
            "model",
            PLACE,
            "Stability of outlier channels over sequences",
            "In how many sequences each outlier channel of all sequences together qualifies on its own, and how much "
            "of the set of outlier channels fewer windows find.",
        ),
        Figure(
            "damage",
            "model",
            PLACE,
            "What number formats would lose",
            "How well each format would represent the input of each matrix: signal over error in decibels, over all "
            "windows. 10 dB less is ten times the error. Predicted from the statistics of the capture; nothing was "
            "quantised, and errors of weights are not in it.",
        ),
        Figure(
            "experts",
            "mixture",
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
