"""Suggestions: the nearest of the known names, or none where none is near."""

import pytest
from outlier_features.config.suggestions import nearest


@pytest.mark.parametrize(
    ("name", "said"),
    [("tresholds", " (did you mean 'thresholds'?)"), ("site", " (did you mean 'sites'?)"), ("zzz", ""), ("", "")],
)
def test_a_name_that_is_near_is_offered_and_another_is_not(name: str, said: str) -> None:
    assert nearest(name, iter(("thresholds", "rms_thresholds", "sites"))) == said
