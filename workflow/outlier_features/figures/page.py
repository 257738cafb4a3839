"""The page of a figure: title and lines, panels, legend, notes at the foot. Lengths are inches."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from outlier_features.figures.style import DPI, GREY, INK, NOTE, TEXT, TITLE


@dataclass(frozen=True)
class Page:
    """A figure with its words written: a title, lines under it, notes at the foot; panels and legend are to come."""

    figure: Figure
    width: float
    height: float
    top: float
    """Where the panels may begin, in inches from the upper edge."""
    bottom: float
    """Where they have to end, with their labels, in inches from the lower edge; the legend hangs below."""

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add a panel, in inches: from the left edge, from where panels may begin, and its own size."""
        below = self.height - self.top - top - height
        place = (left / self.width, below / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def legend(self, handles: Sequence[Artist], columns: int) -> None:
        """Explain the marks, below the panels."""
        self.figure.legend(
            handles=list(handles),
            loc="upper left",
            bbox_to_anchor=(MARGIN / self.width, self.bottom / self.height),
            ncols=columns,
            frameon=False,
            borderaxespad=0.0,
            borderpad=0.0,
            columnspacing=2.0,
        )


MARGIN, GAP = 0.3, 0.18
TITLE_HEIGHT, TEXT_HEIGHT, NOTE_HEIGHT, LEGEND_HEIGHT = 0.4, 0.245, 0.21, 0.29
"""Height of one line of each, in inches."""
BOLD = 1.2
"""How much wider bold letters are."""


def page(
    title: str, lines: Sequence[str], notes: Sequence[str], *, width: float, body: float, legend_rows: int
) -> Page:
    """Return a page that leaves `body` inches of height to panels and their labels; the words decide the rest."""
    heading = wrapped([title], width - 2 * MARGIN, BOLD * TITLE)
    under_title = wrapped(lines, width - 2 * MARGIN, TEXT)
    at_foot = wrapped(notes, width - 2 * MARGIN, NOTE)
    above = MARGIN + TITLE_HEIGHT * len(heading)
    top = above + TEXT_HEIGHT * len(under_title) + GAP
    foot = MARGIN + NOTE_HEIGHT * len(at_foot)
    bottom = foot + GAP + LEGEND_HEIGHT * legend_rows
    height = top + body + bottom
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def write(lines: Sequence[str], y: float, size: float, color: str, weight: str = "normal") -> None:
        text = "\n".join(lines)
        figure.text(MARGIN / width, y / height, text, va="top", size=size, color=color, weight=weight, linespacing=1.3)

    write(heading, height - MARGIN, TITLE, INK, "bold")
    write(under_title, height - above, TEXT, INK)
    write(at_foot, foot, NOTE, GREY)
    return Page(figure, width, height, top, bottom)


def wrapped(paragraphs: Sequence[str], width: float, size: float) -> list[str]:
    """Break paragraphs into lines of at most `width` inches: a letter of this font is about 0.52 of its size wide."""
    columns = int(width * 72 / (0.52 * size))
    return [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, columns)]


def say(axes: Axes, words: str) -> None:
    """Let a panel that has no marks say why."""
    axes.set(xticks=[], yticks=[], facecolor="#f5f5f5")
    axes.text(0.5, 0.5, words, transform=axes.transAxes, size=TEXT, ha="center", va="center", linespacing=1.6)
