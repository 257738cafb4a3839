"""The experts of one model: how much each is used, and how large its output becomes."""

# Shapes: L block, E expert.

import re
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, to_rgb
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from outlier_features.figures.catalogue import Figure
from outlier_features.figures.labels import Name, write_names
from outlier_features.figures.page import Page, page, say
from outlier_features.figures.scales import block_ticks, magnitude_bar, magnitudes, set_decades
from outlier_features.figures.style import GREY, INK, RING, SHADE, TEXT, magnitude_colors
from outlier_features.figures.tables import Portrait

MOST_NAMED = 20
"""Super experts that are named; where there are more, those of the largest output."""
FARTHEST = 16.0
"""How many times more or less than its equal share the colours tell apart."""
FEWEST_FOR_PERCENTILE = 200
"""Experts below which the largest always exceeds the 99.5th percentile."""
LEFT, WIDTH, STEP = 0.95, 7.5, 0.6
"""Where the maps begin, how wide they are, and the gap to what stands beside them, in inches."""


def experts(entry: Figure, model: Portrait) -> Drawing:
    """Draw the load of every expert of a mixture, the entropy of its routing, and the largest outputs."""
    routers = model.layers[model.layers["site"] == "router"].drop_duplicates("block").set_index("block")
    title = f"{entry.title}: {model.label}"
    height = float(np.clip(0.14 * model.blocks, 2.4, 6.0))
    handles = _legend(routers, model.blocks)
    notes = [*_found(routers), *_published(model, routers)]
    stride = height + 1.25
    sheet = page(title, [entry.caption], notes, width=13, body=2 * stride, legend_rows=-(-len(handles) // 2))
    _draw_load(sheet, routers, model.blocks, 0.45, height)
    _draw_outputs(sheet, routers, model.blocks, 0.45 + stride, height)
    sheet.legend(handles, 2)
    return sheet.figure


def _matrix(routers: pd.DataFrame, column: str, blocks: int) -> NDArray[np.float64]:
    """Return a column of lists as (L, E), blank where it has no value."""
    lists = [np.asarray(values if np.iterable(values) else (), dtype=float) for values in routers[column]]
    found_LE = np.full((blocks, int(routers["experts"].max())), np.nan)
    for block, values in zip(routers.index, lists, strict=True):
        found_LE[block, : len(values)] = values
    return found_LE


def _is_there(routers: pd.DataFrame, blocks: int) -> NDArray[np.bool_]:
    """Tell which experts there are, (L, E): blocks may have none, or fewer."""
    experts_L = routers["experts"].astype(int).reindex(range(blocks), fill_value=0).to_numpy()
    return np.asarray(np.arange(experts_L.max()) < experts_L[:, None])


def _draw_load(sheet: Page, routers: pd.DataFrame, blocks: int, top: float, height: float) -> None:
    """Draw the share of tokens of each expert, in equal shares, and beside it the entropy of each block."""
    is_there_LE = _is_there(routers, blocks)
    load_LE = _matrix(routers, "expert_load", blocks) * is_there_LE.sum(1)[:, None]
    axes = sheet.axes(LEFT, top, WIDTH, height)
    unused = int((load_LE == 0).sum())
    words = f"{unused} expert{'s' * (unused != 1)} without a token" if unused else "every expert sees tokens"
    axes.set_title(f"load, in equal shares of 1/E: {words}", loc="left", pad=8, size=TEXT, weight="bold")
    known = load_LE[load_LE > 0]
    most = float(np.clip(2 ** np.ceil(np.log2(max(known.max(), 1 / known.min()))), 2, FARTHEST)) if known.size else 2.0
    scale, colors = LogNorm(1 / most, most), seaborn.color_palette("vlag", as_cmap=True)
    _paint(axes, np.where(load_LE > 0, load_LE, np.nan), is_there_LE, scale, colors)
    bar = sheet.figure.colorbar(
        ScalarMappable(scale, colors), cax=sheet.axes(11.75, top, 0.22, height), label="times the equal share"
    )
    steps = [2.0**power for power in range(-int(np.log2(most)), int(np.log2(most)) + 1)]
    names = {step: f"1/{1 / step:g}" if step < 1 else f"{step:g}" for step in steps}
    names[steps[0]], names[steps[-1]] = f"≤ {names[steps[0]]}", f"≥ {names[steps[-1]]}"
    bar.ax.yaxis.set_major_locator(FixedLocator(steps))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(value, "")))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    _draw_entropy(sheet.axes(LEFT + WIDTH + STEP, top, 2.3, height), routers, blocks)


def _draw_entropy(axes: Axes, routers: pd.DataFrame, blocks: int) -> None:
    """Draw the entropy of the load of each block, between its bounds."""
    axes.set_title("routing entropy", loc="left", pad=8, size=TEXT, weight="bold")
    entropy = routers["routing_entropy"].reindex(range(blocks)).astype(float)
    if entropy.isna().all():
        say(axes, "no value\nat any block")
        return
    high, low = (routers[name].astype(float).apply(np.log2) for name in ("experts", "top_k"))
    axes.plot(entropy, range(blocks), color=INK, linewidth=1.1, marker="o", markersize=4, zorder=3)
    edges = np.repeat(np.arange(blocks + 1) - 0.5, 2)[1:-1]  # a line as high as its block, also of a single one
    for ends, dashes in ((high, "--"), (low, ":")):
        axes.plot(np.repeat(ends.reindex(range(blocks)), 2), edges, color=GREY, linewidth=1.2, linestyle=dashes)
    axes.set(xlim=(min(low.min(), entropy.min()) - 0.25, high.max() + 0.25), ylim=(-0.5, blocks - 0.5), xlabel="bits")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.set_yticks(block_ticks(blocks))
    axes.tick_params(labelleft=False)


def _draw_outputs(sheet: Page, routers: pd.DataFrame, blocks: int, top: float, height: float) -> None:
    """Draw the largest |output| of each expert, and ring the super experts."""
    axes = sheet.axes(LEFT, top, WIDTH, height)
    axes.set_title("largest |output of the down-projection|", loc="left", pad=8, size=TEXT, weight="bold")
    if "expert_max_abs" not in routers:
        say(axes, "The table has no outputs of experts\n(no column expert_max_abs): capture and reduce again.")
        return
    output_LE = _matrix(routers, "expert_max_abs", blocks)
    output_LE = np.where(np.isfinite(output_LE) & (output_LE > 0), output_LE, np.nan)
    known = pd.Series(output_LE[~np.isnan(output_LE)])
    if known.empty:
        say(axes, "No output of an expert was kept.")
        return
    scale = magnitudes(known)
    magnitude_bar(sheet, (11.75, top, 0.22, height), scale, "largest |output|")
    _paint(axes, output_LE, _is_there(routers, blocks), scale, magnitude_colors())
    places = sorted(_super_experts(routers), key=lambda place: -output_LE[place])
    size = 12 if len(places) <= MOST_NAMED else 6
    rings = np.reshape(places, (-1, 2)).T[::-1]
    axes.plot(*rings, color="white", ms=size, **(RING | {"markeredgewidth": 3.4}))
    axes.plot(*rings, color=INK, ms=size, **RING)
    names = [Name(f"({block};{expert})", expert, block) for block, expert in places[:MOST_NAMED]]
    write_names(axes, names, [(float(expert), float(block)) for block, expert in places])
    _draw_ranks(sheet.axes(LEFT + WIDTH + STEP, top, 2.3, height), known, len(places))


def _draw_ranks(axes: Axes, outputs: "pd.Series[float]", ringed: int) -> None:
    """Draw the largest |output| of all experts from most to least: super experts stand above the others."""
    ordered = np.sort(outputs)[::-1]
    ranks = np.arange(1, len(ordered) + 1)
    axes.set_title("all, from most to least", loc="left", pad=8, size=TEXT, weight="bold")
    axes.plot(ranks, ordered, color=INK, linewidth=1.4)
    axes.plot(ranks[:ringed], ordered[:ringed], color=INK, ms=6, **RING)
    axes.set(xscale="log", xlim=(0.7, 1.4 * len(ordered)), xlabel="rank of the expert")
    set_decades(axes, ordered[-1], ordered[0], 0.05)
    powers = [10**power for power in range(7) if 10**power <= len(ordered)]
    ticks = powers[:: 1 + len(powers) // 5] if len(powers) > 1 else sorted({1, len(ordered)})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _paint(
    axes: Axes, values_LE: NDArray[np.float64], is_there_LE: NDArray[np.bool_], scale: LogNorm, colors: Colormap
) -> None:
    """Paint blocks by experts: grey where an expert saw no token, pale where there is no expert."""
    blocks, experts = values_LE.shape
    image_LE3 = colors(scale(np.nan_to_num(values_LE, nan=1.0)))[..., :3]
    image_LE3[np.isnan(values_LE)] = to_rgb(GREY)
    image_LE3[~is_there_LE] = to_rgb(SHADE)
    axes.imshow(image_LE3, origin="lower", aspect="auto", interpolation="nearest")
    axes.set(xlabel=f"expert (0 to {experts - 1})", ylabel="block (0 at the bottom)")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.set_yticks(block_ticks(blocks))


def _super_experts(routers: pd.DataFrame) -> list[tuple[int, int]]:
    """Return block and number of each super expert."""
    if "super_experts" not in routers:
        return []
    found = routers["super_experts"].dropna()
    return [(block, int(expert)) for block, each in zip(found.index, found, strict=True) for expert in each]


def _found(routers: pd.DataFrame) -> list[str]:
    """Say how many super experts there are, and what that is worth."""
    rule = "largest |output| over the 99.5th percentile of all experts and a tenth of the largest (Su et al. 2025)"
    if "super_experts" not in routers:
        return ["The table names no super experts (no column super_experts): reduce again."]
    places, total = _super_experts(routers), int(routers["experts"].sum())
    more = f", the {MOST_NAMED} largest named" if len(places) > MOST_NAMED else ", named (block;expert)"
    count = f"{len(places)} ringed{more}" if places else "none"
    is_vacuous = bool(places) and total < FEWEST_FOR_PERCENTILE
    few = f" Of {total} experts the largest always exceeds that percentile, so here it says little."
    return [f"Super experts, {rule}: {count}.{few * is_vacuous}"]


def _published(model: Portrait, routers: pd.DataFrame) -> list[str]:
    """Say which super experts others found in the same model, and how many of them are ringed."""
    table = model.published.get("super_experts", pd.DataFrame(columns=["model"]))
    own, here = table[table["model"] == (model.hub or "").rpartition("/")[2]], set(_super_experts(routers))
    lines = []
    for listed, source in zip(own.get("super_experts_layer_expert", ()), own.get("source", ()), strict=True):
        places = {(int(block), int(expert)) for block, expert in re.findall(r"\((\d+);(\d+)\)", listed)}
        known = f"; {len(places & here)} of {len(places)} are ringed here" if "super_experts" in routers else ""
        lines.append(f"Published for {model.hub} ({source}): {listed}{known}.")
    return lines


def _legend(routers: pd.DataFrame, blocks: int) -> list[Artist]:
    """Return an entry for every mark that is in the picture."""
    line: dict[str, Any] = {"color": GREY, "linewidth": 1.2}
    entries: list[Artist] = [
        Line2D([], [], linestyle="--", label="most entropy: log2 of the experts, all used equally", **line),
        Line2D([], [], linestyle=":", label="log2 of top-k: always the same experts", **line),
    ]
    if (routers["unused_experts"].fillna(0) > 0).any():
        entries.append(Patch(color=GREY, linewidth=0, label="expert that saw no token"))
    if not _is_there(routers, blocks).all():
        entries.append(Patch(facecolor=SHADE, edgecolor=GREY, linewidth=0.5, label="no such expert"))
    if _super_experts(routers):
        entries.append(Line2D([], [], label="super expert (block;expert)", color=INK, ms=11, **RING))
    return entries
