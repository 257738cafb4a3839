"""Bootstrap: every draw has as many sequences as the sample."""

# Shapes: S sequence, T position.

from outlier_features.metrics.bootstrap import resampling_counts


def test_every_draw_has_as_many_sequences_as_the_sample() -> None:
    counts = resampling_counts(7, draws=50)
    assert counts.shape == (50, 7)
    assert counts.sum(1).tolist() == [7] * 50
    assert counts.min() == 0
    assert (counts != resampling_counts(7, draws=50, seed=1)).any()
