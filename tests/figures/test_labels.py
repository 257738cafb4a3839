"""Labels: names cover neither each other nor a mark, and are placed the same each time."""

import itertools
import math

import pytest
from drawings import is_within, names, overlapping
from figures_of_rows import DENSE, MOE, PUBLISHED, of_experiment, published_as_measured
from outlier_features.figures.labels import Name, spread, write_names
from outlier_features.figures.page import page
from outlier_features.figures.style import MARKER_SIZE


def test_every_name_is_written_and_published_ones_are_smaller(crowded):
    for axes in crowded.axes:
        sizes = {
            label: sorted(t.get_fontsize() for t in names(axes) if t.get_text() == label) for label in PUBLISHED.model
        }
        assert len(names(axes)) == 24
        assert all(small < large for small, large in sizes.values())


@pytest.mark.parametrize("case", ["empty", "joined", "crowded"])
def test_names_cover_neither_each_other_nor_a_mark_and_stay_in_the_panel(case, request):
    figure = request.getfixturevalue(case)
    radius = MARKER_SIZE / 2 * figure.dpi / 72
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_marker() in (DENSE.marker, MOE.marker)]
        places = [axes.transData.transform(place) for line in lines for place in line.get_xydata()]
        assert overlapping(names(axes)) == []
        for text in names(axes):
            box = text.get_window_extent()
            assert is_within(box, axes.get_window_extent())
            assert not any(box.padded(radius).contains(*place) for place in places), text.get_text()


@pytest.mark.parametrize(("floor", "stays_above"), [(0.0, True), (-math.inf, False)])
def test_names_stay_above_their_floor(floor, stays_above):
    sheet = page("Title", [], [], width=6, body=4, legend_rows=0)
    axes = sheet.axes(1, 0, 4, 3)
    axes.set(xlim=(0, 1), ylim=(-100, 100))
    write_names(axes, [Name(f"name {i}", 0.5, 1.0, floor=floor) for i in range(8)], [(0.5, 1.0)])
    ground = axes.transData.transform((0, 0))[1]
    assert all(text.get_window_extent().y0 >= ground for text in names(axes)) == stays_above
    assert overlapping(names(axes)) == []


@pytest.mark.parametrize("places", [[50.0], [0.0, 0.0, 0.0], [10.0, 40.0, 41.0, 90.0], [99.0, 100.0], [5.0] * 20])
def test_spread_keeps_neighbours_apart_within_the_limits_and_moves_nothing_without_need(places):
    gap = min(10.0, 100 / max(1, len(places) - 1))
    moved = spread(places, 10.0, 0.0, 100.0)
    assert min([later - earlier for earlier, later in itertools.pairwise(moved)], default=gap) >= gap - 1e-9
    assert min(moved) >= 0
    assert max(moved) <= 100 + 1e-9
    assert spread(moved, gap, 0.0, 100.0) == pytest.approx(moved)


def test_spread_moves_a_cluster_to_both_sides():
    assert spread([10.0, 50.0, 50.0], 10.0, 0.0, 100.0) == [10.0, 45.0, 55.0]


def test_names_are_placed_the_same_each_time(joined):
    again = of_experiment("moe_vs_dense", published_as_measured(is_same_hub=True), PUBLISHED)
    placed = [
        [(t.get_text(), t.get_position()) for axes in figure.axes for t in axes.texts] for figure in (joined, again)
    ]
    assert placed[0] == placed[1]
