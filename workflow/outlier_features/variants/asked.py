"""Asked: what the configuration asks of a model's variants, with what a capture of it found."""

# Shapes: C channel.

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from outlier_features.artefacts import paths
from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.tables import read_table
from outlier_features.config import entries
from outlier_features.config.config import Config
from outlier_features.config.variants import Intervention, Largest
from outlier_features.statistics.shards import Statistics
from outlier_features.variants.runs import Found
from outlier_features.variants.vary import Asked, Model

SITES = ("attn_in", "mlp_in")
"""Where the largest channels are looked for: the inputs in residual coordinates."""


def asked_of(config: Config, model: str, corpus: str, lineage: Lineage) -> Asked:
    """Return what a pass of a model is to compare; what its capture found is read where an intervention names it."""
    interventions = config.interventions_of(model)
    found = Found()
    if config.needs_capture(model):
        manifests = paths.manifests(corpus, model, config.capture.scatter)
        found = _found(interventions, paths.of("reduction", corpus, model), manifests, lineage)
    return Asked(config.variants_of(model), interventions, config.vary, found)


def model_of(config: Config, entry: entries.Model) -> Model:
    """Return how a model runs."""
    return Model(getattr(torch, entry.dtype), entry.experts_implementation, memory_budget=config.capture.memory_bytes)


def _found(
    interventions: Mapping[str, Intervention], tables: Mapping[str, Path], manifests: Sequence[Path], lineage: Lineage
) -> Found:
    names, expected = ("outliers", "layers"), lineage.get("reduction")
    outliers, layers = (read_table(tables[name], "reduction", expected)[0] for name in names)
    sets = {}
    for name, entry in interventions.items():
        if isinstance(entry.channels, str):
            own = outliers[outliers["definition"] == entry.channels]
            sets[name] = tuple(sorted({int(channel) for channel in own["channel"]}))
        elif isinstance(entry.channels, Largest):
            largest_C = _largest(Statistics(manifests, lineage.get("statistics")))
            order = np.argsort(-largest_C, kind="stable")
            sets[name] = tuple(sorted(int(channel) for channel in order[: entry.channels.largest]))
    routers = layers[(layers["site"] == "router") & (layers["token_class"] == "all")]
    experts = {
        int(row["block"]): tuple(int(expert) for expert in row["super_experts"])
        for _, row in routers.iterrows()
        if row["super_experts"] is not None and len(row["super_experts"])
    }
    return Found(sets, experts)


def _largest(statistics: Statistics) -> np.ndarray:
    """Return the largest |x| of each channel (C,) over SITES of all blocks."""
    tables = [statistics.block(block) for block in range(statistics.blocks)]
    return np.max(
        [table.site(site).max_abs.max(0) for table in tables for site in SITES if site in table.sites], axis=0
    )
