"""What is in a drawing: its marks, its intervals and its words."""

import itertools

from matplotlib.colors import to_hex
from outlier_features.figures.style import KINDS


def marks(axes, marker, *, filled):
    """Return the places of all marks of a shape."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    lines = [line for line in lines if (to_hex(line.get_markerfacecolor()) != "#ffffff") == filled]
    return [place for line in lines for place in zip(*line.get_data(), strict=True)]


def bars(axes):
    """Return colour, low and high of all intervals."""
    lines = [line for line in axes.lines if line.get_color() in [look.color for look in KINDS.values()]]
    return [(line.get_color(), *line.get_ydata()) for line in lines]


def names(axes):
    """Return the texts beside points, without the label of the phase shift."""
    return [text for text in axes.texts if text.get_text() not in ("", "6.7B")]


def words(figure):
    """Return everything written outside of the panels, on one line."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def is_within(box, frame):
    return frame.x0 <= box.x0 <= box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1 <= frame.y1


def overlapping(texts):
    """Return the pairs of texts that cover each other."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]
