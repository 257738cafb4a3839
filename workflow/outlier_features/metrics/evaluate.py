"""Evaluate: the statistics of one model become its tables of outlier features, channels, layers and damage."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from outlier_features.artefacts import atomic, provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.paths import TABLES
from outlier_features.artefacts.tables import write_table
from outlier_features.config.entries import Definition
from outlier_features.metrics import criteria, draws, evidence, model_answer, outlier_features
from outlier_features.metrics.convergence import convergence
from outlier_features.metrics.damage import damage
from outlier_features.metrics.layers import layers
from outlier_features.metrics.positions import positions
from outlier_features.statistics.shards import Statistics


def reduce(
    manifests: Sequence[Path], outputs: Mapping[str, Path], definitions: Mapping[str, Definition], lineage: Lineage
) -> None:
    """Evaluate every definition, its scale-free twin and every metric; no model and no GPU is needed.

    `manifests` are those of all captures that shared the windows out; how many they were moves no number. `outputs`
    says where each of TABLES goes, and `answer`, the answer for this model as JSON.
    """
    statistics = Statistics(manifests, lineage.get("statistics"))
    found = evidence.gather(statistics, criteria.criteria(definitions))
    hit_threshold = min(definition.threshold for definition in definitions.values())
    rounded = evidence.gather(statistics, criteria.rounded_criteria(definitions, statistics.facts["dtype"]))
    tables = {
        "outliers": pd.concat([outlier_features.features(each) for each in found], ignore_index=True),
        "channels": pd.concat([outlier_features.channels(each) for each in found], ignore_index=True),
        "layers": layers(statistics, hit_threshold),
        "draws": pd.concat([draws.draws(each) for each in found], ignore_index=True),
        "convergence": convergence(found),
    }
    marked = _marked_channels(tables["outliers"], definitions)
    tables["positions"] = positions(statistics, hit_threshold, marked)
    tables["damage"] = damage(statistics)
    origin = provenance.record(
        lineage,
        facts=statistics.facts,
        statistics=statistics.provenance,
        hit_threshold=hit_threshold,
        estimates={each.criterion.name: draws.estimates(each) for each in found},
        rounded_estimates={each.criterion.name: draws.estimates(each) for each in rounded},
    )
    for name in TABLES:
        write_table(outputs[name], tables[name], origin)
    answer = model_answer.answer(statistics, model_answer.preferred(found), tables["layers"], tables["damage"])
    atomic.write_json(outputs["answer"], answer | {"provenance": origin})


def _marked_channels(features: pd.DataFrame, definitions: Mapping[str, Definition]) -> set[int]:
    """Return the outlier features that the table of positions tells apart: those of the first pooled definition."""
    pooled = [name for name, definition in definitions.items() if definition.scope == "pooled"]
    return set(features.loc[features["definition"].isin(pooled[:1]), "channel"])
