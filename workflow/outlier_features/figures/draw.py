"""Figures: the tables of an experiment, or of one model, as pictures.

Takes tables and gives matplotlib figures; no model and no configuration is read here. `catalogue` lists the figures.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from outlier_features.artefacts import atomic, strict_json
from outlier_features.artefacts.paths import FORMATS
from outlier_features.errors import ConfigError
from outlier_features.figures.catalogue import FIGURES, Figure, Scope, names
from outlier_features.figures.experiment import llm_int8, phase_shift, reach, reach_lines, residual_stream, training
from outlier_features.figures.model import blocks, channel_map, damage, experts, positions, stability
from outlier_features.figures.style import DPI, style
from outlier_features.figures.tables import Portrait, Sweep

OF_EXPERIMENT: dict[str, Callable[[Figure, Sweep], Drawing]] = {
    "residual_stream": residual_stream.residual_stream,
    "moe_vs_dense": reach.moe_vs_dense,
    "moe_vs_dense_rms": reach.moe_vs_dense_rms,
    "moe_vs_dense_median": reach.moe_vs_dense_median,
    "reach_vs_perplexity": reach.reach_vs_perplexity,
    "count_vs_perplexity": reach.count_vs_perplexity,
    "phase_shift": phase_shift.phase_shift,
    "reach_lines": reach_lines.reach_lines,
    "llm_int8_figure_3a": llm_int8.figure_3a,
    "llm_int8_figure_3b": llm_int8.figure_3b,
    "llm_int8_figure_4a": llm_int8.figure_4a,
    "llm_int8_figure_4b": llm_int8.figure_4b,
    "training": training.training,
}
"""What draws the figures of all models, or of all series, by their names."""

OF_MODEL: dict[str, Callable[[Figure, Portrait], Drawing]] = {
    "channel_map": channel_map.channel_map,
    "kurtosis": blocks.kurtosis,
    "magnitude": blocks.magnitude,
    "positions": positions.positions,
    "stability": stability.stability,
    "damage": damage.damage,
    "experts": experts.experts,
}
"""What draws the figures of one model, by their names."""


def draw_experiment(name: str, sweep: Sweep) -> Drawing:
    """Draw a figure of all models, or of all series. Raises ConfigError for a name that is none of these figures."""
    entry = _entry(name, "experiment", "series")
    with style():
        return OF_EXPERIMENT[name](entry, sweep)


def draw_model(name: str, portrait: Portrait) -> Drawing:
    """Draw a figure of one model. Raises ConfigError for a name that is none of these figures, or not of this model."""
    entry = _entry(name, "model", "mixture")
    if entry.scope == "mixture" and not portrait.has_experts:
        raise ConfigError(f"{portrait.label} has no experts to draw in figure {name!r}; use a mixture of experts.")
    with style():
        return OF_MODEL[name](entry, portrait)


def _entry(name: str, *scopes: Scope) -> Figure:
    known = names(*scopes)
    if name not in known:
        raise ConfigError(f"unknown figure {name!r} for one {scopes[0]}; known: {', '.join(known)}")
    return FIGURES[name]


COLORS = 256
"""Of a .png."""
NOTHING_THAT_CHANGES: dict[str, str | None] = {"Date": None, "Creator": None}
"""Keeps out of an .svg what changes with the day or the version."""


def save(figure: Drawing, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write a figure as .png or .svg, whole or not at all, with its provenance as JSON under "Description".

    The same figure and provenance give the same bytes. Raises ConfigError for another suffix.
    """
    suffix = Path(path).suffix.removeprefix(".")
    if suffix not in FORMATS:
        raise ConfigError(f"{path}: a figure is written as .png or .svg; change the suffix.")
    description = strict_json.dumps(provenance, sort_keys=True)
    with style(), atomic.file(path) as unfinished:
        if suffix == "png":
            _save_png(figure, unfinished, description)
        else:
            figure.savefig(
                unfinished, format="svg", dpi=DPI, metadata=NOTHING_THAT_CHANGES | {"Description": description}
            )


def _save_png(figure: Drawing, path: Path, description: str) -> None:
    """Write a picture in 256 colours: a third of the bytes of all of them, and no eye tells them apart."""
    pixels = io.BytesIO()
    figure.savefig(pixels, format="rgba", dpi=DPI)
    size = figure.canvas.get_width_height()
    image = Image.frombytes("RGBA", size, pixels.getvalue()).convert("RGB")
    words = PngInfo()
    words.add_text("Description", description)
    image.quantize(COLORS, method=Image.Quantize.MAXCOVERAGE).save(path, "PNG", pnginfo=words, dpi=(DPI, DPI))


def save_of_mixture(name: str, portrait: Portrait, folder: Path, provenance: Mapping[str, Any]) -> None:
    """Write a figure of a mixture of experts into a folder, in every format; of a dense model the folder is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in FORMATS if portrait.has_experts else ():
        save(draw_model(name, portrait), folder / f"{name}.{suffix}", provenance)
