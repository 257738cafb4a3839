"""Whether the outlier channels of one model are the same in every sequence, and how many sequences it takes."""

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from outlier_features.figures.catalogue import Figure
from outlier_features.figures.page import page, say
from outlier_features.figures.style import FAINT, GREY, INK, NAME, SMALL_NAME, TEXT, Look, definition_looks
from outlier_features.figures.tables import Portrait
from outlier_features.thresholds import TWIN

COUNTED = {"llm_int8": "absolute threshold", f"llm_int8{TWIN}": "scale-free"}
"""The definitions whose channels are counted one by one."""
MOST_NUMBERED = 30
"""Channels that there is room to number; where there are more, the panel shows them without numbers."""
WIDTH, HEIGHT, GAP = 5.2, 2.6, 1.1
"""Of a panel and between two, in inches."""


def stability(entry: Figure, model: Portrait) -> Drawing:
    """Draw in how many sequences each outlier channel qualifies, and how the set of them depends on the windows."""
    table = model.convergence
    known = table.dropna(subset=["jaccard"]) if len(table) else table
    looks = definition_looks(list(known["definition"].unique()) if len(known) else [])
    counts = pd.concat([_channels(model, definition)["sequence_count"] for definition in COUNTED])
    handles = _legend(set(counts >= model.sequences / 2), looks)
    sheet = page(
        f"{entry.title}: {model.label}",
        [entry.caption],
        _remarks(model, known),
        width=13,
        body=2 * (HEIGHT + 1.25),
        legend_rows=-(-len(handles) // 2),
    )
    for i, (definition, meaning) in enumerate(COUNTED.items()):
        left = 1.0 + i * (WIDTH + GAP)
        _draw_counts(sheet.axes(left, 0.45, WIDTH, HEIGHT), model, definition, meaning)
        axes = sheet.axes(left, HEIGHT + 1.75, WIDTH, HEIGHT)
        own = known[known["definition"].str.endswith(TWIN) == definition.endswith(TWIN)] if len(known) else known
        _draw_agreement(axes, own, looks, model.sequences, meaning)
    sheet.legend(handles, 2)
    return sheet.figure


def _draw_counts(axes: Axes, model: Portrait, definition: str, meaning: str) -> None:
    """Draw the number of sequences that each channel qualifies in alone, from most to least."""
    channels = _channels(model, definition)
    count = len(channels)
    axes.set_title(f"{meaning} ({definition}): {_counted(count)}", loc="left", pad=8, size=TEXT, weight="bold")
    if not count:
        say(axes, "No channel qualifies in all sequences together.")
        return
    counts, places = channels["sequence_count"].to_numpy(float), np.arange(count)
    colors = [INK if is_stable else GREY for is_stable in counts >= model.sequences / 2]
    room = max(count, 12)
    size = float(np.clip(0.55 * WIDTH * 72 / room, 1.2, 8.0))
    many = count > MOST_NUMBERED
    axes.vlines(places, 0, counts, color=colors, linewidth=max(0.4, 0.3 * size), zorder=2, rasterized=many)
    axes.scatter(places, counts, s=size**2, c=colors, linewidths=0, zorder=3, rasterized=many)
    axes.axhline(model.sequences / 2, color=GREY, linewidth=1.0, linestyle="--", zorder=1)
    axes.set(xlim=(-0.04 * room - 0.5, room - 0.5 + 0.04 * room), ylim=(0, model.sequences * 1.08))
    axes.set_ylabel(f"sequences (of {model.sequences})")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if many:
        axes.set_xticks([])
        axes.set_xlabel(f"{count:,} channels, too many to number; the most stable left")
    else:
        is_tight = count > 10
        axes.set_xticks(places, [str(channel) for channel in channels["channel"]])
        axes.tick_params(axis="x", rotation=90 if is_tight else 0, labelsize=SMALL_NAME if is_tight else NAME)
        axes.set_xlabel("channel")


def _channels(model: Portrait, definition: str) -> pd.DataFrame:
    """Return the outlier channels of a pooled definition, the most stable first."""
    table = model.outliers
    if table.empty:
        return pd.DataFrame(columns=["channel", "sequence_count"])
    own = table[(table["definition"] == definition) & table["sequence"].isna()]
    return own.sort_values(["sequence_count", "channel"], ascending=[False, True])


def _counted(count: int) -> str:
    return f"{count:,} channel{'s' * (count != 1)}" if count else "no channel"


def _draw_agreement(axes: Axes, rows: pd.DataFrame, looks: Mapping[str, Look], sequences: int, meaning: str) -> None:
    """Draw the similarity of the set found with some of the windows to that of all, with its band, and to others'."""
    axes.set_title(f"agreement of windows, {meaning}", loc="left", pad=8, size=TEXT, weight="bold")
    if sequences < 2:
        say(axes, "One window was captured:\nthere is nothing to compare it with.")
        return
    if rows.empty:
        say(axes, "No definition finds an outlier channel.")
        return
    names = list(rows["definition"].unique())
    for name, linewidth in zip(names, np.linspace(2.2 * len(names) - 0.4, 1.8, len(names)), strict=True):
        own, look = rows[rows["definition"] == name].sort_values("windows"), looks[name]
        axes.fill_between(own["windows"], own["jaccard_low"], own["jaccard_high"], color=look.color, alpha=0.15, lw=0)
        axes.plot(own["windows"], own["jaccard"], color=look.color, linewidth=linewidth, zorder=3)
        if "jaccard_apart" in own:
            axes.plot(own["windows"], own["jaccard_apart"], color=look.color, linewidth=1.4, ls=":", zorder=3)
    axes.set(xlim=(1 - 0.03 * sequences, sequences * 1.03), ylim=(-0.03, 1.05))
    axes.set(xlabel=f"windows (of {sequences})", ylabel="Jaccard similarity")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def _legend(stable: Container[bool], looks: Mapping[str, Look]) -> list[Artist]:
    """Return an entry for every mark that is in the picture; `stable` says which of both kinds of channels are."""
    base = {name.removesuffix(TWIN): look for name, look in looks.items()}
    lines = [Line2D([], [], color=look.color, linewidth=3, label=_both(name, looks)) for name, look in base.items()]
    band: list[Artist] = [Patch(color=GREY, alpha=0.25, lw=0, label="95 % of the selections")] if looks else []
    band += [Line2D([], [], color=GREY, linewidth=1.4, ls=":", label="two selections that share no window")] * bool(
        looks
    )
    dot: dict[str, Any] = {"marker": "o", "ms": 7, "linewidth": 1.6}
    kinds = {True: (INK, "stable: in at least half of the sequences (dashed)"), False: (GREY, "in fewer")}
    dots = [Line2D([], [], color=color, label=words, **dot) for kind, (color, words) in kinds.items() if kind in stable]
    return [*dots, *lines, *band]


def _both(base: str, looks: Mapping[str, Look]) -> str:
    return ", ".join(name for name in (base, f"{base}{TWIN}") if name in looks)


def _remarks(model: Portrait, known: pd.DataFrame) -> list[str]:
    """Say how to read the picture, and which definitions it lacks."""
    empty = sorted(set(model.convergence["definition"]) - set(known["definition"])) if len(model.convergence) else []
    reading = (
        "Agreement: the Jaccard similarity (shared channels over channels of either) of the set found with so many "
        f"windows to that of all {model.sequences}, mean and central 95 % over random selections of windows. The last "
        "is 1 whatever the windows are, so a line that has come near 1 does not say that more windows would change "
        "nothing; the dotted line, of two selections that share no window, does not end there by itself. Lines that "
        "coincide lie inside each other."
    )
    return [
        *([reading] if len(known) and model.sequences > 1 else []),
        *([f"Without any outlier channel, so without a line: {', '.join(empty)}."] if empty else []),
    ]
