"""Headings: under which headings Snakemake's report shows what this project makes, and in which words.

Light, because every start of the workflow reads it.
"""

from collections.abc import Iterable

from outlier_features.figures import catalogue

TABLES, TIMINGS = "Tables", "Where the time went"
"""Headings of what is no figure of the catalogue; figures stand under their topic."""

WORDS = {
    "summarize": "One row per model and definition: counts, shares affected with 95 % intervals, perplexity.",
    "infer": "Correlations, phase shifts and differences with their intervals, and the answer in words.",
    "reproduce": "The summary beside the table that was published in 2025.",
    "plot_timings": "Where the time of the capture went, block by block: computing, statistics, waiting, saving.",
}
"""What a rule makes that draws no figure of the catalogue, in a sentence."""


def of_figures(names: Iterable[str]) -> str:
    """Return the words about some figures of the catalogue, a line each."""
    found = [catalogue.FIGURES[name] for name in names]
    return "\n".join(figure.caption if len(found) == 1 else f"{figure.title}: {figure.caption}" for figure in found)


class Headings:
    """The headings of one report. Snakemake sorts them by name, so each begins with its number."""

    def __init__(self, *, has_series: bool) -> None:
        scopes = {"experiment", "model", "mixture"} | ({"series"} if has_series else set())
        topics = dict.fromkeys(figure.topic for figure in catalogue.FIGURES.values() if figure.scope in scopes)
        self._headings = [*topics, TABLES, TIMINGS]

    def heading(self, name: str) -> str:
        """Return a heading as it stands in the report: `2. Against size and quality`."""
        return f"{self._headings.index(name) + 1}. {name}"

    def of_figure(self, name: str) -> str:
        """Return the heading that a figure of the catalogue stands under."""
        return self.heading(catalogue.FIGURES[name].topic)
