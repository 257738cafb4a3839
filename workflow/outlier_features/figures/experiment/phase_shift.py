"""The answer as a picture: layers affected against size and quality, with the fits that were compared."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from outlier_features.experiment import answer
from outlier_features.experiment.phase_shift import FEWEST, SHARP
from outlier_features.experiment.published import arb8020
from outlier_features.experiment.table_of_2025 import DEFINITION, as_summary
from outlier_features.figures import qualities
from outlier_features.figures.axes import ACTIVE, LAYERS, TOTAL, Axis, parameters
from outlier_features.figures.catalogue import Figure
from outlier_features.figures.experiment.reach import OF_SHARES, OTHER_TOKENIZERS
from outlier_features.figures.page import NOTE_HEIGHT, page, say, wrapped
from outlier_features.figures.points import Panel, Points, draw_points
from outlier_features.figures.style import GREY, INK, KINDS, NOTE
from outlier_features.figures.tables import Sweep

MEASURE = LAYERS
NOT_DRAWN = "The models measured here read different tokens: their perplexities are not comparable and not drawn."
GROUPS = {"all": ("all models", INK), "dense": ("dense models", KINDS["dense"].color)}
GROUPS |= {"moe": ("mixtures of experts", KINDS["moe"].color)}
WIDTH, HEIGHT, LEFT, GAP, LABELS = 3.35, 2.8, 1.75, 0.35, 1.15
"""Inches: the panels, what is left of them and between them, and what a row of panels needs for labels."""


def phase_shift(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw three panels for all models, for dense ones and for mixtures, and under each what follows from its fits.

    Of fewer models than a phase shift can be asked for, one row shows the fits of the published ones instead.
    """
    measured = _measured(sweep.summary)
    is_sweep = measured >= FEWEST
    quality = qualities.panels(sweep.summary, DEFINITION, MEASURE, is_published=not is_sweep)[0]
    panels = [*(Panel(DEFINITION, axis, MEASURE) for axis in (TOTAL, ACTIVE)), quality]
    why = qualities.notes(sweep.summary) if quality.has_measured else [NOT_DRAWN]
    points = Points(panels, sweep.summary, arb8020(sweep.published, OF_SHARES))
    shown = sweep.trends if is_sweep else _published_trends(sweep)
    groups = GROUPS if is_sweep else {"all": GROUPS["all"]}
    trends = {(group, axis): _trend(shown, group, axis) for group in groups for axis in (panel.x for panel in panels)}
    words = {place: wrapped(_words(trend, place[1]), WIDTH, NOTE) for place, trend in trends.items()}
    strides = [
        HEIGHT + LABELS + NOTE_HEIGHT * max(len(lines) for (group, _), lines in words.items() if group == name)
        for name in groups
    ]
    too_few = (
        f"{measured} model{' was' if measured == 1 else 's were'} measured here; a phase shift can be asked for of "
        f"{FEWEST} or more. The fits are of the models that were published in 2025."
    )
    handles = points.legend() + _legend(list(trends.values()))
    sheet = page(
        entry.title,
        [entry.caption if is_sweep else too_few, *points.criteria()],
        [*points.notes(), *why, OTHER_TOKENIZERS],
        width=13,
        body=sum(strides) + 0.1,
        legend_rows=-(-len(handles) // 3),
    )
    for i, (group, (label, color)) in enumerate(groups.items()):
        for k, panel in enumerate(panels):
            axes = sheet.axes(LEFT + k * (WIDTH + GAP), 0.3 + sum(strides[:i]), WIDTH, HEIGHT)
            _draw(axes, points, panel, group, trends[group, panel.x], color)
            axes.set_ylabel(f"{label}\n{MEASURE.label}" if k == 0 else "")
            axes.yaxis.set_label_coords(-1.0 / WIDTH, 0.5)  # left of all ticks and of the name of a shelf
            axes.tick_params(axis="y", labelleft=k == 0)
            _write(axes, words[group, panel.x])
    sheet.legend(handles, 3)
    return sheet.figure


def _measured(summary: pd.DataFrame) -> int:
    """Return how many models have a value to draw."""
    own = summary[(summary["definition"] == DEFINITION) & summary[MEASURE.column].notna()]
    return int(own["model"].nunique())


def _published_trends(sweep: Sweep) -> pd.DataFrame:
    """Return the table of trends of the published sweep, empty where it is not at hand."""
    published = sweep.published.get("arb8020_2025")
    if published is None or published.empty:
        return pd.DataFrame()
    from outlier_features.experiment.inference import (
        conclusions,  # imports the configuration, which other figures need not
    )

    return pd.DataFrame(conclusions(as_summary(published), {}, {}, {})["trends"])


def _trend(trends: pd.DataFrame, group: str, axis: Axis) -> pd.Series | None:
    """Return the row of a group and an axis, if there is one."""
    if trends.empty:
        return None
    wanted = {"definition": DEFINITION, "measure": MEASURE.column, "group": group, "axis": axis.column}
    rows = trends[(trends[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    return None if rows.empty else rows.iloc[0]


def _draw(axes: Axes, points: Points, panel: Panel, group: str, trend: pd.Series | None, color: str) -> None:
    """Draw the models of a group, the fits, and where the shift is if one was found."""
    placed = points.place(panel)
    own = placed if group == "all" else placed[placed["kind"] == group]
    if own.empty:
        say(axes, points.why_empty(panel))
        axes.set_xlabel(panel.x.name)
        return
    points.set_axes(axes, panel)
    axes.set_xlabel(panel.x.name)
    draw_points(axes, own)
    if trend is None:
        return
    if trend["found"]:
        _draw_shift(axes, trend, color)
    x, u = np.geomspace(trend["x_low"], trend["x_high"], 200), np.linspace(0, 1, 200)
    for name in fits(trend):
        is_preferred = isinstance(trend["preferred"], str) and name == trend["preferred"]
        look: dict[str, Any] = {"color": color, "linewidth": 2.4, "zorder": 3} if is_preferred else FAINT_FIT
        axes.plot(x, answer.curve(_row(trend), name, u), **look)


FAINT_FIT: dict[str, Any] = {"color": GREY, "linewidth": 1.2, "alpha": 0.6, "zorder": 2}


NEEDS = {
    "constant": ["constant"],
    "linear": ["intercept", "slope"],
    "smooth": ["smooth_shape", "smooth_bend", "smooth_level", "smooth_slope", "smooth_size"],
    "step": ["lower", "shift_size", "shift_position", "shift_decades"],
}
"""The columns of trends that each fit is drawn from. Levels of groups are no function of an axis."""


def fits(trend: pd.Series) -> list[str]:
    """Return the fits of a trend that can be drawn."""
    return [name for name, columns in NEEDS.items() if trend[columns].notna().all()]


def _draw_shift(axes: Axes, trend: pd.Series, color: str) -> None:
    """Draw where a jump may be as a band, its position as a line, and its width as a bar at the foot of the panel."""
    axes.axvspan(trend["shift_position_low"], trend["shift_position_high"], color=color, alpha=0.15, linewidth=0)
    axes.axvline(trend["shift_position"], color=color, linewidth=1.2, zorder=1)
    half = 10 ** (trend["shift_decades"] / 2)
    width = (trend["shift_position"] / half, trend["shift_position"] * half)
    axes.plot(width, (4, 4), color=color, linewidth=5, solid_capstyle="butt", zorder=3)


def _write(axes: Axes, lines: list[str]) -> None:
    """Write lines of words below a panel."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate("\n".join(lines), (0, 0), (0, -48), **place, size=NOTE, va="top", linespacing=1.3)


def _words(trend: pd.Series | None, axis: Axis) -> list[str]:
    """Return what follows from the fits of a panel, a sentence a line."""
    if trend is None:
        return ["Not tested: there is no row of trends for it."]
    sentences = []
    if isinstance(trend["preferred"], str):
        weight = trend[f"weight_{trend['preferred']}"]
        sentences.append(f"{trend['models']} models; best: {FITS[trend['preferred']]} (weight {weight:.2f}).")
    if pd.notna(trend["spearman"]):
        sentences.append(f"Spearman {trend['spearman']:.2f}{_interval(trend)}, {_p(trend['p_adjusted'])}.")
    if pd.notna(trend["spearman_within"]) and trend["p_within"] != trend["p_value"]:
        sentences.append(f"Within kinds {trend['spearman_within']:.2f}, {_p(trend['p_within_adjusted'])}.")
    if trend["found"]:
        sentences += _shift_words(trend, axis)
    elif pd.notna(trend["shift_p_adjusted"]):
        sentences += [f"No jump shown ({_why_none(trend)}).", _power(trend)]
    note = trend["note"]
    return [*sentences, f"{note[0].upper()}{note[1:].rstrip('.')}."] if isinstance(note, str) and note else sentences


FITS = {"constant": "a constant", "linear": "a line", "smooth": "a smooth curve", "step": "a step"}
FITS |= {"groups": "a level for each kind or family"}


def _interval(trend: pd.Series) -> str:
    if pd.isna(trend["spearman_low"]):
        return ""
    return f" ({trend['spearman_low']:.2f} to {trend['spearman_high']:.2f})"


def _why_none(trend: pd.Series) -> str:
    if trend["preferred"] != "step":
        return "no step is best"
    if isinstance(trend["odd_model"], str):
        return f"no step without {trend['odd_model']}"
    return f"noise looks so too, {_p(trend['shift_p_adjusted'])}"


def _power(trend: pd.Series) -> str:
    low, high = trend["detectable_jump_low"], trend["detectable_jump_high"]
    if pd.isna(low):
        return "80 % power: no jump up to 100 points."
    most = "more than 100" if pd.isna(high) else f"{high:.0f}"
    return f"80 % power: sharp jumps of {low:.0f} to {most} points."


def _row(trend: pd.Series) -> dict[str, Any]:
    return {str(name): value for name, value in trend.items()}


def _shift_words(trend: pd.Series, axis: Axis) -> list[str]:
    """Return where a jump that was found is, how large and how wide."""
    form = parameters if axis.unit == "parameters" else "{:.3g}".format
    width = "sharp" if trend["shift_decades"] <= SHARP else f"{trend['shift_decades']:.2f} decades wide"
    return [
        f"Jump at {form(trend['shift_position'])}, {answer.place_range(axis.column, _row(trend))},",
        f"{trend['lower']:.0f} to {trend['upper']:.0f} %, {width}, {_p(trend['shift_p_adjusted'])}.",
    ]


def _p(value: float) -> str:
    """Return a p-value as people write it."""
    if pd.isna(value):
        return "p not known"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _legend(trends: list[pd.Series | None]) -> list[Artist]:
    """Return an entry for every line of a fit that is in the picture."""
    known = [trend for trend in trends if trend is not None and fits(trend)]
    entries: list[Artist] = []
    if known:
        entries.append(Line2D([], [], label="the fit that describes the models best", color=INK, linewidth=2.4))
        entries.append(Line2D([], [], label="the other fits", **FAINT_FIT))
    if any(trend["found"] for trend in known):
        entries.append(Patch(facecolor=INK, alpha=0.15, label="where the jump may be"))
        entries.append(Line2D([], [], label="10 to 90 % of the jump", color=INK, linewidth=5))
    return entries
