"""A made-up summary of the twelve models of 2025, with a phase shift planted in it or without one.

Names, kinds and sizes are those of the published table; every measured value is made up, the same on each call.
"""

from pathlib import Path

import numpy as np
import pandas as pd

PUBLISHED = pd.read_csv(Path(__file__).parents[2] / "resources" / "published" / "arb8020_2025.csv")
DEFINITIONS = ("arb8020", "arb8020_rms", "llm_int8", "llm_int8_rms")

SHIFT_AXIS = "active_params"
SHIFT_POSITION, SHIFT_DECADES = 4.5e9, 0.15
"""Where on that axis the planted shift is, and over how many decades it goes from a tenth to nine tenths."""
LOWER, UPPER = 30.0, 80.0
"""Percent of layers before and after it."""
FLAT = 40.0
"""Percent of layers of all models where none is planted."""
NOISE = 2.0
"""Standard deviation, in points, of what the shares of models differ by for no reason."""

SEQUENCES, LENGTH = 16, 2048
LETTERS = {"dense": 4.4, "moe": 4.6}
"""Bytes of a token."""
ARCHITECTURES = {"dense": "Qwen3ForCausalLM", "moe": "Qwen3MoeForCausalLM"}


def twelve(shift: bool) -> pd.DataFrame:
    """Return a summary of twelve models, seven of them mixtures, with a row per definition and all its columns.

    With `shift`, layers and positions affected, the largest magnitude and the number of features all rise along
    SHIFT_AXIS as logistic functions of its logarithm; without, nothing depends on anything but perplexity on size.
    """
    rng = np.random.default_rng(2025)
    rows = [
        row
        for model in PUBLISHED.itertuples()
        for row in _rows(model, rng, _rise(1e9 * model.active_params_b) if shift else None)
    ]
    counts = ["step", "total_params", "active_params", "experts", "top_k", "blocks", "hidden_size", "sequences"]
    counts += ["outlier_count", "distinct_channels", "stable_channels", "one_sided_count", "massive_count"]
    return pd.DataFrame(rows).astype(dict.fromkeys(counts, "Int64"))


def _rise(size: float) -> float:
    """Return how much of the shift is behind a model, 0 to 1."""
    width = SHIFT_DECADES / (2 * np.log(9))
    return float(1 / (1 + np.exp(-(np.log10(size) - np.log10(SHIFT_POSITION)) / width)))


def _rows(model, rng: np.random.Generator, rise: float | None) -> list[dict]:
    total, active = 1e9 * model.total_params_b, 1e9 * model.active_params_b
    is_moe = model.kind == "moe"
    level = FLAT if rise is None else LOWER + (UPPER - LOWER) * rise
    layer = level + rng.normal(0, NOISE)
    position = 0.8 * level + 12 + rng.normal(0, NOISE)
    features = round(4 + 6 * (rise or 0) + abs(rng.normal(0, 1.5)))
    magnitude = 14 * 3 ** (rise or 0) * np.exp(rng.normal(0, 0.1))
    bits = 1.15 * (np.sqrt(total * active) / 1e9) ** -0.09 + rng.normal(0, 0.01)
    common = {
        "model": model.model.lower(),
        "label": model.model,
        "source": "hub",
        "hub": model.hub,
        "series": None,
        "step": pd.NA,
        "kind": model.kind,
        "total_params": int(total),
        "active_params": int(active),
        "active_params_without_embedding": int(0.95 * active),
        "active_params_without_embedding_and_head": int(0.9 * active),
        "experts": 64 if is_moe else pd.NA,
        "top_k": 8 if is_moe else pd.NA,
        "sparsity": active / total,
        "blocks": 32,
        "dtype": "bfloat16",
        "architecture": ARCHITECTURES[model.kind],
        "hidden_size": 2048,
        "sequences": SEQUENCES,
        "length": LENGTH,
    }
    perplexity = 2 ** (bits * LETTERS[model.kind])
    after = {
        "windows": "packed",
        "windows_digest": model.hub.split("/")[0],  # the models of one publisher share a tokenizer
        "loss": float(np.log(perplexity)),
        **_interval("perplexity", perplexity, 0.05 * perplexity),
        **_interval("bits_per_byte", bits, 0.03 * bits),
        "kurtosis_max": 100.0 + 400 * (rise or 0),
        "massive_count": 64,
        "massive_max_abs": 900.0,
        "lineage": "made up",
    }
    return [common | _estimates(definition, layer, position, features, magnitude) | after for definition in DEFINITIONS]


def _estimates(definition: str, layer: float, position: float, features: int, magnitude: float) -> dict:
    """Return what one definition says; the scale-free twins find half as many features again, in fewer layers."""
    if definition.endswith("_rms"):
        layer, features = 0.8 * layer, features + features // 2
    count = features * (SEQUENCES - 2) if definition.startswith("arb8020") else features
    return {
        "definition": definition,
        "threshold": 6.0,
        **_interval("outlier_count", count, 0.1 * count),
        **_interval("distinct_channels", features, 1.0),
        **_interval("stable_channels", features - 1, 1.0),
        **_interval("mean_layer_pct", layer, 3.0),
        **_interval("median_layer_pct", layer - 2, 4.0),
        **_interval("mean_position_pct", position, 2.0),
        **_interval("median_position_pct", position + 3, 3.0),
        "outlier_count_by_mean_positions": count // 2,
        "one_sided_count": features - 1,
        "largest_quartile_1": 0.7 * magnitude,
        "largest_quartile_2": magnitude,
        "largest_quartile_3": 1.3 * magnitude,
        "note": None,
    }


def _interval(name: str, value: float, half: float) -> dict[str, float]:
    """Return a value with the ends of an interval around it, inside 0 to 100 where it is a percentage."""
    ends = {f"{name}_low": max(0.0, value - half), f"{name}_high": value + half}
    if name.endswith("_pct"):
        ends[f"{name}_high"] = min(100.0, value + half)
    return {name: value} | ends
