"""The figures of LLM.int8() (Dettmers et al. 2022) with the models of the experiment beside those of the paper."""

import pandas as pd
from matplotlib.figure import Figure as Drawing

from outlier_features.experiment.published import llm_int8
from outlier_features.figures import qualities
from outlier_features.figures.axes import ACTIVE, CHANNELS, LAYERS, MAGNITUDE, POSITIONS, TOTAL
from outlier_features.figures.catalogue import Figure
from outlier_features.figures.points import Panel, chart
from outlier_features.figures.tables import Sweep

DEFINITION = "llm_int8"
OF_THE_PAPER = (
    "Published points: Table 4 of the paper, dense models only; FSEQ are models trained with fairseq. There the inputs "
    "of the attention output projection are among the tensors, and the paper's words allow positions to be counted in "
    "any tensor or as a mean over tensors; measured are the inputs of attention and MLP, and positions hit in any of "
    "them."
)
OF_C4 = "The published perplexity is on C4 with each model's own tokenizer, the measured one on this corpus: compare "
OF_C4 += "the shape of the two clouds, not places along the axis."
OF_QUARTILES = (
    "Published quartiles are signed; their magnitudes are drawn. GPT2 762M is left out: its quartiles (-9, -6, 9) have "
    "both signs, and those of the magnitude do not follow. Measured quartiles are those of hits of at least the "
    "threshold."
)


def figure_3a(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw layers and positions affected against parameters."""
    grid = [[Panel(DEFINITION, x, y) for x in (TOTAL, ACTIVE)] for y in (LAYERS, POSITIONS)]
    return chart(entry, grid, sweep.summary, llm_int8(sweep.published, OF_THE_PAPER))


def figure_3b(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw layers and positions affected against perplexity."""
    source = llm_int8(sweep.published, f"{OF_THE_PAPER} {OF_C4}")
    grid = qualities.grid(sweep.summary, DEFINITION, (LAYERS, POSITIONS), source)
    return chart(entry, grid, sweep.summary, source, qualities.notes(sweep.summary))


def figure_4a(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw the median magnitude of the largest outlier feature and its quartiles against parameters."""
    panels = [Panel(DEFINITION, x, MAGNITUDE) for x in (TOTAL, ACTIVE)]
    source = llm_int8(sweep.published, f"{OF_THE_PAPER} {OF_QUARTILES}")
    return chart(entry, [panels], sweep.summary, source, _coarse(sweep))


def _coarse(sweep: Sweep) -> list[str]:
    """Say how far off the measured quartiles can be, which are read off the grid of thresholds."""
    rows = sweep.summary[sweep.summary["definition"] == DEFINITION]
    steps = rows.get("largest_quartile_step", pd.Series(dtype=float))
    named = [f"{label} {step:.2g}" for label, step in zip(rows["label"], steps, strict=False) if pd.notna(step)]
    return [f"Measured quartiles are read off a grid; they can be off by: {', '.join(named)}."] if named else []


def figure_4b(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw the number of outlier features against perplexity."""
    source = llm_int8(sweep.published, f"{OF_THE_PAPER} {OF_C4}")
    grid = qualities.grid(sweep.summary, DEFINITION, (CHANNELS,), source)
    return chart(entry, grid, sweep.summary, source, qualities.notes(sweep.summary))
