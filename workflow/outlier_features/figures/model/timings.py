"""The figure of timings: where the capture of one model spent its time, block by block.

Takes tables as `timings` describes them, one for each job that the windows were shared out among. Times are seconds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from outlier_features.figures.page import page, say
from outlier_features.figures.scales import block_ticks
from outlier_features.figures.style import ACTIVITIES, FAINT, GREY, INK, SHADE, TEXT, style
from outlier_features.units import measured

MOST_PARTS = 8
"""Jobs that get a panel of their own; where there are more, one panel shows their sums."""
HEIGHTS = {1: (4.2, 1.3), 2: (2.9, 1.0), 4: (2.1, 0.85), MOST_PARTS: (1.6, 0.8)}
"""How high the panel of times and that of rates are, in inches, for up to so many parts."""
GIB = 2**30
BAR = 0.86
"""Width of a bar, in blocks."""
FEWEST = 10
"""Blocks that a panel has room for, even where there are fewer."""
CAPTION = (
    "Bars: what the pass did for each decoder block, one thing after the other. Dashes: how long a background thread "
    "took to read and convert the weights of that block, while the pass was still at the block before; the pass waits "
    "where they are not there in time, and always for the first block. Below: how many GiB a second that is."
)


def draw(label: str, parts: Sequence[pd.DataFrame]) -> Figure:
    """Draw the timings of the model called `label`, of one job or of several that shared its windows out."""
    with style():
        return _draw(label, parts)


def _draw(label: str, parts: Sequence[pd.DataFrame]) -> Figure:
    everything = pd.concat(parts, ignore_index=True)
    shown = [_summed(everything)] if len(parts) > MOST_PARTS else list(parts)
    high, low = next(heights for most, heights in HEIGHTS.items() if len(shown) <= most)
    heading = 0.4 if len(shown) > 1 else 0.1
    stride = heading + high + 0.16 + low + 0.2
    handles = _legend(everything)
    sheet = page(
        f"Where the time of the capture went: {label}",
        [_verdict(everything), CAPTION],
        [*_origins(parts), *_remarks(parts)],
        width=13,
        body=len(shown) * stride + 0.55,
        legend_rows=-(-len(handles) // 2),
    )
    limits = _limits(shown)
    for i, rows in enumerate(shown):
        top = heading + i * stride
        times = sheet.axes(1.35, top, 11.2, high)
        if len(shown) > 1:
            waited = f"of which waiting {measured(rows['waited_seconds'].sum())}"
            words = f"part {i + 1} of {len(shown)}: {measured(_standing(rows))}, {waited}"
            times.set_title(words, loc="left", size=TEXT, weight="bold", pad=6)
        if rows.empty:
            say(times, "no block was timed")
            continue
        rates = sheet.axes(1.35, top + high + 0.16, 11.2, low)
        _draw_times(times, rows, limits[1])
        _draw_rates(rates, rows, limits[2])
        for axes in (times, rates):
            _set_blocks(axes, limits[0])
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
            axes.set_axisbelow(True)
            _shade(axes, rows)
            axes.yaxis.set_label_coords(-0.065, 0.5)
        times.tick_params(labelbottom=False)
        if i + 1 < len(shown):
            rates.tick_params(labelbottom=False)
        else:
            rates.set_xlabel(f"block (0 to {limits[0] - 1})" if limits[0] > 1 else "block")
    sheet.legend(handles, 2)
    return sheet.figure


def _kinds(rows: pd.DataFrame) -> dict[str, "pd.Series[float]"]:
    """Return what the pass did, by the names of ACTIVITIES: with each other they are the time it took."""
    observed = rows["observed_seconds"].clip(upper=rows["computed_seconds"])
    return {
        "computed": rows["computed_seconds"] - observed,
        "observed": observed,
        "waited": rows["waited_seconds"],
        "saved": rows["saved_seconds"],
    }


def _standing(rows: pd.DataFrame) -> float:
    """Return the seconds that the pass spent on all blocks."""
    return float(sum(values.sum() for values in _kinds(rows).values()))


def _rate(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return GiB read in a second, blank where nothing was read."""
    return (rows["read_bytes"] / rows["read_seconds"]).where(
        (rows["read_bytes"] > 0) & (rows["read_seconds"] > 0)
    ) / GIB


def _summed(everything: pd.DataFrame) -> pd.DataFrame:
    """Return the sums over parts of each block's times; it is resumed where it is in any."""
    sums = everything.drop(columns="resumed").groupby("block").sum()
    return sums.assign(resumed=everything.groupby("block")["resumed"].any()).reset_index()


def _limits(shown: Sequence[pd.DataFrame]) -> tuple[int, float, float]:
    """Return what all panels have room for: blocks, seconds, GiB/s."""
    blocks = max((int(rows["block"].max()) + 1 for rows in shown if len(rows)), default=1)
    tallest = [np.maximum(sum(_kinds(rows).values()), rows["read_seconds"]).max() for rows in shown if len(rows)]
    fastest = [_rate(rows).max() for rows in shown if len(rows)]
    return blocks, 1.12 * max(tallest, default=0) or 1.0, 1.2 * np.nanmax([0.0, *fastest]) or 1.0


def _set_blocks(axes: Axes, blocks: int) -> None:
    """Give a panel an axis of blocks, on which the bars of few blocks do not become too wide."""
    aside = 0.7 + max(0, FEWEST - blocks) / 2
    axes.set_xlim(-aside, blocks - 1 + aside)
    axes.set_xticks(block_ticks(blocks))


def _draw_times(axes: Axes, rows: pd.DataFrame, ceiling: float) -> None:
    """Draw a stacked bar for each block, and a dash where the reading of its weights ended."""
    blocks, floor = rows["block"].to_numpy(float), np.zeros(len(rows))
    for name, seconds in _kinds(rows).items():
        axes.bar(blocks, seconds, BAR, floor, color=ACTIVITIES[name].color, linewidth=0, zorder=3)
        floor = floor + seconds.to_numpy(float)
    read = rows[rows["read_bytes"] > 0]
    middle, seconds = read["block"].to_numpy(float), read["read_seconds"]
    for width, color in ((3.6, "white"), (2.0, INK)):
        axes.hlines(seconds, middle - BAR / 2, middle + BAR / 2, color=color, linewidth=width, zorder=4)
    axes.set_ylim(0, ceiling)
    axes.set_ylabel("seconds")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))


def _draw_rates(axes: Axes, rows: pd.DataFrame, ceiling: float) -> None:
    """Draw how fast the weights of each block were read."""
    axes.plot(rows["block"], _rate(rows), color=INK, linewidth=1.0, marker="o", markersize=3.2, zorder=3)
    axes.set_ylim(0, ceiling)
    axes.set_ylabel("GiB/s")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10]))


def _shade(axes: Axes, rows: pd.DataFrame) -> None:
    """Mark the blocks that an earlier run had finished, neighbours as one."""
    resumed: NDArray[np.int64] = rows.loc[rows["resumed"], "block"].to_numpy(int)
    for run in np.split(resumed, np.flatnonzero(np.diff(resumed) > 1) + 1) if len(resumed) else ():
        axes.axvspan(run[0] - 0.5, run[-1] + 0.5, color=SHADE, linewidth=0, zorder=0)


def _legend(everything: pd.DataFrame) -> list[Artist]:
    """Return an entry for every mark that is in the picture, with the total of its seconds."""
    standing = _standing(everything)
    entries: list[Artist] = []
    if everything.empty:
        return entries
    for name, seconds in _kinds(everything).items():
        total = float(seconds.sum())
        share = f" ({_share(total, standing)})" if standing else ""
        words = f"{ACTIVITIES[name].label}: {measured(total)}{share}"
        entries.append(Patch(color=ACTIVITIES[name].color, label=words, linewidth=0))
    dash: dict[str, Any] = {"color": INK, "linewidth": 2.0}
    entries.append(Line2D([], [], label=f"reading, in the background: {_reading(everything)}", **dash))
    if everything["resumed"].any():
        entries.append(Patch(facecolor=SHADE, edgecolor=GREY, linewidth=0.5, label="finished by an earlier run"))
    return entries


def _reading(rows: pd.DataFrame) -> str:
    """Return in words how long was read, how much and how fast."""
    seconds, size = rows["read_seconds"].sum(), rows["read_bytes"].sum()
    rate = f", {size / GIB / seconds:.2f} GiB/s" if size and seconds else ""
    return f"{measured(seconds)} ({size / GIB:.3g} GiB{rate})"


def _verdict(everything: pd.DataFrame) -> str:
    """Say which was slower, the reading or the arithmetic."""
    standing = _standing(everything)
    if not standing:
        return "No time was taken down."
    read, computed = everything["read_seconds"].sum(), everything["computed_seconds"].sum()
    waited = everything["waited_seconds"].sum()
    return (
        f"Reading weights was {'slower' if read > computed else 'faster'} than computing: {measured(read)} against "
        f"{measured(computed)}. Waiting for weights took {measured(waited)}, {_share(waited, standing)} of the pass."
    )


def _share(seconds: float, standing: float) -> str:
    """Return a share of the time of the pass in percent."""
    percent = 100 * seconds / standing
    return "under 1 %" if 0 < percent < 0.5 else f"{percent:.0f} %"


def _origins(parts: Sequence[pd.DataFrame]) -> list[str]:
    """Say on which devices this was, as far as the provenance tells."""
    devices = [rows.attrs.get("provenance", {}).get("device") for rows in parts]
    known = sorted({str(device) for device in devices if device})
    return [f"Device: {', '.join(known)}."] if known else []


def _remarks(parts: Sequence[pd.DataFrame]) -> list[str]:
    """Say what else one needs to read the picture, one sentence for each."""
    everything = pd.concat(parts, ignore_index=True)
    resumed, still = int(everything["resumed"].sum()), int((everything["read_bytes"] == 0).sum())
    outside = sum(map(_outside, parts))
    summed = "the bars are the sums of their times" if len(parts) > MOST_PARTS else "each read all weights itself"
    return [
        *([f"The windows were shared out among {len(parts)} jobs; {summed}."] if len(parts) > 1 else []),
        *([f"Shaded: {_blocks(resumed)} finished by an earlier run; its times are shown."] if resumed else []),
        *([f"Without dash: {_blocks(still)} that did not have to be read."] if still else []),
        *([f"Not shown: {measured(outside)} before the first block and between blocks."] if outside >= 1 else []),
    ]


def _outside(rows: pd.DataFrame) -> float:
    """Return the seconds until this run ended its last block in which it did not do any of what is drawn."""
    own = rows[~rows["resumed"]]
    if own.empty:
        return 0.0
    last = own.iloc[-1]
    return max(0.0, last["started"] + last["computed_seconds"] + last["saved_seconds"] - _standing(own))


def _blocks(count: int) -> str:
    return f"{count} block{'s' * (count != 1)}"
