"""Arrow files: rows come back as they were written, with their provenance, or not at all."""

from pathlib import Path

import pyarrow as pa
import pytest
from outlier_features.artefacts import arrow, provenance
from outlier_features.errors import DamagedFile, StaleFile

SCHEMA = pa.schema([("block", pa.int32()), ("values", pa.list_(pa.float32()))])
ROWS = [{"block": 0, "values": [1.5, -2.0]}, {"block": 1}]
ORIGIN = provenance.record({"statistics": "abc"}, dtype="float32")


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_rows_come_back_with_their_provenance_and_what_a_row_lacks_is_null(compression, tmp_path: Path) -> None:
    arrow.write(tmp_path / "x.arrow", SCHEMA, ROWS, ORIGIN, compression=compression)
    table, origin = arrow.read(tmp_path / "x.arrow", "statistics", "abc")
    assert table.to_pylist() == [{"block": 0, "values": [1.5, -2.0]}, {"block": 1, "values": None}]
    assert table.schema.types == SCHEMA.types
    assert origin == ORIGIN
    assert [path.name for path in tmp_path.iterdir()] == ["x.arrow"]


def test_rows_that_do_not_fit_leave_the_older_file(tmp_path: Path) -> None:
    arrow.write(tmp_path / "x.arrow", SCHEMA, ROWS, ORIGIN)
    before = (tmp_path / "x.arrow").read_bytes()
    with pytest.raises(pa.ArrowException):
        arrow.write(tmp_path / "x.arrow", SCHEMA, [{"block": "none"}], ORIGIN)
    assert (tmp_path / "x.arrow").read_bytes() == before


def test_what_was_made_of_something_else_is_refused(tmp_path: Path) -> None:
    arrow.write(tmp_path / "x.arrow", SCHEMA, ROWS, ORIGIN)
    with pytest.raises(StaleFile, match=r"x\.arrow: made from other .*\(lineage abc\).*\(def\); make tea\."):
        arrow.read(tmp_path / "x.arrow", "statistics", "def", "make tea")


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"no Arrow file at all"])
def test_a_damaged_or_missing_file_is_named_with_what_to_do(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"x\.arrow: missing; make tea\."):
        arrow.read(tmp_path / "x.arrow", remedy="make tea")
    (tmp_path / "x.arrow").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"x\.arrow: not a readable Arrow file; make tea\."):
        arrow.read(tmp_path / "x.arrow", remedy="make tea")
