"""Timings, from rows written by hand: what is kept of them, which words are printed, and what the figure shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text
from outlier_features.errors import DamagedFile, StaleFile
from outlier_features.figures.draw import save
from outlier_features.figures.model.timings import MOST_PARTS, draw
from outlier_features.figures.style import ACTIVITIES, INK, SHADE
from outlier_features.statistics.timings import FILE, SCHEMA, Timings, path_of, progress_line, read
from outlier_features.units import measured

PROJECT = Path(__file__).parents[2]
GIB = 2**30
ORIGIN = {"lineage": {"statistics": "abc"}, "device": "a device"}


def row(block, read=2.0, waited=0.5, computed=3.0, observed=1.0, saved=0.25, **columns):
    """Return one row of a block of 1 GiB."""
    seconds = {"read": read, "waited": waited, "computed": computed, "observed": observed, "saved": saved}
    values = {f"{name}_seconds": value for name, value in seconds.items()}
    return {"block": block, **values, "read_bytes": GIB, "started": 4.0 * block, "resumed": False} | columns


def table(*rows):
    """Return rows as the table that is read back, also where there are none."""
    return pa.Table.from_pylist(list(rows), SCHEMA).to_pandas()


def taken(*rows):
    """Return timings that took rows down."""
    timings = Timings()
    for values in rows:
        timings.record(**values)
    return timings


def words(figure):
    """Return everything that is written in a figure, line breaks as spaces."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))


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


# --- the recorder --------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_were_taken_down_with_types_and_provenance(tmp_path):
    timings = taken(row(0), row(1, read=0.125, resumed=True))
    timings.write(tmp_path / "model" / FILE, ORIGIN)
    found = read(tmp_path / "model" / FILE, "abc")
    assert found.to_dict("records") == timings.rows == [row(0), row(1, read=0.125, resumed=True)]
    assert found.attrs["provenance"] == ORIGIN
    with pa.ipc.open_file(tmp_path / "model" / FILE) as reader:
        assert reader.schema.equals(SCHEMA)


def test_a_block_is_taken_down_in_pieces_and_what_is_never_said_is_zero():
    timings = Timings()
    timings.record(block=1, read_seconds=2.0, read_bytes=7)
    timings.record(block=0)
    whole = timings.record(block=1, saved_seconds=0.5)
    assert [found["block"] for found in timings.rows] == [0, 1]
    assert timings.rows[1] == whole
    assert (whole["read_seconds"], whole["read_bytes"], whole["saved_seconds"]) == (2.0, 7, 0.5)
    assert (whole["waited_seconds"], whole["resumed"]) == (0.0, False)


def test_rows_of_an_earlier_run_go_through_json_and_count_as_resumed():
    timings = Timings(rows=json.loads(json.dumps(taken(row(0), row(1)).rows)))
    timings.record(**row(2))
    assert timings.rows == [row(0, resumed=True), row(1, resumed=True), row(2)]


def test_a_name_that_is_no_column_is_refused():
    with pytest.raises(TypeError, match="no column of timings: seconds; there are block, read_seconds"):
        Timings().record(block=0, seconds=1.0)


def test_no_rows_are_a_table_without_rows(tmp_path):
    Timings().write(tmp_path / FILE, ORIGIN)
    found = read(tmp_path / FILE)
    assert list(found.columns) == SCHEMA.names
    assert found.empty


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    path = path_of(tmp_path / "qwen3-0.6b.2-of-4.json")
    assert path == tmp_path / "qwen3-0.6b.2-of-4" / "timings.arrow"
    with pytest.raises(DamagedFile) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: missing; delete")
    assert f"delete {tmp_path / 'qwen3-0.6b.2-of-4.json'}, then run snakemake" in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"no Arrow file")
    with pytest.raises(DamagedFile, match="not a readable Arrow file"):
        read(tmp_path / FILE)


def test_timings_of_other_statistics_are_refused(tmp_path):
    Timings().write(tmp_path / FILE, ORIGIN)
    with pytest.raises(StaleFile):
        read(tmp_path / FILE, "another")


# --- the words -----------------------------------------------------------------------------------------------------

BEGUN = "block 7/48: read 1.2 s (0.52 GiB/s), waited 0.0 s, computed 3.4 s"


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (130.0, ", 2 min left"),
        (59.9, ", less than a minute left"),
        (0.0, ", less than a minute left"),
        (3.1 * 3600, ", 3.1 h left"),
        (None, ""),
    ],
)
def test_the_progress_line_says_where_the_pass_stands(left, words):
    found = row(6, read=1.2, read_bytes=int(0.52 * 1.2 * GIB), waited=0.0, computed=3.4)
    assert progress_line(found, 48, left) == BEGUN + words


def test_the_last_block_leaves_nothing_and_a_block_on_the_device_is_not_read():
    found = row(47, read=0.0, read_bytes=0, waited=0.0, computed=3.4)
    assert progress_line(found, 48, 0.0) == "block 48/48: nothing to read, waited 0.0 s, computed 3.4 s"


def test_bytes_read_in_no_time_have_no_rate():
    assert "read 0.0 s, waited" in progress_line(row(0, read=0.0), 2, 90.0)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "0.00 s"), (0.41, "0.41 s"), (4.12, "4.1 s"), (128.3, "128 s"), (744, "12.4 min"), (11232, "3.12 h")],
)
def test_measured_times_have_about_three_digits(seconds, said):
    assert measured(seconds) == said


# --- the figure ----------------------------------------------------------------------------------------------------


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
