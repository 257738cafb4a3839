"""How far outlier features reach and how many there are, against the size and the quality of the model."""

from matplotlib.figure import Figure as Drawing

from outlier_features.experiment.published import NOTHING, arb8020
from outlier_features.experiment.table_of_2025 import DEFINITION
from outlier_features.figures import qualities
from outlier_features.figures.axes import (
    ACTIVE,
    CHANNELS,
    FEATURES,
    LAYERS,
    MEDIAN_LAYERS,
    MEDIAN_POSITIONS,
    POSITIONS,
    TOTAL,
    Axis,
)
from outlier_features.figures.catalogue import Figure
from outlier_features.figures.points import Panel, chart
from outlier_features.figures.tables import Sweep
from outlier_features.metrics.intervals import GAPS
from outlier_features.thresholds import TWIN

SETTING = "Published points: arb8020, 2025, 16 sequences x 2048 tokens."
SHARES = (
    "There too every norm output is its own layer and positions are a union over layers. OLMoE is given twice (also "
    "as 28.0 % and 14.3 %)."
)
COUNTS = "The outlier counts there are sums over sequences (one channel counts up to 16 times)"
OF_SHARES = f"{SETTING} {COUNTS} and are not drawn; the shares are means over that same list. {SHARES}"
DENSE_ONLY = (
    "A perplexity was published of the dense models only, with each window weighted by its tokens instead of its "
    "predictions, and no bits per byte of any model."
)
OTHER_CORPUS = (
    "The models of LLM.int8() are left out: their perplexity is on another corpus (C4). They stand in figures of their "
    "own."
)
MEANS_ONLY = "The sweep of 2025 published means, no medians, so nothing of it is drawn here."
OTHER_TOKENIZERS = (
    "Perplexities of models with different tokenizers are not comparable, bits per byte are. The models of LLM.int8() "
    "are left out: their perplexity is on another corpus (C4). They stand in figures of their own."
)


def moe_vs_dense(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw layers and positions affected against total and active parameters, measured and published."""
    source = arb8020(sweep.published, OF_SHARES)
    return chart(entry, _grid(DEFINITION, (TOTAL, ACTIVE), (LAYERS, POSITIONS)), sweep.summary, source)


def moe_vs_dense_rms(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw the same under the scale-free twin, for which nothing is published."""
    return chart(entry, _grid(DEFINITION + TWIN, (TOTAL, ACTIVE), (LAYERS, POSITIONS)), sweep.summary, NOTHING)


def moe_vs_dense_median(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw medians instead of means, of which none was published."""
    grid = _grid(DEFINITION, (TOTAL, ACTIVE), (MEDIAN_LAYERS, MEDIAN_POSITIONS))
    return chart(entry, grid, sweep.summary, NOTHING, [f"{MEANS_ONLY} {GAPS[0].upper()}{GAPS[1:]}."])


def reach_vs_perplexity(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw layers and positions affected against perplexity or, where tokenizers differ, bits per byte."""
    source = arb8020(sweep.published, f"{OF_SHARES} {DENSE_ONLY}")
    grid = qualities.grid(sweep.summary, DEFINITION, (LAYERS, POSITIONS), source)
    return chart(entry, grid, sweep.summary, source, [*qualities.notes(sweep.summary), OTHER_CORPUS])


def count_vs_perplexity(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw the number of outlier features, counted in two ways, against perplexity or bits per byte."""
    source = arb8020(sweep.published, f"{SETTING} {COUNTS}, as here in the left panel. {DENSE_ONLY}")
    counted = ((DEFINITION, FEATURES), ("llm_int8", CHANNELS))
    panels = [panel for name, y in counted for panel in qualities.panels(sweep.summary, name, y, is_published=False)]
    return chart(entry, [panels], sweep.summary, source, [*qualities.notes(sweep.summary), OTHER_CORPUS])


def _grid(definition: str, columns: tuple[Axis, Axis], rows: tuple[Axis, Axis]) -> list[list[Panel]]:
    """Return a panel for every pair of quantities."""
    return [[Panel(definition, x, y) for x in columns] for y in rows]
