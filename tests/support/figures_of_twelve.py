"""Figures of a made-up sweep of twelve models, each drawn once in a process."""

from functools import cache

import numpy as np
import pandas as pd
from outlier_features.experiment.inference import TRENDS, conclusions
from outlier_features.figures import catalogue
from outlier_features.figures.draw import draw_experiment
from outlier_features.figures.style import KINDS
from outlier_features.figures.tables import Sweep, read_published
from projects import PROJECT
from sweep_of_twelve import twelve

FIGURES = tuple(name for name in catalogue.names("experiment"))
PUBLISHED_TABLES = read_published((PROJECT / "resources" / "published").glob("*.csv"))
NOTHING_PUBLISHED = {name: table.head(0) for name, table in PUBLISHED_TABLES.items()}
NO_TRENDS = pd.DataFrame(columns=list(TRENDS)).astype(TRENDS)
DENSE, MOE = KINDS["dense"], KINDS["moe"]
ESTIMATED = ("mean_", "median_", "largest_")
FEW = ("Qwen3-4B", "Qwen3-14B", "Mixtral-8x7B", "GPT-OSS-120B")


@cache
def trends(shift):
    """Return what inference makes of the sweep, without draws of the sequences."""
    summary = twelve(shift)
    found = conclusions(summary[summary["definition"] == "arb8020"], {}, {}, {})
    return pd.DataFrame(found["trends"], columns=list(TRENDS)).astype(TRENDS)


@cache
def of_twelve(name):
    """Return a figure of the sweep with a shift, beside everything published."""
    return draw_experiment(name, Sweep(twelve(True), trends(True), PUBLISHED_TABLES))


def rows(definition, kind=None):
    """Return the rows of the sweep with a shift."""
    summary = twelve(True)
    return summary[(summary["definition"] == definition) & (summary["kind"] == (kind or summary["kind"]))]


def places(table, x, y):
    return [(float(a), float(b)) for a, b in zip(table[x], table[y], strict=True)]


def drawn(name, summary, published=NOTHING_PUBLISHED, tested=NO_TRENDS):
    return draw_experiment(name, Sweep(summary, tested, published))


def without(summary, prefixes):
    """Return a summary in which the columns that begin so are blank."""
    return summary.assign(**{name: np.nan for name in summary if name.startswith(prefixes)})


def few():
    summary = twelve(True)
    return summary[summary["label"].isin(FEW)]


def alike():
    """Return the sweep as if all models had one tokenizer."""
    return twelve(True).assign(windows_digest="the same")


def without_features():
    return without(few(), ESTIMATED).assign(outlier_count=0, distinct_channels=0)


def phase_shift_panel(figure, row, column):
    return figure.axes[3 * row + column]
