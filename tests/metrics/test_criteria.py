"""Criteria: a threshold that the grid lacks is refused."""

from pathlib import Path

import pytest
from outlier_features.errors import ConfigError
from outlier_features.metrics import criteria, evidence
from outlier_features.statistics.shards import Statistics
from small_models import DEFINITIONS


def test_a_threshold_off_the_grid_names_the_grid(manifests: dict[str, Path]) -> None:
    definition = DEFINITIONS["llm_int8"].model_copy(update={"threshold": 7.0})
    with pytest.raises(ConfigError, match=r"threshold 7 is not on the grid of this capture \(3, 4, 6, 8, 12, 20\)"):
        evidence.gather(Statistics([manifests["dense"]]), [criteria.Criterion("x", definition, relative=False)])
