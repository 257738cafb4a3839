"""The answer as a picture: layers affected against size and quality, with the fits that were compared."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from outlier_features.catalogue import Figure
from outlier_features.figure_points import Panel, Points, draw_points
from outlier_features.figure_quantities import ACTIVE, LAYERS, PERPLEXITY, TOTAL, Axis, parameters
from outlier_features.figure_style import GREY, INK, KINDS, NOTE, NOTE_HEIGHT, page, say, wrapped
from outlier_features.figure_tables import Sweep
from outlier_features.figures_reach import OF_SHARES, OTHER_TOKENIZERS
from outlier_features.published_points import arb8020

DEFINITION, MEASURE = "arb8020", LAYERS
AXES = (TOTAL, ACTIVE, PERPLEXITY)
GROUPS = {"all": ("all models", INK), "dense": ("dense models", KINDS["dense"].color)}
GROUPS |= {"moe": ("mixtures of experts", KINDS["moe"].color)}
WIDTH, HEIGHT, LEFT, GAP, LABELS = 3.35, 2.8, 1.75, 0.35, 1.15
"""Inches: the panels, what is left of them and between them, and what a row of panels needs for labels."""

Floats = NDArray[np.float64]
Curve = Callable[[Floats], Floats]


def phase_shift(entry: Figure, sweep: Sweep) -> Drawing:
    """Draw three panels for all models, for dense ones and for mixtures, and under each what follows from its fits."""
    panels = [Panel(DEFINITION, axis, MEASURE) for axis in AXES]
    points = Points(panels, sweep.summary, arb8020(sweep.published, OF_SHARES))
    trends = {(group, axis): _trend(sweep.trends, group, axis) for group in GROUPS for axis in AXES}
    words = {place: wrapped(_words(trend, place[1]), WIDTH + GAP, NOTE) for place, trend in trends.items()}
    strides = [
        HEIGHT + LABELS + NOTE_HEIGHT * max(len(lines) for (group, _), lines in words.items() if group == name)
        for name in GROUPS
    ]
    handles = points.legend() + _legend(list(trends.values()))
    sheet = page(
        entry.title,
        [entry.caption, *points.criteria()],
        [*points.notes(), OTHER_TOKENIZERS],
        width=13,
        body=sum(strides) + 0.1,
        legend_rows=-(-len(handles) // 3),
    )
    for i, (group, (label, color)) in enumerate(GROUPS.items()):
        for k, panel in enumerate(panels):
            axes = sheet.axes(LEFT + k * (WIDTH + GAP), 0.3 + sum(strides[:i]), WIDTH, HEIGHT)
            _draw(axes, points, panel, group, trends[group, panel.x], color)
            axes.set_ylabel(f"{label}\n{MEASURE.label}" if k == 0 else "")
            axes.yaxis.set_label_coords(-1.0 / WIDTH, 0.5)  # left of all ticks and of the name of a shelf
            axes.tick_params(axis="y", labelleft=k == 0)
            _write(axes, words[group, panel.x])
    sheet.legend(handles, 3)
    return sheet.figure


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
    for name, curve in curves(trend).items():
        x = np.geomspace(trend["x_low"], trend["x_high"], 200)
        is_preferred = name == trend["preferred"]
        look: dict[str, Any] = {"color": color, "linewidth": 2.4, "zorder": 3} if is_preferred else FAINT_FIT
        axes.plot(x, curve(np.log10(x)), **look)


FAINT_FIT: dict[str, Any] = {"color": GREY, "linewidth": 1.2, "alpha": 0.6, "zorder": 2}


def curves(trend: pd.Series) -> dict[str, Curve]:
    """Return the fits of a trend that are known, as functions of the decimal logarithm of the axis."""
    steepness = trend["shift_decades"] / (2 * np.log(9))  # from a tenth to nine tenths of the way
    middle = np.log10(trend["shift_position"])
    rise = trend["upper"] - trend["lower"]
    found: dict[str, Curve] = {
        "constant": lambda x: np.full_like(x, trend["constant"]),
        "linear": lambda x: trend["intercept"] + trend["slope"] * x,
        "logistic": lambda x: trend["lower"] + rise * (1 + np.tanh((x - middle) / (2 * steepness))) / 2,
    }
    needs = {"constant": ["constant"], "linear": ["intercept", "slope"]}
    needs["logistic"] = ["lower", "upper", "shift_position", "shift_decades"]
    return {name: curve for name, curve in found.items() if trend[needs[name]].notna().all()}


def _draw_shift(axes: Axes, trend: pd.Series, color: str) -> None:
    """Draw the position of a shift with its interval as a band, and its width as a bar at the foot of the panel."""
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
        sentences.append(f"{trend['models']} models; preferred: {trend['preferred']} (weight {weight:.2f}).")
    if pd.notna(trend["spearman"]):
        low, high = trend["spearman_low"], trend["spearman_high"]
        sentences.append(f"Spearman {trend['spearman']:.2f} ({low:.2f} to {high:.2f}), {_p(trend['p_value'])}.")
    if trend["found"]:
        sentences += _shift_words(trend, axis)
    elif pd.notna(trend["shift_p_value"]):
        is_preferred = trend["preferred"] == "logistic"
        reason = f"noise looks so too, {_p(trend['shift_p_value'])}" if is_preferred else "another fit is preferred"
        sentences.append(f"No shift found ({reason}).")
    if pd.notna(trend["shift_p_value"]):
        jump = trend["detectable_jump"]
        size = "for no jump up to 100" if pd.isna(jump) else f"for a jump of {jump:.0f}"
        sentences.append(f"80 % power {size} points.")
    note = trend["note"]
    return [*sentences, f"{note[0].upper()}{note[1:].rstrip('.')}."] if isinstance(note, str) and note else sentences


def _shift_words(trend: pd.Series, axis: Axis) -> list[str]:
    """Return where a shift that was found is, and how wide."""

    def said(name: str, form: Callable[[float], str]) -> str:
        return f"{form(trend[name])} ({form(trend[f'{name}_low'])} to {form(trend[f'{name}_high'])})"

    place = said("shift_position", parameters if axis.unit == "parameters" else "{:.3g}".format)
    width = said("shift_decades", "{:.2f}".format)
    return [
        f"Shift at {place}, {_p(trend['shift_p_value'])}.",
        f"{trend['lower']:.0f} to {trend['upper']:.0f} % in {width} decades.",
    ]


def _p(value: float) -> str:
    """Return a p-value as people write it."""
    if pd.isna(value):
        return "p not known"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _legend(trends: list[pd.Series | None]) -> list[Artist]:
    """Return an entry for every line of a fit that is in the picture."""
    known = [trend for trend in trends if trend is not None and curves(trend)]
    entries: list[Artist] = []
    if known:
        entries.append(Line2D([], [], label="the preferred fit", color=INK, linewidth=2.4))
        entries.append(Line2D([], [], label="the other fits", **FAINT_FIT))
    if any(trend["found"] for trend in known):
        entries.append(Patch(facecolor=INK, alpha=0.15, label="95 % interval of where the shift is"))
        entries.append(Line2D([], [], label="10 to 90 % of the shift", color=INK, linewidth=5))
    return entries
