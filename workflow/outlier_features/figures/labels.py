"""Labels: where names are written beside their points, so that none covers another one or a mark.

Places and lengths are points (1/72 inch) on the page.
"""

# Shapes: N names, K places tried for a name, M things in the way.

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from numpy.typing import NDArray

from outlier_features.figures.style import DPI, GREY, INK, MARKER_SIZE, NAME

Floats = NDArray[np.float64]
"""Places (x, y) or boxes (left, bottom, right, top) on the page, in points, along the last axis."""
Segment = tuple[tuple[float, float], tuple[float, float]]
"""A straight line between two places in data coordinates."""


@dataclass(frozen=True)
class Name:
    """What is written beside a point, which is given in data coordinates."""

    text: str
    x: float
    y: float
    size: float = NAME
    color: str = INK
    floor: float = -np.inf
    """The name stays above this height."""


def write_names(
    axes: Axes, names: Sequence[Name], marks: Sequence[tuple[float, float]], lines: Sequence[Segment] = ()
) -> None:
    """Write names beside their points, with a leader where one had to move away.

    While there is room, no name covers another one or any of `marks` (data coordinates); `lines` are crossed where
    that saves a long way. Call it last: limits and layout have to be final. The same input gives the same places.
    """
    if not names:
        return
    halo = withStroke(linewidth=2.5, foreground="white")
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "boxstyle": "square,pad=0.1"}
    look: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 6, "bbox": ground}
    texts = [axes.annotate(n.text, (n.x, n.y), size=n.size, color=n.color, **look) for n in names]
    anchors_N2 = _on_page(axes, [(name.x, name.y) for name in names])
    frames = [_frame(axes, name.floor) for name in names]
    tried = zip(anchors_N2, texts, frames, strict=True)
    boxes_NK4 = np.stack([_around(anchor, _extent(text), frame) for anchor, text, frame in tried])
    dots = np.concatenate([np.empty((0, 2)), *(_dotted(*_on_page(axes, line)) for line in lines)])
    alone_NK = _alone(boxes_NK4, anchors_N2, _on_page(axes, marks), dots)
    chosen_N = _settle(alone_NK, _conflicts(boxes_NK4, anchors_N2))
    for text, anchor, box in zip(texts, anchors_N2, boxes_NK4[np.arange(len(names)), chosen_N], strict=True):
        text.set_anncoords("offset points")
        text.set_position(tuple((box[:2] + box[2:]) / 2 - anchor))
        edge = _nearest(anchor, box) - anchor
        if np.hypot(*edge) > LEADER_FROM:
            leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": MARKER_SIZE / 2}
            leader["path_effects"] = [halo]  # seen on any ground
            axes.annotate("", text.xy, tuple(edge), textcoords="offset points", arrowprops=leader)


LEADER_FROM = 13.0
"""Points between a mark and its name from which on a line joins them."""
DISTANCES = (8, 12, 18, 26, 37, 52, 74, 105)
"""How far from its point a name may go, in points."""
ANGLES = (0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240)
"""Where around its point a name may stand, in degrees, the easiest to read first."""
COVERING, CROSSING, CLOSENESS, DOT = 1000.0, 100.0, 8.0, 4.0
"""What it costs a name to cover another or a mark, to cross one with its leader, to be a point nearer to another mark
than is clear, and to cover three points of a line; each in points of distance that it would rather move away."""
AIR = (5.0, 1.0)
"""Points between two names side by side, and one above the other."""
STARTS = 100
"""Orders in which the names are tried; the cheapest outcome is kept."""


def _frame(axes: Axes, floor: float) -> Floats:
    """Return the box that a name has to stay in: the panel, down to `floor` in data coordinates."""
    frame = axes.get_window_extent().get_points().ravel() * 72 / DPI + [4, 4, -4, -4]
    if floor > axes.get_ylim()[0]:
        frame[1] = _on_page(axes, [(axes.get_xlim()[0], floor)])[0, 1]
    return frame


def _around(anchor: Floats, size: Floats, frame: Floats) -> Floats:
    """Return boxes [K, 4] of one size around a point, the nearest first, pushed into the frame."""
    angles = np.radians(ANGLES)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1).round(9)
    aside = np.clip(1.5 * directions, -1, 1) * size / 2  # half a box, so that its edge keeps the distance
    middles = np.concatenate([anchor + distance * directions + aside for distance in DISTANCES])
    middles = np.clip(middles, frame[:2] + size / 2, np.maximum(frame[2:], frame[:2] + size) - size / 2)
    return np.hstack([middles - size / 2, middles + size / 2])


def _alone(boxes_NK4: Floats, anchors_N2: Floats, marks_M2: Floats, dots_M2: Floats) -> Floats:
    """Return what each place [N, K] costs whatever the other names do."""
    marks_M4 = np.hstack([marks_M2 - 0.6 * MARKER_SIZE, marks_M2 + 0.6 * MARKER_SIZE])
    costs = np.tile(np.repeat(DISTANCES, len(ANGLES)).astype(float), (len(boxes_NK4), 1))
    for cost, boxes, anchor in zip(costs, boxes_NK4, anchors_N2, strict=True):
        is_other = ~_inside(anchor, marks_M4)
        others, places = marks_M4[is_other], marks_M2[is_other]
        gaps = np.hypot(*np.moveaxis(_nearest(places, boxes[:, None]) - places, -1, 0))
        cost += COVERING * (_shared(boxes, marks_M4) > 0).sum(axis=1)
        cost += CROSSING * _crosses(anchor, _nearest(anchor, boxes), others).sum(axis=1)
        cost += CLOSENESS * np.clip(LEADER_FROM - gaps, 0, None).sum(axis=1)
        cost += DOT * _inside(dots_M2, boxes[:, None]).sum(axis=1)
    return costs


def _conflicts(boxes_NK4: Floats, anchors_N2: Floats) -> Floats:
    """Return what each pair of places [N, K, N, K] of two names costs: a symmetric matrix."""
    names, places = boxes_NK4.shape[:2]
    costs = np.zeros((names, places, names, places), dtype=np.float32)
    ends_NK2 = _nearest(anchors_N2[:, None], boxes_NK4)
    for i, j in itertools.combinations(range(names), 2):
        shared = _shared(boxes_NK4[i], boxes_NK4[j])
        crossed = 1.0 * _crosses(anchors_N2[i], ends_NK2[i], boxes_NK4[j])
        crossed += _crosses(anchors_N2[j], ends_NK2[j], boxes_NK4[i]).T
        crossed += _leaders_cross(anchors_N2[i], ends_NK2[i], anchors_N2[j], ends_NK2[j])
        costs[i, :, j] = COVERING * (shared > 0) + shared + CROSSING * crossed
        costs[j, :, i] = costs[i, :, j].T
    return costs.astype(float)


def _settle(alone_NK: Floats, conflicts_NKNK: Floats) -> NDArray[np.intp]:
    """Choose a place for each name so that no single move is cheaper; the best of many orders of moving."""
    names = np.arange(len(alone_NK))
    shuffle = np.random.default_rng(0)
    best, lowest = names, np.inf
    for _ in range(STARTS):
        chosen, before = alone_NK.argmin(axis=1), None
        while before is None or (chosen != before).any():
            before = chosen.copy()
            for i in shuffle.permutation(names):
                chosen[i] = (alone_NK[i] + conflicts_NKNK[i][:, names, chosen].sum(axis=1)).argmin()
        cost = alone_NK[names, chosen].sum() + conflicts_NKNK[names, chosen][:, names, chosen].sum() / 2
        if cost < lowest:
            best, lowest = chosen, cost
    return best


def _shared(boxes_K4: Floats, others_M4: Floats) -> Floats:
    """Return the area [K, M] that boxes share, each grown by half of AIR."""
    lows = np.maximum(boxes_K4[:, None, :2], others_M4[:, :2])
    highs = np.minimum(boxes_K4[:, None, 2:], others_M4[:, 2:])
    sides = np.clip(highs - lows + AIR, 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1])


def _crosses(start: Floats, ends_K2: Floats, boxes_M4: Floats) -> NDArray[np.bool_]:
    """Tell which lines from `start` pass through which boxes [K, M]."""
    way = ends_K2[:, None] - start
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    one, other = (boxes_M4[:, :2] - start) / way, (boxes_M4[:, 2:] - start) / way
    first, last = np.minimum(one, other), np.maximum(one, other)
    enters, leaves = np.maximum(first[..., 0], first[..., 1]), np.minimum(last[..., 0], last[..., 1])
    return np.asarray((enters <= leaves) & (leaves >= 0) & (enters <= 1))


def _leaders_cross(a: Floats, ends_K2: Floats, b: Floats, others_M2: Floats) -> NDArray[np.bool_]:
    """Tell which lines from `a` cross which lines from `b`, [K, M]."""
    p, q = ends_K2[:, None] - a, others_M2 - b
    parts_b = _turn(p, b - a) * _turn(p, others_M2 - a) < 0
    parts_a = _turn(q, a - b) * _turn(q, ends_K2[:, None] - b) < 0
    return np.asarray(parts_b & parts_a)


def _turn(u: Floats, v: Floats) -> Floats:
    """Return on which side of `u` the vector `v` points, by its sign."""
    return np.asarray(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])


def _inside(places: Floats, boxes: Floats) -> NDArray[np.bool_]:
    """Tell which places lie in which boxes; the axes before the last are broadcast."""
    return np.asarray(((places >= boxes[..., :2]) & (places <= boxes[..., 2:])).all(axis=-1))


def _dotted(start: Floats, end: Floats) -> Floats:
    """Return places [M, 2] along a line, three points apart."""
    return np.linspace(start, end, 2 + int(np.hypot(*(end - start)) / 3))


def _nearest(places: Floats, boxes: Floats) -> Floats:
    """Return the place of each box that is nearest to a place outside: where its leader ends."""
    return np.clip(places, boxes[..., :2], boxes[..., 2:])


def _extent(text: Text) -> Floats:
    """Return the width and the height of a text."""
    extent = text.get_window_extent()
    return np.array([extent.width, extent.height]) * 72 / DPI


def _on_page(axes: Axes, places: Sequence[tuple[float, float]]) -> Floats:
    """Return where places in data coordinates are on the page."""
    return np.asarray(axes.transData.transform(np.reshape(places, (-1, 2)))) * 72 / DPI


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending places as little as possible (least squares) so that neighbours keep `gap` within low..high.

    Where the room is too small for that, the gap shrinks.
    """
    gap = min(gap, (high - low) / max(1, len(places) - 1))
    groups: list[list[float]] = []  # places that end up side by side, each less the gaps before it
    for i, place in enumerate(places):
        groups.append([place - i * gap])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    starts = [float(np.mean(group)) for group in groups for _ in group]
    return [min(max(start, low), high - gap * (len(places) - 1)) + i * gap for i, start in enumerate(starts)]
