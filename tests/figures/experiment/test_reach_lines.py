"""Lines over the models in the order of their size, with gaps where a model has no outlier feature."""

import numpy as np
from drawings import marks
from figures_of_twelve import DENSE, MOE, drawn, of_twelve, rows, without_features
from outlier_features.figures.axes import SHELF, parameters
from outlier_features.figures.style import SHARES
from sweep_of_twelve import PUBLISHED


def test_lines_go_through_the_models_of_one_kind_in_the_order_of_their_size():
    for axes, size in zip(of_twelve("reach_lines").axes, ("active_params", "total_params"), strict=True):
        own = rows("arb8020").sort_values(size)
        called = [tick.get_text() for tick in axes.get_yticklabels()]
        assert called == [f"{label}  ({parameters(count)})" for label, count in own[["label", size]].to_numpy()]
        for share, column in (("layers", "mean_layer_pct"), ("positions", "mean_position_pct")):
            lines = [line for line in axes.lines if line.get_color() == SHARES[share].color]
            found = [line for line in lines if line.get_linestyle() == SHARES[share].style and line.get_alpha() is None]
            expected = [list(own[own["kind"] == kind][column]) for kind in ("dense", "moe")]
            assert [list(line.get_xdata()) for line in found] == expected
            numbers = dict(zip(own["label"], range(12), strict=True))
            expected = [[numbers[label] for label in own[own["kind"] == kind]["label"]] for kind in ("dense", "moe")]
            assert [list(line.get_ydata()) for line in found] == expected
        published = PUBLISHED.set_index("model")["mean_layer_pct"]
        is_moe = [row for row, kind in enumerate(own["kind"]) if kind == "moe"]
        hollow = marks(axes, MOE.marker, filled=False)
        assert {(published[own["label"].iloc[row]], row) for row in is_moe} <= set(hollow)
        assert axes.get_xlim() == (0, 100)
        assert axes.yaxis_inverted()


def test_models_without_outlier_feature_interrupt_the_lines_and_stand_aside():
    for axes in drawn("reach_lines", without_features()).axes:
        low, high = axes.get_xlim()
        assert low == -high * SHELF
        assert {x for x, _ in marks(axes, DENSE.marker, filled=True) if not np.isnan(x)} == {low / 2}
        assert "no\noutlier\nfeature" in [tick.get_text() for tick in axes.get_xticklabels()]
