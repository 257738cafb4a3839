"""Portraits: the tables of one model, read for its figures."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.tables import read_table
from outlier_features.figures.catalogue import MODEL_TABLES
from outlier_features.figures.tables import Portrait, read_published


def read_portrait(label: str, paths: Mapping[str, Path], published: Iterable[Path], lineage: Lineage) -> Portrait:
    """Read the tables of the model called `label`, `paths` has each of MODEL_TABLES, and the published ones."""
    found = {name: read_table(Path(paths[name]), "reduction", lineage["reduction"]) for name in MODEL_TABLES}
    _, origin = found["layers"]
    facts = origin["facts"]
    return Portrait(
        label=label,
        hidden_size=facts["channels"],
        blocks=facts["blocks"],
        sequences=len(facts["windows"]),
        hit_threshold=origin["hit_threshold"],
        hub=origin["statistics"]["source"].get("hub"),
        published=read_published(published),
        **{name: table for name, (table, _) in found.items()},
    )
