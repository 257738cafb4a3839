"""Models as points: measured ones filled, published ones hollow, in panels that share their marks and words.

Shares are percentages; parameters are counts.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from outlier_features.experiment.published import Source
from outlier_features.figures.axes import (
    LANES,
    PHASE_SHIFT,
    Axis,
    mark_phase_shift,
    set_x,
    set_y,
    tells_phase_shift,
)
from outlier_features.figures.catalogue import Figure
from outlier_features.figures.labels import Name, Segment, write_names
from outlier_features.figures.notes import criterion, gaps, last_steps, unique
from outlier_features.figures.page import page, say
from outlier_features.figures.scales import below
from outlier_features.figures.style import FAINT, GREY, INK, KINDS, MARKER_SIZE, NAME, SMALL_NAME, TOY_SIZE, Look

PLACES = ["x", "x_low", "x_high", "y", "y_low", "y_high"]
FLAGS = ["is_published", "is_empty", "is_toy"]
COLUMNS = ["label", "kind", "hub", "family", *PLACES, *FLAGS]
TOY = "#8f8f8f"
"""The colour of toys."""
MOST_NAMES = 48
"""Points of a panel that are named: places are weighed for each pair of names."""
TOY_LABEL = "toy, trained here"
PHASE_SHIFT_LABEL = "6.7B: phase shift, dense (Dettmers et al. 2022)"


@dataclass(frozen=True)
class Panel:
    """What one panel shows: two quantities of the models, measured under a definition."""

    definition: str
    x: Axis
    y: Axis
    has_measured: bool = True
    """Whether it shows the models measured here beside the published ones."""


class Points:
    """The points of every panel of a figure, and what cannot be shown there."""

    def __init__(self, panels: Sequence[Panel], summary: pd.DataFrame, source: Source) -> None:
        self._summary, self._series_notes = last_steps(summary)
        self._summary = self._summary.assign(is_toy=toys(self._summary, has_others=len(source.models) > 0))
        self._panels, self._source = panels, source
        self._unlike = {panel: self._asked_otherwise(panel) for panel in panels}
        self.by_panel = {panel: self._points(panel) for panel in panels}
        self.all = pd.concat(list(self.by_panel.values()), ignore_index=True)
        self.all = self.all.astype(dict.fromkeys([*FLAGS, "is_joined"], bool))
        self._ranges = {axis.unit: axis.range(values) for axis, values in self._values()}

    def criteria(self) -> list[str]:
        """Return what was asked under each definition, one sentence each."""
        return [criterion(self._rows(name), name) for name in unique(panel.definition for panel in self._panels)]

    def notes(self) -> list[str]:
        """Say what the figure cannot show, and what is wrong with the published points that it does."""
        missing: list[str] = []
        for name in unique(panel.definition for panel in self._panels):
            own = [(p.x, p.y) for p in self._panels if p.definition == name and p.has_measured]
            xs, ys = zip(*own, strict=True)
            missing += gaps(self._summary, self._rows(name), name, unique(xs), unique(ys))
        faults = [self._source.faults] if self.all["is_published"].any() else []
        most = max((int((~points["is_joined"]).sum()) for points in self.by_panel.values()), default=0)
        unnamed = [f"Of {most} points the first {MOST_NAMES} are named."] if most > MOST_NAMES else []
        unlike = [
            f"Published points are left out under {panel.definition}, being of something else: {', '.join(words)}."
            for panel, words in self._unlike.items()
            if words
        ]
        return unique([*missing, *self._series_notes, *unnamed, *faults, *unlike])

    def range(self, axis: Axis) -> tuple[float, float]:
        """Return where an axis of the figure begins and ends."""
        return self._ranges[axis.unit]

    def set_axes(self, axes: Axes, panel: Panel) -> None:
        """Give a panel its axes: as long as those of the other panels that have the same unit."""
        set_x(axes, panel.x, *self._ranges[panel.x.unit])
        has_shelf = any(points["is_empty"].any() for other, points in self.by_panel.items() if other.y == panel.y)
        set_y(axes, panel.y, *self._ranges[panel.y.unit], shelf=has_shelf)
        if self.tells_phase_shift(panel):
            mark_phase_shift(axes)

    def tells_phase_shift(self, panel: Panel) -> bool:
        """Tell whether the phase shift of 2022 has a place in a panel: an axis of its own criterion."""
        return tells_phase_shift(panel.x, panel.definition, self._rows(panel.definition)["threshold"])

    def why_empty(self, panel: Panel) -> str:
        """Return the words for a panel without points."""
        is_unknown = self._rows(panel.definition)[panel.x.column].isna()
        reason = f":\n{panel.x.name} not known" if len(is_unknown) and is_unknown.all() else ""
        return f"no model to show{reason}"

    def place(self, panel: Panel) -> pd.DataFrame:
        """Return the points of a panel, those without outlier feature at their places on the shelf."""
        points, (low, high) = self.by_panel[panel], self._ranges[panel.y.unit]
        shelf = points["kind"].map({kind: below(low, high, panel.y.scale, share) for kind, share in LANES.items()})
        return points.assign(y=points["y"].where(~points["is_empty"], shelf).astype(float))

    def draw(self, axes: Axes, panel: Panel) -> None:
        """Draw a panel: its axes, its points and their names; or words where there is no point."""
        if self.by_panel[panel].empty:
            axes.set(xlabel=panel.x.label, ylabel=panel.y.label)
            say(axes, self.why_empty(panel))
            return
        self.set_axes(axes, panel)
        points = self.place(panel)
        segments = draw_points(axes, points)
        floor, ground = axes.get_ylim()[0], self._ranges[panel.y.unit][0]
        named = points[~points["is_joined"]].head(MOST_NAMES)
        names = [_name(row, floor, ground) for _, row in named.iterrows()]
        if self.tells_phase_shift(panel):
            segments.append(((PHASE_SHIFT, floor), (PHASE_SHIFT, axes.get_ylim()[1])))
        write_names(axes, names, list(zip(points["x"], points["y"], strict=True)), segments)

    def origins(self) -> list[Line2D]:
        """Return the legend's entries for what is filled and what is hollow, as far as it is in the picture."""
        plain, is_published = Look("", GREY, "o"), self.all["is_published"]
        measured = [Line2D([], [], label="filled: measured here", **mark(plain, False))]
        published = [Line2D([], [], label=self._source.legend, **mark(plain, True))]
        return measured * bool((~is_published).any()) + published * bool(is_published.any())

    def legend(self) -> list[Artist]:
        """Return an entry for every mark that is in the picture."""
        found, plain = self.all, Look("", GREY, "o")
        kinds = set(found[~found["is_toy"]]["kind"])
        entries: list[Artist] = [
            *(Line2D([], [], label=look.label, **mark(look, False)) for kind, look in KINDS.items() if kind in kinds),
            *([Line2D([], [], label=TOY_LABEL, **mark(plain, False, is_toy=True))] * bool(found["is_toy"].any())),
            *self.origins(),
            *map(bar_handle, unique(self._bars())),
        ]
        if found["is_joined"].any():
            joined = "published and measured: the same model"
            entries.append(Line2D([], [], label=joined, color=GREY, linewidth=1.4, linestyle=":"))
        if found["family"].notna().any():
            entries.append(Line2D([], [], label="published models of one family", color=FAINT, linewidth=1.4))
        if any(self.tells_phase_shift(panel) and len(points) for panel, points in self.by_panel.items()):
            entries.append(Line2D([], [], label=PHASE_SHIFT_LABEL, color=GREY, linewidth=1.2, linestyle="--"))
        return entries

    def _shown(self, panel: Panel) -> pd.DataFrame:
        """Return the rows of the measured models that a panel shows."""
        rows = self._rows(panel.definition)
        return rows if panel.has_measured else rows.head(0)

    def _asked_otherwise(self, panel: Panel) -> list[str]:
        """Return in words why the published points do not belong into a panel."""
        if not {panel.x.column, panel.y.column} <= set(self._source.models):
            return []
        rows = self._rows(panel.definition)
        both = [*self._source.unlike(rows, panel.x.column), *self._source.unlike(rows, panel.y.column)]
        return unique(both)

    def _points(self, panel: Panel) -> pd.DataFrame:
        published = self._source.models
        return _points(self._shown(panel), published.head(0) if self._unlike[panel] else published, panel)

    def _rows(self, definition: str) -> pd.DataFrame:
        rows = self._summary[self._summary["definition"] == definition]
        return rows.assign(is_empty=rows["outlier_count"].eq(0).fillna(False).astype(bool))

    def _values(self) -> Iterator[tuple[Axis, np.ndarray[Any, np.dtype[np.float64]]]]:
        """Yield an axis of each unit, and all values along the axes of that unit."""
        along = [
            (axis, points[[name for name in PLACES if name.startswith(letter)]])
            for panel, points in self.by_panel.items()
            for letter, axis in (("x", panel.x), ("y", panel.y))
        ]
        for axis in {axis.unit: axis for axis, _ in along}.values():
            values = [part.to_numpy(float).ravel() for own, part in along if own.unit == axis.unit]
            if any(panel.x == axis and self.tells_phase_shift(panel) for panel in self._panels):
                values.append(np.array([PHASE_SHIFT]))
            yield axis, np.concatenate(values)

    def _bars(self) -> Iterator[str]:
        """Yield what the bars of each panel are, as far as it has any."""
        for panel, points in self.by_panel.items():
            for letter, axis in (("y", panel.y), ("x", panel.x)):
                if points[[f"{letter}_low", f"{letter}_high"]].notna().all(axis=1).any():
                    yield axis.bar


def chart(
    entry: Figure, rows: Sequence[Sequence[Panel]], summary: pd.DataFrame, source: Source, notes: Sequence[str] = ()
) -> Drawing:
    """Draw rows of one or two panels each."""
    points = Points(list(itertools.chain(*rows)), summary, source)
    handles = points.legend()
    count = max(map(len, rows))
    left, gap, height, stride, columns = 1.4, 1.3, 4.2, 5.1, 3
    width = (12.65 - left - gap * (count - 1)) / count
    sheet = page(
        entry.title,
        [entry.caption, *points.criteria()],
        [*points.notes(), *notes],
        width=13,
        body=len(rows) * stride + 0.2,
        legend_rows=-(-len(handles) // columns),
    )
    for i, panels in enumerate(rows):
        for k, panel in enumerate(panels):
            axes = sheet.axes(left + k * (width + gap), 0.25 + i * stride, width, height)
            points.draw(axes, panel)
            if k and panel.y == panels[0].y:
                axes.set_ylabel("")
    sheet.legend(handles, columns)
    return sheet.figure


def _points(measured: pd.DataFrame, published: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Return one row per mark of a panel, with COLUMNS and `is_joined`.

    Models without outlier feature (`is_empty`) have no y. `is_joined` marks published values of a model that was
    measured too.
    """
    own = _located(measured.assign(family=None, is_published=False), panel)
    others = _located(published.assign(is_published=True, is_empty=False, is_toy=False), panel)
    points = pd.DataFrame(own.to_dict("records") + others.to_dict("records"), columns=COLUMNS)
    points = points.astype(dict.fromkeys(PLACES, float) | dict.fromkeys(FLAGS, bool))
    points = points[points["x"].notna() & (points["y"].notna() | points["is_empty"])].reset_index(drop=True)
    has_value = points[~points["is_published"] & ~points["is_empty"]]
    return points.assign(is_joined=points["is_published"] & points["hub"].isin(has_value["hub"].dropna()))


def _located(models: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Return models with their places and bars along the axes of a panel; what is not known is blank."""
    places = {
        f"{letter}{end}": models.get(column, np.nan)
        for letter, axis in (("x", panel.x), ("y", panel.y))
        for end, column in zip(("", "_low", "_high"), (axis.column, *axis.ends), strict=False)
    }
    located = models.assign(**places).reindex(columns=COLUMNS)
    is_empty = located["is_empty"].astype(bool)
    return located.assign(**{name: located[name].where(~is_empty) for name in PLACES if name.startswith("y")})


def draw_points(axes: Axes, points: pd.DataFrame) -> list[Segment]:
    """Draw marks, bars, and lines from published to measured values and along families; return the lines drawn."""
    bars, joins, families = _bars(points), _joins(points), _families(points)
    for color, bar in bars:
        axes.plot(*zip(*bar, strict=True), color=color, linewidth=2.5, solid_capstyle="butt", zorder=3)
    for line in joins:
        axes.plot(*zip(*line, strict=True), color=GREY, linewidth=1.4, linestyle=":", zorder=2)
    for line in families:
        axes.plot(*zip(*line, strict=True), color=FAINT, linewidth=1.4, zorder=1)
    for is_published, is_toy, (kind, look) in itertools.product((False, True), (False, True), KINDS.items()):
        is_own = (points["is_published"] == is_published) & (points["is_toy"] == is_toy) & (points["kind"] == kind)
        group = points[is_own]
        height = 3.5 if is_toy else 4 if is_published else 5
        looks = mark(look, is_published, is_toy=is_toy)
        axes.plot(group["x"], group["y"], **looks, clip_on=False, zorder=height)
    return [bar for _, bar in bars] + joins + families


def _bars(points: pd.DataFrame) -> list[tuple[str, Segment]]:
    """Return the colour and the line of every bar that is known, upright or level."""
    points = points.assign(color=points["kind"].map(lambda kind: KINDS[kind].color).where(~points["is_toy"], TOY))
    upright = points.dropna(subset=["y_low", "y_high"])
    level = points.dropna(subset=["x_low", "x_high"])
    return [
        *((row["color"], ((row["x"], row["y_low"]), (row["x"], row["y_high"]))) for _, row in upright.iterrows()),
        *((row["color"], ((row["x_low"], row["y"]), (row["x_high"], row["y"]))) for _, row in level.iterrows()),
    ]


def _joins(points: pd.DataFrame) -> list[Segment]:
    """Return the line from each published value to the measured value of the same model."""
    own = points[~points["is_published"] & points["hub"].notna()]
    pairs = points[points["is_joined"]].merge(own, on="hub", suffixes=("", "_own"))
    return [((row["x"], row["y"]), (row["x_own"], row["y_own"])) for _, row in pairs.iterrows()]


def _families(points: pd.DataFrame) -> list[Segment]:
    """Return the lines between the neighbours of each published family."""
    return [
        pair
        for _, models in points.dropna(subset=["family"]).groupby("family")
        for pair in itertools.pairwise(sorted(zip(models["x"], models["y"], strict=True)))
    ]


def _name(row: pd.Series, floor: float, ground: float) -> Name:
    """Return how a point is named: published and toys small and grey; only models without outliers on the shelf."""
    size, color = (SMALL_NAME, GREY) if row["is_published"] or row["is_toy"] else (NAME, INK)
    return Name(row["label"], row["x"], row["y"], size, color, floor=floor if row["is_empty"] else ground)


def toys(models: pd.DataFrame, *, has_others: bool) -> "pd.Series[bool]":
    """Tell which models are toys: those that a `train:` entry trains here, beside models that come from elsewhere.

    `has_others` is whether there are such models besides these. Where all are trained here, none is a toy.
    """
    is_trained = models["source"].eq("train") if "source" in models else pd.Series(False, models.index)
    return is_trained & (has_others or not is_trained.all())


def mark(look: Look, is_published: bool, *, is_toy: bool = False) -> dict[str, Any]:
    """Return how a point is drawn: filled with a white rim when measured here, hollow when published; toys small."""
    size = (MARKER_SIZE if look.marker != "D" else 0.9 * MARKER_SIZE) * (TOY_SIZE if is_toy else 1)
    color = TOY if is_toy else look.color
    return {
        "linestyle": "none",
        "marker": look.marker,
        "markersize": size,
        "markerfacecolor": "white" if is_published else color,
        "markeredgecolor": color if is_published else "white",
        "markeredgewidth": 1.8 if is_published else 0.8,
    }


def bar_handle(label: str) -> Line2D:
    """Return the entry of a legend that says what bars are."""
    return Line2D([], [], label=label, color=GREY, marker="|", ms=14, mew=2.5, linestyle="none")
