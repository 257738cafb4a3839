"""Records: the lineage that a result of any kind carries is found, and none in a file that is cut."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from outlier_features.artefacts import atomic, provenance
from outlier_features.artefacts.records import recorded
from outlier_features.artefacts.tables import write_table
from outlier_features.exports import paper_tables
from outlier_features.figures import draw
from outlier_features.text.windows import write_windows
from safetensors.numpy import save_file

OWN, OTHER = "0123456789abcdef", "fedcba9876543210"
ORIGIN = provenance.record({"figure": OWN, "summary": OTHER}, statistics={"lineage": {"checkpoint": OTHER}})
ORIGIN["versions"] = {"outlier_features": "1.0"}


def write_figure(path: Path) -> None:
    figure = plt.figure()
    draw.save(figure, path, ORIGIN)
    plt.close(figure)


def write_paper(path: Path) -> None:
    table = paper_tables.PaperTable("outliers", "A caption.", ["model"], [[paper_tables.Cell("a")]], [], [])
    paper_tables.write(table, path.with_suffix(".tex"), path.with_suffix(".md"), ORIGIN)


def write_tensors(path: Path) -> None:
    save_file({"x": np.arange(9)}, path, {"provenance": provenance.encode(ORIGIN)[provenance.KEY].decode()})


WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda path: atomic.write_json(path, {"provenance": ORIGIN, "rows": ["figure"]}),
    "parquet": lambda path: write_table(path, pd.DataFrame({"figure": ["a"]}), ORIGIN),
    "arrow": lambda path: write_windows(path, [], ORIGIN),
    "png": write_figure,
    "svg": write_figure,
    "safetensors": write_tensors,
    "tex": write_paper,
    "md": write_paper,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_lineage_of_a_result_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"result.{suffix}"
    WRITERS[suffix](path)
    assert recorded(path, "figure") == OWN
    assert recorded(path, "summary") == OTHER
    assert recorded(path, "reduction") is None


@pytest.mark.parametrize("suffix", ["json", "parquet", "arrow"])
def test_a_file_that_is_cut_carries_no_lineage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"result.{suffix}"
    WRITERS[suffix](path)
    path.write_bytes(path.read_bytes()[:-3])
    assert recorded(path, "figure") is None
    path.write_bytes(b"")
    assert recorded(path, "figure") is None
    path.unlink()
    assert recorded(path, "figure") is None
