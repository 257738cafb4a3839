"""Figures from rows of a summary, or of a table of channels, written by hand."""

import math

import pandas as pd
from outlier_features.figures.draw import draw_experiment, draw_model
from outlier_features.figures.style import KINDS
from outlier_features.figures.tables import Portrait, Sweep
from projects import PROJECT

PUBLISHED = pd.read_csv(PROJECT / "resources" / "published" / "arb8020_2025.csv")
NOTHING_PUBLISHED = PUBLISHED.head(0)
DENSE, MOE = KINDS["dense"], KINDS["moe"]


def of_experiment(name, summary, published):
    """Return a figure of an experiment beside what was published in 2025."""
    return draw_experiment(name, Sweep(summary, pd.DataFrame(), {"arb8020_2025": published}))


def of_model(name, channels, layers, hidden_size, blocks):
    """Return a figure of a model from its tables of channels and layers."""
    none = pd.DataFrame()
    tables = {"channels": channels, "layers": layers, "outliers": none, "convergence": none, "positions": none}
    tables["damage"] = none
    facts = {"sequences": 16, "hit_threshold": 6.0, "hub": None, "published": {}}
    return draw_model(name, Portrait("Model", hidden_size, blocks, **tables, **facts))


def row(label, kind="dense", total=1e9, active=None, layer=30.0, position=60.0, **columns):
    """Return one row of a summary; shares come with an interval of -2 to +3 percent."""
    values = {
        "model": label.lower(),
        "label": label,
        "kind": kind,
        "hub": None,
        "series": None,
        "step": None,
        "total_params": int(total),
        "active_params": int(active or total),
        "definition": "arb8020",
        "threshold": 6.0,
        "sequences": 16,
        "outlier_count": 12.0,
        "mean_layer_pct": layer,
        "mean_layer_pct_low": layer - 2,
        "mean_layer_pct_high": layer + 3,
        "mean_position_pct": position,
        "mean_position_pct_low": position - 2,
        "mean_position_pct_high": position + 3,
        "note": None,
    }
    return values | columns


def empty_row(label, **columns):
    """Return a row of a model without any outlier feature."""
    return row(label, layer=math.nan, position=math.nan, outlier_count=0.0, **columns)


def published_as_measured(*, is_same_hub):
    """Return a summary that measures all published models, a little beside the published values."""
    return pd.DataFrame(
        row(
            model.model,
            model.kind,
            1.02e9 * model.total_params_b,
            1.03e9 * model.active_params_b,
            model.mean_layer_pct + 2,
            model.mean_seq_pct - 2,
            hub=model.hub if is_same_hub else None,
        )
        for model in PUBLISHED.itertuples()
    )


def values(axes, style):
    """Return {step: value} of each line of a style, without the blank ones."""
    lines = [line for line in axes.lines if line.get_linestyle() == style]
    return [{x: y for x, y in zip(*line.get_data(), strict=True) if not math.isnan(y)} for line in lines]


def hit(channel, block=0, site="attn_in", max_abs=10.0, is_outlier=False, definition="llm_int8"):
    return {
        "definition": definition,
        "block": block,
        "site": site,
        "channel": channel,
        "hit_count": 5,
        "max_abs": max_abs,
        "max_value": -max_abs,
        "is_outlier": is_outlier,
    }


def channel_map(hits, layers=(), hidden_size=64, blocks=4):
    channels = pd.DataFrame(hits, columns=list(hit(0)))
    table = pd.DataFrame(layers, columns=["block", "site", "token_class", "max_abs", "rms"])
    return of_model("channel_map", channels, table, hidden_size, blocks)
