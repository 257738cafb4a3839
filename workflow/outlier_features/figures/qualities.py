"""Along which axes a figure shows the quality of models: perplexities only of models that read the same tokens."""

from collections.abc import Sequence

import pandas as pd

from outlier_features.experiment.published import Source
from outlier_features.figures.axes import BITS, PERPLEXITY, Axis
from outlier_features.figures.points import Panel

NOT_COMPARABLE = (
    "The models measured here read different tokens: their perplexities are not comparable, so they stand along bits "
    "per byte, which are."
)


def read_the_same_tokens(summary: pd.DataFrame) -> bool:
    """Tell whether all models of a summary were measured on the same windows of tokens, as their digests say."""
    if summary["model"].nunique() < 2:
        return True
    return "windows_digest" in summary and summary["windows_digest"].nunique(dropna=False) == 1


def panels(summary: pd.DataFrame, definition: str, y: Axis, *, is_published: bool) -> list[Panel]:
    """Return the panels that show a quantity against quality, from left to right.

    One of perplexity where all models read the same tokens. Else one of bits per byte; beside it, where
    `is_published`, what was published along perplexity.
    """
    if read_the_same_tokens(summary):
        return [Panel(definition, PERPLEXITY, y)]
    return [Panel(definition, PERPLEXITY, y, has_measured=False)] * is_published + [Panel(definition, BITS, y)]


def grid(summary: pd.DataFrame, definition: str, ys: Sequence[Axis], source: Source) -> list[list[Panel]]:
    """Return a row of panels for each quantity; where a row would have one panel, one row of all."""
    rows = [panels(summary, definition, y, is_published=len(source.models) > 0) for y in ys]
    return rows if len(rows[0]) > 1 else [[panel for row in rows for panel in row]]


def notes(summary: pd.DataFrame) -> Sequence[str]:
    """Say why models do not stand along perplexity, where they do not."""
    return [] if read_the_same_tokens(summary) else [NOT_COMPARABLE]
