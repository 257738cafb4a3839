"""Runs: a summary is read back as it was written, and what is none is one line."""

import pandas as pd
import pytest
from outlier_features.artefacts.tables import write_table
from outlier_features.comparison.compare import Verdict, compare
from outlier_features.comparison.recorded_run import Run
from outlier_features.errors import ConfigError
from recorded_runs import ORIGIN, row, run, verdict


def test_blank_integers_of_a_parquet_file_are_not_known():
    table = pd.DataFrame([row()]).astype({"outlier_count": "Int64"})
    table.loc[0, "outlier_count"] = pd.NA
    assert verdict(compare(Run(table, ORIGIN), run(row())), "outlier_count") == Verdict.NO_VALUE


def test_a_model_twice_under_one_definition_is_refused():
    with pytest.raises(ConfigError, match="the other run: two rows of a under arb8020"):
        compare(run(row()), run(row(), row()))


def test_a_run_is_read_back_with_its_provenance(tmp_path):
    path = tmp_path / "summary.parquet"
    write_table(path, pd.DataFrame([row()]), ORIGIN)
    found = Run.read(path)
    assert found.origin == ORIGIN
    assert set(compare(found, run(row())).rows["verdict"]) == {Verdict.SAME}


def test_a_file_that_is_no_summary_is_one_line(tmp_path):
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "summary.csv").write_text("model,label,kind,definition\n")
    write_table(tmp_path / "channels.parquet", pd.DataFrame([{"definition": "arb8020", "channel": 3}]), ORIGIN)
    reasons = {
        "missing.parquet": "no such file",
        ".": "a directory",
        "empty.parquet": "not a readable parquet file",
        "summary.csv": "not a readable parquet file",
        "channels.parquet": "no summary, for it has no column model, label, kind",
    }
    for name, reason in reasons.items():
        with pytest.raises(ConfigError, match=rf"{reason}; give the summary\.parquet of a run\.$") as refused:
            Run.read(tmp_path / name)
        assert "\n" not in str(refused.value)
