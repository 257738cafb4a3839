"""The figure of timings: bars as high as the rows, and in words what was slower."""

import os
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from outlier_features.figures.draw import save
from outlier_features.figures.model.timings import MOST_PARTS, draw
from outlier_features.figures.style import ACTIVITIES, INK, SHADE
from outlier_features.statistics.timings import SCHEMA
from outlier_features.units import measured
from projects import PROJECT
from rows_of_timings import row, words


def table(*rows):
    """Return rows as the table that is read back, also where there are none."""
    return pa.Table.from_pylist(list(rows), SCHEMA).to_pandas()


def bars(axes):
    """Return the height of the bars of each activity, in the order of blocks."""
    colors = {look.color: name for name, look in ACTIVITIES.items()}
    return {
        colors[to_hex(group.patches[0].get_facecolor())]: [bar.get_height() for bar in group.patches]
        for group in axes.containers
    }


def shaded(axes):
    """Return from where to where a panel is shaded, in blocks."""
    spans = [patch for patch in axes.patches if to_hex(patch.get_facecolor()) == SHADE]
    return [(span.get_extents().transformed(axes.transData.inverted())) for span in spans]


def dashes(axes):
    """Return the block and the height of each dash."""
    (lines,) = (c for c in axes.findobj(LineCollection) if to_hex(c.get_color()[0]) == INK)
    return [(float(segment[:, 0].mean()), segment[0, 1]) for segment in lines.get_segments()]


def test_bars_are_as_high_as_the_rows_and_stacked_to_the_time_of_the_pass():
    times, rates = draw("A", [table(row(0, saved=0.5), row(1, waited=0.0))]).axes
    assert bars(times) == {"computed": [2, 2], "observed": [1, 1], "waited": [0.5, 0], "saved": [0.5, 0.25]}
    tops = [bar.get_y() + bar.get_height() for bar in times.containers[-1].patches]
    assert tops == [4.0, 3.25]
    assert dashes(times) == [(0.0, 2.0), (1.0, 2.0)]
    assert list(rates.lines[0].get_ydata()) == [0.5, 0.5]


@pytest.mark.parametrize(("read_seconds", "said"), [(9.0, "slower"), (1.0, "faster")])
def test_it_says_first_which_was_slower_and_how_long_each_took(read_seconds, said):
    figure = draw("A", [table(row(0, read=read_seconds), row(1, read=read_seconds))])
    assert f"Reading weights was {said} than computing: {measured(2 * read_seconds)} against 6.0 s." in words(figure)
    assert "Waiting for weights took 1.0 s, 13 % of the pass." in words(figure)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == [
        "computing, without statistics: 4.0 s (53 %)",
        "statistics: 2.0 s (27 %)",
        "waiting for weights: 1.0 s (13 %)",
        "saving: 0.50 s (7 %)",
        f"reading, in the background: {measured(2 * read_seconds)} (2 GiB, {1 / read_seconds:.2f} GiB/s)",
    ]


def test_blocks_of_an_earlier_run_are_shaded_and_explained():
    rows = [row(block, resumed=block in (0, 1, 3)) for block in range(5)]
    figure = draw("A", [table(*rows)])
    for axes in figure.axes:
        assert [(round(span.x0, 6), round(span.x1, 6)) for span in shaded(axes)] == [(-0.5, 1.5), (2.5, 3.5)]
    assert "Shaded: 3 blocks finished by an earlier run; its times are shown." in words(figure)
    assert "finished by an earlier run" in figure.legends[0].get_texts()[-1].get_text()
    assert "earlier run" not in words(draw("A", [table(row(0))]))


def test_blocks_that_were_not_read_have_neither_dash_nor_rate_and_it_is_said():
    figure = draw("A", [table(row(0), row(1, read=0.0, read_bytes=0))])
    assert [block for block, _ in dashes(figure.axes[0])] == [0.0]
    assert pd.isna(figure.axes[1].lines[0].get_ydata()).tolist() == [False, True]
    assert "Without dash: 1 block that did not have to be read." in words(figure)


def test_time_outside_the_blocks_is_said():
    figure = draw("A", [table(row(0, started=20.5), row(1, started=24.25))])
    assert "Not shown: 20 s before the first block and between blocks." in words(figure)


def test_no_block_is_said():
    figure = draw("A", [table()])
    assert "no block was timed" in words(figure)
    assert "No time was taken down." in words(figure)


def test_blocks_that_took_no_time_are_drawn():
    nothing = dict.fromkeys(("read", "waited", "computed", "observed", "saved"), 0.0)
    assert "No time was taken down." in words(draw("A", [table(row(0, **nothing, read_bytes=0))]))


@pytest.mark.parametrize("blocks", [1, 30, 100])
def test_every_block_has_its_bar_and_ticks_are_blocks(blocks):
    times, rates = draw("A", [table(*map(row, range(blocks)))]).axes
    assert all(len(heights) == blocks for heights in bars(times).values())
    assert set(rates.get_xticks()) <= set(range(blocks))
    bar = times.containers[0].patches[0].get_extents().transformed(rates.figure.dpi_scale_trans.inverted())
    assert 0.05 < bar.width < 1.1


@pytest.mark.parametrize("parts", [2, MOST_PARTS])
def test_parts_have_panels_of_one_scale(parts):
    figure = draw("A", [table(row(0, waited=float(i)), row(1)) for i in range(parts)])
    assert len(figure.axes) == 2 * parts
    assert len({axes.get_ylim() for axes in figure.axes[::2]}) == 1
    assert "part 1 of" in figure.axes[0].get_title(loc="left")
    assert f"shared out among {parts} jobs; each read all weights itself" in words(figure)


def test_more_parts_are_summed_block_by_block_and_it_is_said():
    parts = [table(row(0, resumed=i == 0), row(1)) for i in range(MOST_PARTS + 1)]
    times, rates = (figure := draw("A", parts)).axes
    assert bars(times)["waited"] == [4.5, 4.5]
    assert list(rates.lines[0].get_ydata()) == [0.5, 0.5]
    assert f"shared out among {MOST_PARTS + 1} jobs; the bars are the sums of their times" in words(figure)


def test_a_part_without_blocks_leaves_the_others_as_they_are():
    figure = draw("A", [table(row(0)), table()])
    assert "no block was timed" in words(figure)


@pytest.mark.parametrize("parts", [1, 4])
def test_words_and_legend_stay_on_the_page(parts):
    rows = [row(block, resumed=block < 9, computed=3000.0) for block in range(48)]
    figure = draw("A model with quite a long name", [table(*rows)] * parts)
    whole = figure.bbox
    for text in [*figure.texts, *figure.legends]:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= whole.x1
        assert box.y1 <= whole.y1
    assert figure.legends[0].get_window_extent().y0 > figure.texts[-1].get_window_extent().y1


def test_the_same_timings_give_the_same_bytes(tmp_path):
    for name in ("one.svg", "other.svg"):
        save(draw("A", [table(row(0), row(1, resumed=True))]), tmp_path / name, {"lineage": {"timings": "x"}})
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_timings_and_their_figure_need_no_torch():
    code = (
        "import sys, outlier_features.statistics.timings, outlier_features.figures.model.timings\n"
        "print([name for name in ('torch', 'transformers', 'snakemake') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
