"""Scatter in the workflow: parts are jobs of their own, and what they measure is what one job measures, to the bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from projects import copy_of, write_config
from workflows import Workflows

pytestmark = pytest.mark.slow

TABLES = ("outliers", "channels", "layers")
SUMMARY = "results/words/summary.csv"  # what is measured, without the pictures of it
GATHERED = {"reduce": 2, "perplexity": 2, "summarize": 1}


def scatter_into(parts: int) -> Any:
    """Return the change of the configuration that shares five windows out among so many parts."""
    return lambda config: config["capture"].update(scatter=parts)


def results(project: Path) -> dict[str, Any]:
    """Return every table and perplexity of both models, without their provenance."""
    found: dict[str, Any] = {}
    for model in ("dense", "moe"):
        folder = project / "results/words"
        found |= {f"{name} {model}": pd.read_parquet(folder / name / f"{model}.parquet") for name in TABLES}
        quality = json.loads((folder / f"perplexity/{model}.json").read_text())
        found[f"perplexity {model}"] = {key: value for key, value in quality.items() if key != "provenance"}
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(found[name], value, check_exact=True)
        else:
            assert found[name] == value, name


@pytest.fixture(scope="module")
def scattered(workflows: Workflows, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project, its checkpoints and windows, captured in four parts."""
    project = copy_of(finished, tmp_path_factory.mktemp("scattered"))
    write_config(project, scatter_into(4))
    assert workflows.plan(project, SUMMARY) == {"capture_part": 8} | GATHERED
    shutil.rmtree(project / "results/words/statistics")  # nothing of the one job is left to be read
    for name in (*TABLES, "perplexity"):
        shutil.rmtree(project / "results/words" / name)
    ended = workflows.snakemake(project, SUMMARY)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return project


def test_every_table_of_four_jobs_is_that_of_one(finished: Path, scattered: Path) -> None:
    manifests = {path.name for path in scattered.glob("results/words/statistics/*.json")}
    assert manifests == {f"{model}.{part}-of-4.json" for model in ("dense", "moe") for part in range(1, 5)}
    assert_same(results(scattered), results(finished))
    assert (scattered / SUMMARY).read_text() == (finished / SUMMARY).read_text()


def test_each_part_has_a_log_and_asks_for_a_device_of_its_own(workflows: Workflows, scattered: Path) -> None:
    logs = {path.name for path in scattered.glob("results/logs/capture/words/moe.*.log")}
    assert logs == {f"moe.{part}-of-4.log" for part in range(1, 5)}
    target = "results/words/statistics/moe.2-of-4.json"
    ended = workflows.snakemake(scattered, "-n", target, "--forcerun", "capture_part")
    said = ended.stdout + ended.stderr
    resources = said.split("rule capture_part:")[1].split("resources: ")[1].splitlines()[0]
    assert "gpu=1" in resources
    assert all(f"{name}=" in resources for name in ("mem_mb", "disk_mb", "runtime"))


def test_a_finished_project_plans_nothing_and_a_part_that_is_not_there_plans_itself_and_what_follows(
    workflows: Workflows, scattered: Path, tmp_path: Path
) -> None:
    assert workflows.plan(scattered, SUMMARY) == {}
    copy_of(scattered, tmp_path)
    below = [*(f"{name}/moe.parquet" for name in TABLES), "perplexity/moe.json", Path(SUMMARY).name]
    for name in ("statistics/moe.3-of-4.json", *below):  # as it is when one part has failed
        (tmp_path / "results/words" / name).unlink()
    assert workflows.plan(tmp_path, SUMMARY) == {"capture_part": 1, "reduce": 1, "perplexity": 1, "summarize": 1}


def test_the_number_of_parts_can_be_given_on_the_command_line(workflows: Workflows, finished: Path) -> None:
    assert workflows.plan(finished, SUMMARY, "--set-scatter", "capture=2") == {"capture_part": 4} | GATHERED


def test_going_back_to_one_job_captures_nothing_that_is_there(
    workflows: Workflows, finished: Path, tmp_path: Path
) -> None:
    copy_of(finished, tmp_path)
    write_config(tmp_path, scatter_into(1))
    assert workflows.plan(tmp_path, SUMMARY) == {}


def test_more_parts_than_windows_are_refused_before_anything_runs(
    workflows: Workflows, finished: Path, tmp_path: Path
) -> None:
    copy_of(finished, tmp_path)
    write_config(tmp_path, scatter_into(6))
    ended = workflows.snakemake(tmp_path, "-n", SUMMARY)
    assert ended.returncode != 0
    assert "capture.scatter: 6 jobs cannot share 5 windows out" in ended.stdout + ended.stderr
