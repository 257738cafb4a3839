"""Words of the answer for a model never round to nothing or to everything."""

from outlier_features.metrics.model_answer_words import magnitude, share


def test_words_never_round_to_nothing_or_to_everything() -> None:
    assert share(0.0004) == "under 0.1 %"
    assert share(0.99999) == "over 99.9 %"
    assert share(1.0) == "100 %"
    assert share(0.993) == "99.3 %"
    assert magnitude(84.13) == "84.1"
    assert magnitude(9824.4) == "9,824"
