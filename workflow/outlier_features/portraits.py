"""Portraits: the tables of one model, read for its figures."""

from collections.abc import Mapping
from pathlib import Path

from outlier_features.figure_tables import Portrait
from outlier_features.lineage import Lineage
from outlier_features.tables import read_table


def read_portrait(label: str, paths: Mapping[str, Path], lineage: Lineage) -> Portrait:
    """Read the tables of the model called `label`: `paths` has each of `catalogue.MODEL_TABLES`."""
    found = {name: read_table(Path(path), "reduction", lineage["reduction"]) for name, path in paths.items()}
    _, origin = found["layers"]
    facts = origin["facts"]
    return Portrait(
        label=label,
        hidden_size=facts["channels"],
        blocks=facts["blocks"],
        sequences=len(facts["windows"]),
        hit_threshold=origin["hit_threshold"],
        **{name: table for name, (table, _) in found.items()},
    )
