"""Timings: rows come back as they were taken down, and a line says where a pass stands."""

import json

import pyarrow as pa
import pytest
from outlier_features.errors import DamagedFile, StaleFile
from outlier_features.statistics.timings import FILE, SCHEMA, Timings, path_of, progress_line, read
from rows_of_timings import GIB, row

ORIGIN = {"lineage": {"statistics": "abc"}, "device": "a device"}


def taken(*rows):
    """Return timings that took rows down."""
    timings = Timings()
    for values in rows:
        timings.record(**values)
    return timings


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
