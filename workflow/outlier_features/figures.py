"""Figures: the tables of an experiment, or of one model, as pictures.

Takes tables and gives matplotlib figures; no model and no configuration is read here. `catalogue` lists the figures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing

from outlier_features import (
    atomic,
    figures_blocks,
    figures_channels,
    figures_experts,
    figures_lines,
    figures_llm_int8,
    figures_positions,
    figures_reach,
    figures_residual,
    figures_shift,
    figures_stability,
    figures_training,
    strict_json,
)
from outlier_features.catalogue import FIGURES, Figure, Scope, names
from outlier_features.errors import ConfigError
from outlier_features.figure_style import DPI, style
from outlier_features.figure_tables import Portrait, Sweep

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        figures_blocks,
        figures_channels,
        figures_experts,
        figures_lines,
        figures_llm_int8,
        figures_positions,
        figures_reach,
        figures_residual,
        figures_shift,
        figures_stability,
        figures_training,
    )
}
"""Where figures are drawn, by the names that the catalogue uses."""


def draw_experiment(name: str, sweep: Sweep) -> Drawing:
    """Draw a figure of all models, or of all series. Raises ConfigError for a name that is none of these figures."""
    return _draw(_entry(name, "experiment", "series"), sweep)


def draw_model(name: str, portrait: Portrait) -> Drawing:
    """Draw a figure of one model. Raises ConfigError for a name that is none of these figures."""
    return _draw(_entry(name, "model"), portrait)


def _entry(name: str, *scopes: Scope) -> Figure:
    known = names(*scopes)
    if name not in known:
        raise ConfigError(f"unknown figure {name!r} for one {scopes[0]}; known: {', '.join(known)}")
    return FIGURES[name]


def _draw(entry: Figure, tables: Sweep | Portrait) -> Drawing:
    module, _, function = entry.drawn_by.partition(".")
    with style():
        drawing: Drawing = getattr(MODULES[module], function)(entry, tables)
        return drawing


FIXED_METADATA: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""The suffixes a figure can have; None keeps out of the file what changes with the day or the version."""


def save(figure: Drawing, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write a figure as .png or .svg, whole or not at all, with its provenance as JSON under "Description".

    The same figure and provenance give the same bytes. Raises ConfigError for another suffix.
    """
    suffix = Path(path).suffix.removeprefix(".")
    if suffix not in FIXED_METADATA:
        raise ConfigError(f"{path}: a figure is written as .png or .svg; change the suffix.")
    metadata = {**FIXED_METADATA[suffix], "Description": strict_json.dumps(provenance, sort_keys=True)}
    with style(), atomic.file(path) as unfinished:
        figure.savefig(unfinished, format=suffix, dpi=DPI, metadata=metadata)
