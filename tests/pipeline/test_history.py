"""History: a finished summary is kept once, by its lineage, and found as `last`, by its name, or by its path."""

import os
from pathlib import Path

import pandas as pd
import pytest
from outlier_features.artefacts import paths
from outlier_features.artefacts.tables import write_table
from outlier_features.errors import ConfigError
from outlier_features.pipeline import history


@pytest.fixture
def summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Summaries of two lineages, kept one after the other; the later is the present one."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for age, (name, lineage) in enumerate((("new", "b" * 16), ("old", "a" * 16))):
        found[name] = tmp_path / f"{name}.parquet"
        write_table(found[name], pd.DataFrame({"model": [name]}), {"lineage": {"summary": lineage}})
        kept = history.keep(found[name], "demo")
        os.utime(kept, (1_000 - age, 1_000 - age))
    return found


def test_a_summary_is_kept_once_under_its_lineage(summaries: dict[str, Path]) -> None:
    again = history.keep(summaries["old"], "demo")
    assert again == paths.history() / f"demo.{'a' * 16}.parquet"
    assert again.read_bytes() == summaries["old"].read_bytes()
    assert len(list(paths.history().iterdir())) == 2
    assert again.stat().st_mtime > 1_000  # the newest again


def test_the_last_is_the_newest_of_the_experiment_that_is_not_the_present_one(summaries: dict[str, Path]) -> None:
    assert history.find("last", summaries["new"], "demo").name == f"demo.{'a' * 16}.parquet"
    assert history.find("last", summaries["old"], "demo").name == f"demo.{'b' * 16}.parquet"
    with pytest.raises(ConfigError, match=r"no earlier summary of other is kept in .*; kept runs: demo\.b+, demo\.a+"):
        history.find("last", summaries["new"], "other")


def test_a_run_is_named_by_the_start_of_its_name_by_a_file_or_by_a_folder(
    summaries: dict[str, Path], tmp_path: Path
) -> None:
    present = summaries["new"]
    assert history.find("demo.aaa", present, "demo").name == f"demo.{'a' * 16}.parquet"
    assert history.find(str(summaries["old"]), present, "demo") == summaries["old"]
    (tmp_path / "run/demo").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"run holds no summary\.parquet"):
        history.find("run", present, "demo")
    (tmp_path / "run/demo/summary.parquet").touch()
    assert history.find("run", present, "demo") == Path("run/demo/summary.parquet")
    with pytest.raises(ConfigError, match=r"no file, folder or kept run 'nothing'"):
        history.find("nothing", present, "demo")
