"""Windows: a file says where it comes from; one that is damaged or of something else is refused."""

# Shapes: S sequence (window), T position.

import re
from pathlib import Path

import pyarrow as pa
import pytest
from corpora import LINEAGE, windows
from outlier_features.errors import DamagedFile, SourceError, StaleFile
from outlier_features.text.windows import SCHEMA, read_windows


def test_the_file_says_where_the_windows_come_from(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    origin = windows(checkpoint, tmp_path / "out.arrow", path=str(text), sequences=2, length=8).provenance
    assert origin["lineage"] == LINEAGE
    assert origin["model"] == checkpoint.name
    assert origin["text"] == {"path": str(text), "sequences": 2, "length": 8}


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"no Arrow file at all"])
def test_a_file_of_windows_that_is_no_arrow_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.arrow"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=f"{re.escape(str(path))}: .*delete it, then run snakemake"):
        read_windows(path)


def test_a_cut_file_of_windows_is_refused(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.arrow"
    windows(checkpoint, path, path=str(text), sequences=4, length=8)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedFile, match=re.escape(str(path))):
        read_windows(path)


def test_a_missing_file_of_windows_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"none\.arrow: missing; run snakemake"):
        read_windows(tmp_path / "none.arrow")


def test_windows_of_another_lineage_are_refused(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.arrow"
    windows(checkpoint, path, path=str(text), sequences=1, length=8)
    with pytest.raises(StaleFile, match=rf"{re.escape(str(path))}: .*{LINEAGE['tokens']}.*another.*run snakemake"):
        read_windows(path, "another")


def test_windows_without_provenance_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.arrow"
    row = {"window": 0, "token_ids": [1, 2], "token_bytes": [1, 1], "scored_from": 1}
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist([row], schema=SCHEMA))
    with pytest.raises(StaleFile, match=re.escape(str(path))):
        read_windows(path, LINEAGE["tokens"])


def test_after_an_error_the_older_file_is_as_it_was_and_no_other_is_there(
    checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tokens/model.arrow"
    windows(checkpoint, output, path=str(text), sequences=2, length=8)
    before = output.read_bytes()
    with pytest.raises(SourceError):
        windows(checkpoint, output, path=str(text), sequences=10_000, length=8)
    assert output.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]
