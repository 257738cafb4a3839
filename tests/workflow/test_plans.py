"""What Snakemake plans after a change: just what is stale, and nothing for file times.

One small project is run to the end once; each test changes a copy of it.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from outlier_features import catalogue
from outlier_features.records import recorded
from projects import PARTS, model, words_project, write_config

pytestmark = pytest.mark.slow


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "1", "--resources", "gpu=1"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TERM": "dumb"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def plan(project: Path, *targets: str) -> dict[str, int]:
    """Return how many jobs of each rule are planned."""
    output = snakemake(project, "-n", *targets)
    assert output.returncode == 0, output.stderr
    text = output.stdout + output.stderr
    if "Nothing to be done" in text:
        return {}
    table = text.split("Job stats:")[1].split("total")[0].splitlines()[3:]
    return {rule: int(count) for rule, count in (line.split() for line in table if line.strip()) if rule != "all"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose demo of two models has run to the end."""
    project = words_project(tmp_path_factory.mktemp("finished"))
    output = snakemake(project)
    assert output.returncode == 0, output.stdout + output.stderr
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project with its file times."""
    shutil.copytree(finished, tmp_path / "project", dirs_exist_ok=True, copy_function=shutil.copy2)
    return tmp_path / "project"


FIGURES = len(catalogue.names("experiment"))
AGGREGATES = {"summarize": 1, "infer": 1, "reproduce": 1, "plot": FIGURES, "export_summary": 1, "index": 1}
PLOTS = ("plot_model", "plot_timings")
"""The figures of each model; the second needs its statistics only."""
LAST = (*PLOTS, "export")
"""All that is made of each model in the end."""


def test_a_finished_project_plans_nothing(project: Path) -> None:
    assert plan(project) == {}


def test_a_new_model_plans_its_own_jobs_and_the_aggregates(project: Path) -> None:
    def add(config: dict) -> None:
        config["models"]["third"] = model(2)
        config["experiments"]["demo"]["models"].append("third")

    write_config(project, add)
    own = dict.fromkeys(("train", "tokenize", "capture", "reduce", "perplexity", *LAST), 1)
    assert plan(project) == own | AGGREGATES


def test_another_threshold_of_the_grid_plans_no_capture(project: Path) -> None:
    write_config(project, lambda config: config["definitions"]["llm_int8"].update(threshold=5.0))
    assert plan(project) == {"reduce": 2, "plot_model": 2, "export": 2} | AGGREGATES


def test_another_seed_of_one_model_plans_that_model_to_the_end(project: Path) -> None:
    write_config(project, lambda config: config["models"]["moe"]["train"].update(seed=9))
    own = dict.fromkeys(("train", "tokenize", "capture", "reduce", "perplexity", *LAST), 1)
    assert plan(project) == own | AGGREGATES


def test_another_label_plans_no_computation(project: Path) -> None:
    write_config(project, lambda config: config["models"]["moe"].update(label="A mixture"))
    assert plan(project) == dict.fromkeys(LAST, 1) | AGGREGATES


def test_an_edit_of_the_figures_plans_only_plots(project: Path) -> None:
    path = project / "workflow/outlier_features/figures.py"
    path.write_text(path.read_text() + "\nCOLOUR = 'purple'\n")
    assert plan(project) == {"plot": FIGURES, "index": 1} | dict.fromkeys(PLOTS, 2)


def test_an_edit_of_the_style_of_the_page_plans_that_page_only(project: Path) -> None:
    path = project / "workflow/report/index/page.css"
    path.write_text(path.read_text() + "p { color: red }")
    assert plan(project) == {"index": 1}


def test_other_words_about_a_result_plan_the_page_only(project: Path) -> None:
    path = project / "workflow/outlier_features/contents.py"
    path.write_text(path.read_text().replace("The summary beside", "What was measured beside"))
    assert plan(project) == {"index": 1}  # which carries words of that module


def test_the_report_of_an_unfinished_run_is_refused_by_name(project: Path) -> None:
    (project / "results/plots/channel_map/moe.png").unlink()
    output = snakemake(project, "--report", "results/report.html")
    assert output.returncode != 0
    assert "results/plots/channel_map/moe.png marked for report but does not exist" in output.stdout + output.stderr


def test_every_caption_of_the_report_is_rendered(project: Path) -> None:
    output = snakemake(project, "--report", "results/report.html")
    assert output.returncode == 0
    assert "ERROR/" not in output.stdout + output.stderr
    report = (project / "results/report.html").read_text(encoding="utf-8")
    assert "system-message" not in report
    assert "results/plots/experts/moe/experts.png" in report
    assert "results/plots/experts/dense" not in report


def test_an_edit_of_the_engine_plans_captures_and_what_follows(project: Path) -> None:
    path = project / "workflow/outlier_features/engine.py"
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    assert plan(project) == dict.fromkeys(("capture", "reduce", "perplexity", *LAST), 2) | AGGREGATES


def test_a_comment_in_the_engine_plans_nothing(project: Path) -> None:
    path = project / "workflow/outlier_features/engine.py"
    path.write_text("# a remark\n" + path.read_text().replace('"""Layer-major', '"""Truly layer-major'))
    assert plan(project) == {}


def test_touched_scripts_and_modules_plan_nothing(project: Path) -> None:
    for path in [*project.glob("workflow/**/*.py"), *project.glob("workflow/rules/*.smk"), project / "Snakefile"]:
        path.touch()
    assert plan(project) == {}


def test_a_fresh_clone_with_copied_results_plans_nothing(finished: Path, tmp_path: Path) -> None:
    for part in (*PARTS, "text", "config.yaml", "results", ".snakemake"):  # every file gets a new time, in this order
        source, target = finished / part, tmp_path / part
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copy)
        else:
            shutil.copy(source, target)
        time.sleep(0.05)
    assert plan(tmp_path) == {}


def test_a_capture_that_failed_is_planned_again_for_a_plot(project: Path) -> None:
    plot = "results/plots/moe_vs_dense.png"
    write_config(project, lambda config: config["capture"]["thresholds"].append(2048))
    engine = project / "workflow/outlier_features/engine.py"
    intact = engine.read_text()
    engine.write_text(intact + "\nraise RuntimeError('the device is gone')\n")
    failed = snakemake(project, plot)
    assert failed.returncode != 0
    assert "the device is gone" in failed.stdout + failed.stderr
    engine.write_text(intact)
    assert (project / plot).exists()
    assert plan(project, plot)["capture"] == 2
    assert snakemake(project, plot).returncode == 0
    assert plan(project, plot) == {}


def test_a_new_text_plans_every_window(project: Path) -> None:
    write_config(project, lambda config: config["corpora"]["words"].update(sequences=4))
    jobs = ("tokenize", "capture", "reduce", "perplexity", *LAST)
    assert plan(project) == dict.fromkeys(jobs, 2) | AGGREGATES


def test_an_edited_text_plans_its_windows_and_what_follows(project: Path) -> None:
    text = project / "text/a.txt"
    text.write_text(text.read_text().replace("outlier", "another"))
    jobs = ("tokenize", "capture", "reduce", "perplexity", *LAST)
    assert plan(project) == dict.fromkeys(jobs, 2) | AGGREGATES


def test_an_edited_text_of_the_same_size_and_time_is_found(project: Path) -> None:
    text = project / "text/b.txt"  # which both models were trained on
    times = text.stat()
    text.write_text(text.read_text().swapcase())
    os.utime(text, ns=(times.st_atime_ns, times.st_mtime_ns))
    jobs = ("train", "tokenize", "capture", "reduce", "perplexity", *LAST)
    assert plan(project) == dict.fromkeys(jobs, 2) | AGGREGATES


def test_an_edited_published_table_plans_what_shows_it(project: Path) -> None:
    table = project / "resources/published/massive_activations.csv"
    table.write_text(table.read_text() + "\n")
    assert plan(project) == {"plot": FIGURES, "plot_model": 2, "index": 1}


def copied(finished: Path, target: Path) -> Path:
    """Copy a project and its results as a clone does, results first and with new times, and without .snakemake."""
    paths = sorted((path for path in (finished / "results").rglob("*") if path.is_file()), reverse=True)
    for path in paths:  # checkpoints, which everything is made from, come last
        if not {"logs", ".digests"} & set(path.parts):
            (target / path.relative_to(finished)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.relative_to(finished))
    for part in (*PARTS, "text"):
        source = finished / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / part)
    write_config(target)
    return target


def test_results_without_the_records_of_snakemake_plan_nothing_whatever_their_times(
    finished: Path, tmp_path: Path
) -> None:
    assert plan(copied(finished, tmp_path)) == {}
    assert plan(tmp_path, "results/plots/moe_vs_dense.png") == {}


def test_results_without_the_records_of_snakemake_are_planned_as_with_them(finished: Path, tmp_path: Path) -> None:
    copied(finished, tmp_path)
    write_config(tmp_path, lambda config: config["models"]["moe"]["train"].update(seed=9))
    own = dict.fromkeys(("train", "tokenize", "capture", "reduce", "perplexity", *LAST), 1)
    assert plan(tmp_path) == own | AGGREGATES
    write_config(tmp_path, lambda config: config["definitions"]["llm_int8"].update(threshold=5.0))
    assert plan(tmp_path) == {"reduce": 2, "plot_model": 2, "export": 2} | AGGREGATES
    assert plan(tmp_path, "results/words/layers/moe.parquet") == {"reduce": 1}


def test_the_command_line_says_of_copied_results_what_snakemake_says(finished: Path, tmp_path: Path) -> None:
    copied(finished, tmp_path)
    command = [sys.executable, "-m", "outlier_features"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "workflow")}

    def said(stage: str, *models: str) -> list[str]:
        run = [*command, stage, *models]
        ended = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return ended.stdout.splitlines()

    tables = [f"{kind}/{model}.{end}" for model in ("dense", "moe") for kind, end in REDUCED]
    assert said("reduce") == [f"up to date: results/words/{table}" for table in tables]
    write_config(tmp_path, lambda config: config["definitions"]["llm_int8"].update(threshold=5.0))
    assert said("reduce", "moe")[0] == "making: results/words/outliers/moe.parquet"
    assert plan(tmp_path) == {"reduce": 1, "plot_model": 2, "export": 2} | AGGREGATES


REDUCED = (("outliers", "parquet"), ("perplexity", "json"))
"""The first file of each artefact that the stage reduce makes."""


def test_results_of_another_run_copied_over_these_are_planned_again(project: Path, tmp_path: Path) -> None:
    table = project / "results/words/layers/moe.parquet"
    other, lineage = pq.read_table(table), str(recorded(table, "reduction")).encode()
    carried = {key: value.replace(lineage, b"0123456789abcdef") for key, value in other.schema.metadata.items()}
    pq.write_table(other.replace_schema_metadata(carried), table)
    os.utime(table, (1e9, 1e9))  # an old run, as far as its time tells
    assert plan(project) == {"reduce": 1} | dict.fromkeys(("plot_model", "export"), 1) | AGGREGATES


def test_what_is_planned_again_is_made_once(finished: Path, tmp_path: Path) -> None:
    copied(finished, tmp_path)
    write_config(tmp_path, lambda config: config["models"]["moe"].update(label="A mixture"))
    target = "results/words/export/moe/outlier_channels.json"
    assert plan(tmp_path, target) == {"export": 1}
    assert snakemake(tmp_path, target).returncode == 0
    assert plan(tmp_path, target) == {}


def test_a_lost_shard_is_found_by_the_next_reader(project: Path) -> None:
    (project / "results/words/statistics/moe/block-001.arrow").unlink()
    write_config(project, lambda config: config["definitions"]["llm_int8"].update(threshold=5.0))
    output = snakemake(project)
    assert output.returncode != 0
    assert "block-001.arrow: the shard is missing" in output.stdout + output.stderr


def test_a_mistake_in_the_config_is_one_line_and_runs_nothing(project: Path) -> None:
    write_config(project, lambda config: config["models"]["moe"].update(dtyp="float32"))
    output = snakemake(project, "-n")
    assert output.returncode != 0
    assert "config.yaml: models.moe.dtyp: unknown key (did you mean 'dtype'?)" in output.stdout + output.stderr
