"""The sweep of 2025, end to end: one command, twelve hub names, a hub on this machine that is busy now and then."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from families import FAMILIES, save_family
from hub_server import Fault, HubServer, Repository, environment
from outlier_features import catalogue
from projects import PROJECT, copy_project
from sweep import FAMILY_OF, serve, write_corpus

pytestmark = pytest.mark.slow

SHORT_LIVED = ("glm-4.5-air", "gpt-oss-120b")
COMMITS = {step: f"{step:040x}" for step in (0, 1, 512)}


def run(project: Path, hub: HubServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a project whose hub is the local one."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--resources", "gpu=1", "hub=2"]
    surroundings = environment(hub, project.parent / "home", TERM="dumb")
    return subprocess.run(command, cwd=project, env=surroundings, capture_output=True, text=True, check=False)


def project_with(folder: Path, change: Any) -> tuple[Path, dict[str, Any]]:
    """Return a copy of this project with another configuration."""
    project = copy_project(folder / "project")
    config = yaml.safe_load((PROJECT / "config.yaml").read_text())
    config["corpora"]["fineweb-edu"] |= {"sequences": 2, "length": 48}
    change(config)
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return project, config


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, HubServer]]:
    """The finished sweep and its hub, which was busy and broke connections on the way."""

    def change(config: dict[str, Any]) -> None:
        config["experiment"] = "moe_vs_dense"
        for name in SHORT_LIVED:
            config["models"][name]["keep_weights"] = False

    folder = tmp_path_factory.mktemp("sweep")
    project, config = project_with(folder, change)
    with serve(config, folder / "hub") as hub:
        hub.faults += [Fault("429", "GET /api/models", times=2, retry_after=1)]
        hub.faults += [Fault("503", "GET .*safetensors", times=2, retry_after=1)]
        hub.faults += [Fault("cut", "GET .*safetensors", times=2)]
        ended = run(project, hub)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        yield project, hub


def test_one_command_measures_all_twelve_models(sweep: tuple[Path, HubServer]) -> None:
    project, _ = sweep
    summary = pd.read_parquet(project / "results/fineweb-edu/summary.parquet")
    assert set(summary["hub"]) == set(FAMILY_OF)
    assert (summary["kind"] == "moe").groupby(summary["hub"]).first().sum() == 7
    assert summary["perplexity"].notna().all()


def test_every_figure_is_drawn(sweep: tuple[Path, HubServer]) -> None:
    plots = sweep[0] / "results/plots"
    assert {path.stem for path in plots.glob("*.png")} == set(catalogue.names("experiment"))
    of_models = catalogue.names("model")
    assert [len(list((plots / name).glob("*.png"))) for name in of_models] == [12] * len(of_models)
    assert len(list(plots.rglob("*.svg"))) == len(catalogue.names("experiment")) + 12 * len(of_models) + 7
    assert len(list((plots / "experts").glob("*/experts.png"))) == 7  # dense models have no page about experts
    assert len(list((sweep[0] / "results/fineweb-edu/timings").glob("*.svg"))) == 12


def test_measured_stands_beside_published_for_every_model(sweep: tuple[Path, HubServer]) -> None:
    table = pd.read_csv(sweep[0] / "results/fineweb-edu/reproduction.csv")
    joined = table[table["quantity"] == "outliers"]
    assert set(joined["hub"]) == set(FAMILY_OF)
    assert joined[["published", "measured"]].notna().all(axis=None)
    assert "Known faults" in (sweep[0] / "results/fineweb-edu/reproduction.md").read_text()


def test_checkpoints_record_their_commits(sweep: tuple[Path, HubServer]) -> None:
    project, hub = sweep
    config = yaml.safe_load((project / "config.yaml").read_text())
    for path in (project / "results/checkpoints").glob("*/source.json"):
        model, origin = config["models"][path.parent.name], json.loads(path.read_text())["provenance"]["source"]
        assert (origin["hub"], origin["commit"]) == (model["hub"], model["revision"])
    assert not hub.faults or all(fault.times == 0 for fault in hub.faults)


def test_weights_that_do_not_stay_are_gone_and_the_others_are_not(sweep: tuple[Path, HubServer]) -> None:
    config = yaml.safe_load((sweep[0] / "config.yaml").read_text())
    there = {path.name for path in (sweep[0] / "results/checkpoints").iterdir()}
    assert there == set(config["experiments"]["moe_vs_dense"]["models"]) - set(SHORT_LIVED)


def test_a_finished_sweep_asks_for_nothing_and_downloads_nothing(sweep: tuple[Path, HubServer]) -> None:
    project, hub = sweep
    before = len(hub.requests)
    ended = run(project, hub)
    assert "Nothing to be done" in ended.stdout + ended.stderr
    assert len(hub.requests) == before


def test_a_capture_asks_for_memory_and_time_once_the_model_is_known(sweep: tuple[Path, HubServer]) -> None:
    project, hub = sweep
    ended = run(project, hub, "results/fineweb-edu/statistics/mixtral-8x7b.json", "-n", "--forcerun", "capture")
    found = re.search(r"rule capture:.*?resources: (.*)", ended.stdout + ended.stderr, re.DOTALL)
    assert found, ended.stdout + ended.stderr
    assert re.search(r"mem_mb=\d+", found[1])
    assert re.search(r"runtime=\d+", found[1])
    assert re.search(r"disk_mb=\d+", found[1])


def test_a_training_run_is_a_node_a_revision_and_a_figure_over_steps(tmp_path: Path) -> None:
    commits = {
        commit: save_family(FAMILIES["pythia"], tmp_path / commit, seed, {3: 2.0 + 4 * seed})
        for seed, commit in enumerate(COMMITS.values())
    }
    corpus = {"hub": "some/text", "revision": "c" * 40, "sequences": 2, "length": 48}

    def change(config: dict[str, Any]) -> None:
        config["models"]["pythia"] = {"hub": "EleutherAI/pythia", "label": "Pythia", "revisions": ["step0", "step1"]}
        config["corpora"]["text"] = corpus
        config["experiments"]["training"] = {"models": ["pythia"], "corpus": "text"}
        config["experiment"] = "training"

    project, config = project_with(tmp_path, change)
    branches = {f"step{step}": commit for step, commit in COMMITS.items()}
    models = {"EleutherAI/pythia": Repository(commits, branches)}
    datasets = {"some/text": Repository({"c" * 40: write_corpus(tmp_path)})}
    with HubServer(models=models, datasets=datasets) as hub:
        ended = run(project, hub)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        said = (project / "results/logs/fetch/pythia@step1.log").read_text()
        assert f"warning: EleutherAI/pythia@step1 is commit {COMMITS[1]} today; pin it" in said
        config["models"]["pythia"]["revisions"] = {step: commit for step, commit in COMMITS.items() if step != 1}
        (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        planned = run(project, hub, "-n").stdout
        assert "pythia@step512" in planned
        ended = run(project, hub)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = pd.read_parquet(project / "results/text/summary.parquet")
    steps = summary[summary["definition"] == "llm_int8"]
    assert list(zip(steps["series"], steps["step"], strict=True)) == [("pythia", 0), ("pythia", 512)]
    assert list(steps["label"]) == ["Pythia step 0", "Pythia step 512"]
    assert (project / "results/plots/training.png").stat().st_size > 10_000
