"""The answer of an experiment: words that claim no more than the tests allow."""

import pytest
from outlier_features.experiment import answer


def test_several_tests_share_one_error() -> None:
    assert answer.holm({"a": 0.01, "b": 0.02, "c": 0.5}) == pytest.approx({"a": 0.03, "b": 0.04, "c": 0.5})
