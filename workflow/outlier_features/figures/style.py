"""How figures look: fonts, colours and markers. Sizes are points.

Nothing global changes: draw and save inside `style()`.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import matplotlib
import seaborn
from matplotlib.colors import Colormap, to_hex

from outlier_features import site_names
from outlier_features.thresholds import TWIN

DPI = 144
"""Names are placed at the resolution figures are saved at, so what was measured is what is seen."""
TITLE, TEXT, NAME, SMALL_NAME, NOTE = 18.0, 13.0, 12.0, 10.5, 11.0
MARKER_SIZE = 10.0
TOY_SIZE = 0.6
"""How large the mark of a toy is beside that of another model."""
MASSIVE = "#c1272d"
"""What is said of massive activations."""
INK, GREY, FAINT, SHADE = "#222222", "#666666", "#c4c4c4", "#ededed"


@dataclass(frozen=True)
class Look:
    """How one kind of thing is drawn, and what the legend calls it."""

    label: str
    color: str
    marker: str


@dataclass(frozen=True)
class Stroke:
    """How one kind of line is drawn, and what the legend calls it."""

    label: str
    color: str
    style: Literal["-", "--"]


_COLORS = [to_hex(color) for color in seaborn.color_palette("colorblind")]
_BLUE, _ORANGE = _COLORS[:2]
KINDS = {"dense": Look("dense model", _BLUE, "o"), "moe": Look("mixture of experts", _ORANGE, "D")}
SHARES = {
    "layers": Stroke("layers affected", _COLORS[2], "-"),
    "positions": Stroke("positions affected", _COLORS[4], "--"),
}
"""The two shares where both are in one panel; marks there are those of KINDS."""
SITES = {
    "attn_in": Look(f"{site_names.SITES['attn_in']} (attn_in)", _BLUE, "o"),
    "out_proj_in": Look(f"{site_names.SITES['out_proj_in']} (out_proj_in)", _COLORS[2], "s"),
    "mlp_in": Look("input of the MLP (mlp_in)", _COLORS[3], "^"),
    "residual": Look(f"{site_names.SITES['residual']} (residual)", INK, "D"),
}
RING: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgewidth": 1.6, "linestyle": "none"}
"""The ring around a mark that something is to be said of."""
ACTIVITIES = {
    "computed": Look("computing, without statistics", _BLUE, "s"),
    "observed": Look("statistics", _COLORS[9], "s"),
    "waited": Look("waiting for weights", _ORANGE, "s"),
    "saved": Look("saving", _COLORS[4], "s"),
}
"""What a capture pass does."""


def series_looks(names: Sequence[str]) -> dict[str, Look]:
    """Return how each series is drawn: the first ones differ in colour and in shape."""
    looks = zip(itertools.cycle(_COLORS), itertools.cycle("osD^vP"))
    return {name: Look(name, color, marker) for name, (color, marker) in zip(names, looks, strict=False)}


def definition_looks(names: Sequence[str]) -> dict[str, Look]:
    """Return how each definition is drawn: a scale-free twin in the colour and shape of the one it belongs to."""
    looks = series_looks(list(dict.fromkeys(name.removesuffix(TWIN) for name in names)))
    return {name: replace(looks[name.removesuffix(TWIN)], label=name) for name in names}


@contextmanager
def style() -> Iterator[None]:
    """Apply the fonts, colours and file settings of this project to everything drawn or saved inside."""
    settings = {
        **seaborn.axes_style("ticks"),
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans", "Verdana"],  # of the same width, where an .svg finds the first one missing
        "font.size": TEXT,
        "axes.titlesize": TEXT,
        "axes.labelsize": TEXT,
        "xtick.labelsize": NAME,
        "ytick.labelsize": NAME,
        "legend.fontsize": NAME,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "svg.hashsalt": "outlier-features",
        "svg.fonttype": "none",  # letters stay text: a tenth of the bytes, and a reader can search and copy them
    }
    with matplotlib.rc_context(settings):
        yield


def magnitude_colors() -> Colormap:
    """Return the colours of magnitudes, light to dark; even the lightest stands out on white."""
    return seaborn.color_palette("flare", as_cmap=True)  # type: ignore[no-any-return]
