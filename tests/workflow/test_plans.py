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
from outlier_features.artefacts.records import recorded
from outlier_features.figures import catalogue
from projects import PARTS, copy_of, model, write_config
from workflows import Workflows

pytestmark = pytest.mark.slow


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project with its file times."""
    return copy_of(finished, tmp_path / "project")


AGGREGATES = {"summarize": 1, "infer": 1, "reproduce": 1, "plot": 1, "export_summary": 1, "index": 1}
PLOTS = ("plot_model", "plot_timings")
"""The figures of each model; the second needs its statistics only."""
LAST = (*PLOTS, "export")
"""All that is made of each model in the end."""


def test_a_finished_project_plans_nothing(workflows: Workflows, project: Path) -> None:
    assert workflows.plan(project) == {}


def test_a_new_model_plans_its_own_jobs_and_the_aggregates(workflows: Workflows, project: Path) -> None:
    def add(config: dict) -> None:
        config["models"]["third"] = model(2)
        config["experiments"]["demo"]["models"].append("third")

    write_config(project, add)
    own = dict.fromkeys(("train", "tokenize", "capture", "reduce", "perplexity", *LAST), 1)
    assert workflows.plan(project) == own | AGGREGATES


def test_another_threshold_of_the_grid_plans_no_capture(workflows: Workflows, project: Path) -> None:
    write_config(project, lambda config: config["definitions"]["llm_int8"].update(threshold=5.0))
    assert workflows.plan(project) == {"reduce": 2, "plot_model": 2, "export": 2} | AGGREGATES


def test_another_seed_of_one_model_plans_that_model_to_the_end(workflows: Workflows, project: Path) -> None:
    write_config(project, lambda config: config["models"]["moe"]["train"].update(seed=9))
    own = dict.fromkeys(("train", "tokenize", "capture", "reduce", "perplexity", *LAST), 1)
    assert workflows.plan(project) == own | AGGREGATES


def test_another_label_plans_no_computation(workflows: Workflows, project: Path) -> None:
    write_config(project, lambda config: config["models"]["moe"].update(label="A mixture"))
    assert workflows.plan(project) == dict.fromkeys(LAST, 1) | AGGREGATES


def test_an_edit_of_the_figures_plans_only_plots(workflows: Workflows, project: Path) -> None:
    path = project / "workflow/outlier_features/figures/draw.py"
    path.write_text(path.read_text() + "\nCOLOUR = 'purple'\n")
    assert workflows.plan(project) == {"plot": 1, "index": 1} | dict.fromkeys(PLOTS, 2)


def test_an_edit_of_the_style_of_the_page_plans_that_page_only(workflows: Workflows, project: Path) -> None:
    path = project / "workflow/report/index/page.css"
    path.write_text(path.read_text() + "p { color: red }")
    assert workflows.plan(project) == {"index": 1}


def test_another_explanation_of_a_word_plans_the_page_only(workflows: Workflows, project: Path) -> None:
    path = project / "workflow/outlier_features/report/tour.py"
    path.write_text(path.read_text().replace("A decoder layer,", "A layer of the decoder,"))
    assert workflows.plan(project) == {"index": 1}


def test_the_report_of_an_unfinished_run_is_refused_by_name(workflows: Workflows, project: Path) -> None:
    (project / "results/plots/channel_map/moe.png").unlink()
    output = workflows.snakemake(project, "--report", "results/report.html")
    assert output.returncode != 0
    assert "results/plots/channel_map/moe.png marked for report but does not exist" in output.stdout + output.stderr


def test_every_caption_of_the_report_is_rendered(workflows: Workflows, project: Path) -> None:
    output = workflows.snakemake(project, "--report", "results/report.html")
    assert output.returncode == 0
    assert "ERROR/" not in output.stdout + output.stderr
    report = (project / "results/report.html").read_text(encoding="utf-8")
    assert "system-message" not in report
    assert "results/plots/experts/moe/experts.png" in report
    assert "results/plots/experts/dense" not in report


def test_an_edit_of_the_engine_plans_captures_and_what_follows(workflows: Workflows, project: Path) -> None:
    path = project / "workflow/outlier_features/capture/engine.py"
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    assert workflows.plan(project) == dict.fromkeys(("capture", "reduce", "perplexity", *LAST), 2) | AGGREGATES


def test_a_comment_in_the_engine_plans_nothing(workflows: Workflows, project: Path) -> None:
    path = project / "workflow/outlier_features/capture/engine.py"
    path.write_text("# a remark\n" + path.read_text().replace('"""Layer-major', '"""Truly layer-major'))
    assert workflows.plan(project) == {}


def test_touched_scripts_and_modules_plan_nothing(workflows: Workflows, project: Path) -> None:
    for path in [*project.glob("workflow/**/*.py"), *project.glob("workflow/rules/*.smk"), project / "Snakefile"]:
        path.touch()
    assert workflows.plan(project) == {}


def test_a_fresh_clone_with_copied_results_plans_nothing(workflows: Workflows, finished: Path, tmp_path: Path) -> None:
    for part in (*PARTS, "text", "config.yaml", "results", ".snakemake"):  # every file gets a new time, in this order
        source, target = finished / part, tmp_path / part
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copy)
        else:
            shutil.copy(source, target)
        time.sleep(0.05)
    assert workflows.plan(tmp_path) == {}


def test_a_figure_that_is_not_there_is_made_by_the_one_job_of_all_figures(workflows: Workflows, project: Path) -> None:
    figures = [f"results/plots/{name}.{end}" for name in catalogue.names("experiment") for end in ("png", "svg")]
    assert workflows.plan(project, *figures) == {}
    (project / "results/plots/phase_shift.svg").unlink()
    assert workflows.plan(project, "results/plots/phase_shift.svg") == {"plot": 1}
    assert workflows.plan(project) == {"plot": 1, "index": 1}


def test_a_capture_that_failed_is_planned_again_for_a_plot(workflows: Workflows, project: Path) -> None:
    plot, of_all = "results/plots/kurtosis/moe.png", "results/plots/moe_vs_dense.png"
    write_config(project, lambda config: config["capture"]["thresholds"].append(2048))
    engine = project / "workflow/outlier_features/capture/engine.py"
    intact = engine.read_text()
    engine.write_text(intact + "\nraise RuntimeError('the device is gone')\n")
    failed = workflows.snakemake(project, plot)
    assert failed.returncode != 0
    assert "the device is gone" in failed.stdout + failed.stderr
    engine.write_text(intact)
    assert (project / plot).exists()
    assert workflows.plan(project, of_all)["capture"] == 2
    assert workflows.snakemake(project, plot).returncode == 0
    assert workflows.plan(project, plot) == {}


def test_a_new_text_plans_every_window(workflows: Workflows, project: Path) -> None:
    write_config(project, lambda config: config["corpora"]["words"].update(sequences=4))
    jobs = ("tokenize", "capture", "reduce", "perplexity", *LAST)
    assert workflows.plan(project) == dict.fromkeys(jobs, 2) | AGGREGATES


def test_an_edited_text_plans_its_windows_and_what_follows(workflows: Workflows, project: Path) -> None:
    text = project / "text/a.txt"
    text.write_text(text.read_text().replace("outlier", "another"))
    jobs = ("tokenize", "capture", "reduce", "perplexity", *LAST)
    assert workflows.plan(project) == dict.fromkeys(jobs, 2) | AGGREGATES


def test_an_edited_text_of_the_same_size_and_time_is_found(workflows: Workflows, project: Path) -> None:
    text = project / "text/b.txt"  # which both models were trained on
    times = text.stat()
    text.write_text(text.read_text().swapcase())
    os.utime(text, ns=(times.st_atime_ns, times.st_mtime_ns))
    jobs = ("train", "tokenize", "capture", "reduce", "perplexity", *LAST)
    assert workflows.plan(project) == dict.fromkeys(jobs, 2) | AGGREGATES


def test_an_edited_published_table_plans_what_shows_it(workflows: Workflows, project: Path) -> None:
    table = project / "resources/published/massive_activations.csv"
    table.write_text(table.read_text() + "\n")
    assert workflows.plan(project) == {"plot": 1, "plot_model": 2, "index": 1}


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
    workflows: Workflows, finished: Path, tmp_path: Path
) -> None:
    assert workflows.plan(copied(finished, tmp_path)) == {}
    assert workflows.plan(tmp_path, "results/plots/moe_vs_dense.png") == {}


def test_results_without_the_records_of_snakemake_are_planned_as_with_them(
    workflows: Workflows, finished: Path, tmp_path: Path
) -> None:
    copied(finished, tmp_path)
    write_config(tmp_path, lambda config: config["models"]["moe"]["train"].update(seed=9))
    own = dict.fromkeys(("train", "tokenize", "capture", "reduce", "perplexity", *LAST), 1)
    assert workflows.plan(tmp_path) == own | AGGREGATES
    write_config(tmp_path, lambda config: config["definitions"]["llm_int8"].update(threshold=5.0))
    assert workflows.plan(tmp_path) == {"reduce": 2, "plot_model": 2, "export": 2} | AGGREGATES
    assert workflows.plan(tmp_path, "results/words/layers/moe.parquet") == {"reduce": 1}


def test_the_command_line_says_of_copied_results_what_snakemake_says(
    workflows: Workflows, finished: Path, tmp_path: Path
) -> None:
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
    assert workflows.plan(tmp_path) == {"reduce": 1, "plot_model": 2, "export": 2} | AGGREGATES


REDUCED = (("outliers", "parquet"), ("perplexity", "json"))
"""The first file of each artefact that the stage reduce makes."""


def test_results_of_another_run_copied_over_these_are_planned_again(
    workflows: Workflows, project: Path, tmp_path: Path
) -> None:
    table = project / "results/words/layers/moe.parquet"
    other, lineage = pq.read_table(table), str(recorded(table, "reduction")).encode()
    carried = {key: value.replace(lineage, b"0123456789abcdef") for key, value in other.schema.metadata.items()}
    pq.write_table(other.replace_schema_metadata(carried), table)
    os.utime(table, (1e9, 1e9))  # an old run, as far as its time tells
    assert workflows.plan(project) == {"reduce": 1} | dict.fromkeys(("plot_model", "export"), 1) | AGGREGATES


def test_what_is_planned_again_is_made_once(workflows: Workflows, finished: Path, tmp_path: Path) -> None:
    copied(finished, tmp_path)
    write_config(tmp_path, lambda config: config["models"]["moe"].update(label="A mixture"))
    target = "results/words/export/moe/outlier_channels.json"
    assert workflows.plan(tmp_path, target) == {"export": 1}
    assert workflows.snakemake(tmp_path, target).returncode == 0
    assert workflows.plan(tmp_path, target) == {}


def test_a_lost_shard_is_found_by_the_next_reader(workflows: Workflows, project: Path) -> None:
    (project / "results/words/statistics/moe/block-001.arrow").unlink()
    write_config(project, lambda config: config["definitions"]["llm_int8"].update(threshold=5.0))
    output = workflows.snakemake(project)
    assert output.returncode != 0
    assert "block-001.arrow: the shard is missing" in output.stdout + output.stderr


def test_a_mistake_in_the_config_is_one_line_and_runs_nothing(workflows: Workflows, project: Path) -> None:
    write_config(project, lambda config: config["models"]["moe"].update(dtyp="float32"))
    output = workflows.snakemake(project, "-n")
    assert output.returncode != 0
    line = next(n for n, line in enumerate((project / "config.yaml").read_text().splitlines(), 1) if "dtyp:" in line)
    told = f"config.yaml, line {line}, column 5: models.moe.dtyp: unknown key (did you mean 'dtype'?)"
    assert told in output.stdout + output.stderr


def test_yaml_that_cannot_be_read_is_told_with_its_line_and_column(workflows: Workflows, project: Path) -> None:
    with (project / "config.yaml").open("a") as config:
        config.write("models: [\n")
    lines = len((project / "config.yaml").read_text().splitlines())
    output = workflows.snakemake(project, "-n")
    assert output.returncode != 0
    assert f"config.yaml, line {lines + 1}, column 1: not valid YAML" in output.stdout + output.stderr


def test_an_unknown_figure_is_refused_with_the_nearest(workflows: Workflows, project: Path) -> None:
    output = workflows.snakemake(project, "-n", "results/plots/moe_vs_dens.png")
    assert output.returncode != 0
    assert "no figure moe_vs_dens (did you mean 'moe_vs_dense'?)" in output.stdout + output.stderr
