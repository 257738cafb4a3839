"""Tables of one model, written by hand, and what is in the figures that are drawn from them."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
from outlier_features.figures.draw import draw_model
from outlier_features.figures.style import SITES
from outlier_features.figures.tables import Portrait

FIGURES = ("kurtosis", "magnitude", "positions", "stability", "damage", "experts")
DAMAGED = ("attn_in", "out_proj_in", "mlp_in", "down_in")
RATIOS = {"absmax": 20.0, "row_wise": 40.0, "mxfp4": 15.0}
"""Formats of the table of damage, and the ratio at the first site of block 0 in decibels."""
KURTOSES = ("kurtosis_neuron_rms", "kurtosis_flattened", "kurtosis_token_excess", "kurtosis_channel_mean")
IN_WORDS = ("over the RMS of channels", "over all values", "within a token", "over the means of channels")
"""What the panels of KURTOSES are called."""
CLASSES = ("all", "first", "rest")
BLOCKS, CHANNELS, SEQUENCES = 4, 64, 8


def layer(block, site, token_class, **columns):
    """Return a row of the table of layers; values tell where they are from."""
    value = 1.0 + block + 10 * list(SITES).index(site) + {"all": 0, "first": 0.2, "rest": 0.4}[token_class]
    is_residual = site == "residual"
    row = {
        "block": block,
        "site": site,
        "token_class": token_class,
        "channels": CHANNELS,
        "rms": value / 10,
        "max_abs": value,
        **dict.fromkeys(KURTOSES, value),
        "mmr": value if is_residual else math.nan,
        "massive_count": 0 if is_residual else None,
        "massive_top": [] if is_residual else None,
    }
    return row | columns


def layers(blocks=BLOCKS, sites=tuple(SITES)):
    rows = [layer(b, site, token_class) for b in range(blocks) for site in sites for token_class in CLASSES]
    return pd.DataFrame(rows).astype({"massive_count": "Int64", "channels": "Int32"})


def router(block, load, top_k=1, outputs=None, super_experts=()):
    """Return a row of the table of layers about the experts of a block."""
    used = [share for share in load if share > 0]
    return {
        "block": block,
        "site": "router",
        "token_class": "all",
        "experts": len(load),
        "top_k": top_k,
        "expert_load": list(load),
        "routing_entropy": -sum(share * math.log2(share) for share in used),
        "unused_experts": sum(share == 0 for share in load),
        "expert_max_abs": [1.0 + e for e in range(len(load))] if outputs is None else outputs,
        "super_experts": list(super_experts),
    }


def with_routers(*rows, without=()):
    table = pd.DataFrame(rows).drop(columns=list(without))
    return pd.concat([layers(), table], ignore_index=True)


def position_rows(length, sites=tuple(SITES), hit_share=0.5, outlier_share=0.25, windows=SEQUENCES):
    """Return the table of positions: the maximum at position p is 10 + p, the mean 5, and 100 and 50 at position 0."""
    places = np.arange(length)
    columns = {
        "position": places,
        "windows": windows,
        "hit_share": np.where(places == 0, 2 * hit_share, hit_share),
        "outlier_share": np.where(places == 0, outlier_share / 2, outlier_share),
        "max_abs": np.where(places == 0, 100.0, 10.0 + places),
        "mean_max_abs": np.where(places == 0, 50.0, 5.0),
    }
    return pd.concat([pd.DataFrame({"site": site, **columns}) for site in sites], ignore_index=True)


def damage_rows(blocks=BLOCKS, sites=DAMAGED, formats=None):
    """Return the table of damage: a block more adds 1 dB, a site more 0.25 dB."""
    rows = [
        {"block": b, "site": site, "format": name, "predicted_sqnr_db": ratio + b + sites.index(site) / 4}
        for b in range(blocks)
        for site in sites
        for name, ratio in (formats or RATIOS).items()
    ]
    return pd.DataFrame(rows, columns=["block", "site", "format", "predicted_sqnr_db"])


def outlier_rows(**counts):
    """Return the pooled rows of the table of outliers: by definition, the sequences that each channel qualifies in."""
    rows = [
        {"definition": name, "sequence": pd.NA, "channel": channel, "sequence_count": count}
        for name, of_channel in counts.items()
        for channel, count in of_channel.items()
    ]
    return pd.DataFrame(rows, columns=["definition", "sequence", "channel", "sequence_count"])


def convergence_rows(sequences=SEQUENCES, **first):
    """Return the table of convergence: from a similarity with one window, or null, straight to 1 with all."""
    rows = [
        {"definition": name, "windows": n, "jaccard": value, "jaccard_low": value - 0.1, "jaccard_high": value + 0.1}
        for name, start in first.items()
        for n, value in enumerate(np.linspace(start, start if math.isnan(start) else 1.0, sequences), start=1)
    ]
    return pd.DataFrame(rows, columns=["definition", "windows", "jaccard", "jaccard_low", "jaccard_high"])


def model(**changes):
    """Return a dense model with everything in its tables."""
    whole = Portrait(
        label="Model",
        hidden_size=CHANNELS,
        blocks=BLOCKS,
        channels=pd.DataFrame(),
        layers=layers(),
        outliers=outlier_rows(llm_int8={7: 8, 3: 4, 9: 1}, llm_int8_rms={7: 8}),
        convergence=convergence_rows(arb8020=0.5, llm_int8=0.25, llm_int8_rms=0.75),
        positions=position_rows(64),
        damage=damage_rows(),
        sequences=SEQUENCES,
        hit_threshold=6.0,
        hub=None,
        published={},
    )
    return replace(whole, **changes)


@cache
def drawn(case, name):
    """Return a figure of a model, drawn once."""
    return draw_model(name, case())


def panel(figure, title):
    """Return the panel whose title begins with `title`."""
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(title)]
    return found


def line(axes, color, style="-"):
    """Return the places of the one line of a colour and style, without reference lines."""
    lines = [found for found in axes.lines if found.get_color() == color and found.get_linestyle() == style]
    (found,) = [each for each in lines if len(each.get_xdata()) > 2]
    return dict(zip(found.get_xdata(), found.get_ydata(), strict=True))


def said(axes):
    return " ".join(" ".join(text.get_text().split()) for text in axes.texts)


def words(figure):
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


def legend(figure):
    return [text.get_text() for of_figure in figure.legends for text in of_figure.get_texts()]


def is_within(box, frame):
    return frame.x0 <= box.x0 <= box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1 <= frame.y1
