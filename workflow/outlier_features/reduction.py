"""Reduction: from the statistics of one model to its tables of outlier features, channels and layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from outlier_features import metrics, outliers, provenance
from outlier_features.config import Definition
from outlier_features.lineage import Lineage
from outlier_features.shards import Statistics
from outlier_features.tables import write_table


def reduce(
    manifests: Sequence[Path],
    outliers_output: Path,
    channels_output: Path,
    layers_output: Path,
    definitions: Mapping[str, Definition],
    lineage: Lineage,
) -> None:
    """Evaluate every definition, its scale-free twin and every metric; no model and no GPU is needed.

    `manifests` are those of all captures that shared the windows out; how many they were moves no number.
    """
    statistics = Statistics(manifests, lineage.get("statistics"))
    found = outliers.gather(statistics, outliers.criteria(definitions))
    origin = provenance.record(
        lineage,
        facts=statistics.facts,
        statistics=statistics.provenance,
        estimates={each.criterion.name: outliers.estimates(each) for each in found},
    )
    hit_threshold = min(definition.threshold for definition in definitions.values())
    write_table(outliers_output, pd.concat([outliers.features(each) for each in found], ignore_index=True), origin)
    write_table(channels_output, pd.concat([outliers.channels(each) for each in found], ignore_index=True), origin)
    write_table(layers_output, metrics.layers(statistics, hit_threshold), origin)
