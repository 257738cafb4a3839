"""What number formats would lose at the matrix inputs of one model: blocks by sites, a panel for each format."""

# Shapes: N site, L block.

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_rgb
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from outlier_features.figures.catalogue import Figure
from outlier_features.figures.page import page, say
from outlier_features.figures.scales import block_ticks
from outlier_features.figures.style import INK, NOTE, RING, SHADE, TEXT
from outlier_features.figures.tables import Portrait
from outlier_features.site_names import MATRIX_INPUTS

NAMED = 10
"""Tensors of the lowest ratios that are ringed and named."""
MEANINGS = {
    "absmax": "int8, one scale a window",
    "row_wise": "int8, one scale a token",
    "zeropoint": "int8, one range a window",
    "zeropoint_vector": "int8, one range a token",
    "w8a8_static": "int8, one range frozen for all windows",
    "int4": "one scale a token",
    "fp8_tensor": "e4m3, one scale a window",
    "fp8_token": "e4m3, one scale a token",
    "mxfp8": "e4m3, one scale for 32 channels",
    "mxfp4": "e2m1, one scale for 32 channels",
    "nvfp4": "e2m1, one scale for 16 channels",
}
"""What formats are, above their panels."""
LEFT, WIDTH, GAP, HEADING, ROW = 1.75, 4.65, 0.3, 0.42, 0.21
"""Where panels begin, how wide they and the gap between them are, and how high a title and a site, in inches."""
LIST_HEIGHT = 1.65


def damage(entry: Figure, model: Portrait) -> Drawing:
    """Draw the predicted ratio of every matrix input under every format, and name the lowest."""
    title = f"{entry.title}: {model.label}"
    if model.damage.empty:
        sheet = page(title, [entry.caption], [], width=13, body=2.4, legend_rows=0)
        axes = sheet.axes(LEFT, 0.2, 9.6, 2.0)
        say(axes, "The capture did not keep how the values of matrix inputs are spread,\nso nothing was predicted.")
        return sheet.figure
    formats = list(dict.fromkeys(model.damage["format"]))
    sites = [site for site in MATRIX_INPUTS if site in set(model.damage["site"])]
    stride, rows = HEADING + ROW * len(sites), -(-len(formats) // 2)
    below = rows * stride + 0.75
    sheet = page(title, [entry.caption], _notes(model, sites), width=13, body=below + LIST_HEIGHT, legend_rows=0)
    ratios = model.damage["predicted_sqnr_db"].replace([np.inf, -np.inf], np.nan)
    scale, colors = Normalize(*_ends(ratios)), seaborn.color_palette("flare_r", as_cmap=True)
    lowest = _lowest(model.damage.assign(predicted_sqnr_db=ratios))
    for i, name in enumerate(formats):
        axes = sheet.axes(LEFT + i % 2 * (WIDTH + GAP), HEADING + i // 2 * stride, WIDTH, ROW * len(sites))
        meaning = f": {MEANINGS[name]}" if name in MEANINGS else ""
        axes.set_title(f"{name}{meaning}", loc="left", pad=4, size=NOTE, weight="bold")
        _paint(axes, _matrix(model, name, sites), scale, colors)
        _label(axes, sites, model.blocks, is_left=i % 2 == 0, is_lowest=i >= len(formats) - 2)
        _ring(axes, lowest[lowest["format"] == name], sites, WIDTH * 72 / model.blocks)
    height = min(3.2, rows * stride - HEADING)
    bar = sheet.figure.colorbar(
        ScalarMappable(scale, colors), cax=sheet.axes(11.75, HEADING, 0.22, height), label="signal over error, dB"
    )
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _write(sheet.axes(0.3, below, 12.4, LIST_HEIGHT), lowest)
    return sheet.figure


def _ends(ratios: "pd.Series[float]") -> tuple[float, float]:
    """Return the ends of the scale of colours, multiples of 5 dB."""
    known = ratios.dropna()
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    return float(5 * np.floor(low / 5)), float(5 * max(np.ceil(high / 5), np.floor(low / 5) + 1))


def _lowest(damage: pd.DataFrame) -> pd.DataFrame:
    """Return the tensors of the lowest ratios, each under the format of its lowest."""
    ordered = damage.dropna(subset="predicted_sqnr_db").sort_values(["predicted_sqnr_db", "block"], kind="stable")
    return ordered.drop_duplicates(["block", "site"]).head(NAMED)


def _matrix(model: Portrait, name: str, sites: Sequence[str]) -> np.ndarray:
    """Return the ratios of one format (N, L), NaN where there is no such tensor."""
    own = model.damage[model.damage["format"] == name].drop_duplicates(["block", "site"])
    table = own.pivot(index="site", columns="block", values="predicted_sqnr_db")
    return table.reindex(index=list(sites), columns=range(model.blocks)).to_numpy(float)


def _paint(axes: Axes, ratios_NL: np.ndarray, scale: Normalize, colors: Colormap) -> None:
    """Paint sites by blocks: pale where there is no such tensor, as the highest where nothing is lost."""
    shades_NL = np.asarray(scale(np.nan_to_num(ratios_NL, posinf=1e9)))
    image_NL3 = colors(np.clip(shades_NL, 0, 1))[..., :3]
    image_NL3[np.isnan(ratios_NL)] = to_rgb(SHADE)
    axes.imshow(image_NL3, aspect="auto", interpolation="nearest")


def _label(axes: Axes, sites: Sequence[str], blocks: int, *, is_left: bool, is_lowest: bool) -> None:
    axes.set_yticks(range(len(sites)), sites, size=NOTE)
    axes.set_xticks(block_ticks(blocks))
    axes.tick_params(labelleft=is_left, labelbottom=is_lowest, length=2)
    if is_lowest:
        axes.set_xlabel("block")


def _ring(axes: Axes, lowest: pd.DataFrame, sites: Sequence[str], cell: float) -> None:
    """Ring the tensors that are named; a block is `cell` points wide."""
    if lowest.empty:
        return
    places = [sites.index(site) for site in lowest["site"]]
    size = float(np.clip(cell, 7, 10))
    for color, width in (("white", 3.0), (INK, 1.4)):
        axes.plot(lowest["block"], places, color=color, ms=size, **(RING | {"markeredgewidth": width}), clip_on=False)


def _write(axes: Axes, lowest: pd.DataFrame) -> None:
    """Name the tensors of the lowest ratios, in two columns."""
    axes.set_axis_off()
    axes.set(xticks=[], yticks=[])
    heading = f"The {len(lowest)} tensors that lose most, each by its worst format (ringed)"
    axes.text(0, 0.98, heading, size=TEXT, weight="bold", va="top", transform=axes.transAxes)
    half = -(-len(lowest) // 2)
    for i, (_, row) in enumerate(lowest.iterrows()):
        words = f"{i + 1}. {row['site']} of block {row['block']}: {row['predicted_sqnr_db']:.1f} dB ({row['format']})"
        place = 0.5 * (i // half), 0.8 - 0.155 * (i % half)
        axes.text(*place, words, size=NOTE, va="top", transform=axes.transAxes)


def _notes(model: Portrait, sites: Sequence[str]) -> list[str]:
    missing = [site for site in MATRIX_INPUTS[:4] if site not in sites]
    words = (
        "A tensor is a block and a site. An outlier channel is most of the signal and is itself represented well, so "
        "ratios of float formats can rise with it: the column predicted_sqnr_rest_db of the table of damage leaves the "
        "largest channel out."
    )
    shape = model.damage.groupby(["block", "site"]).ngroups, model.blocks * len(sites)
    absent = [f"Pale: blocks without such a tensor ({shape[1] - shape[0]})."] if shape[0] < shape[1] else []
    return [words, *absent, *([f"Not captured: {', '.join(missing)}."] if missing else [])]
