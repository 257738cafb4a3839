"""Training runs of a hub, end to end: revisions of one model, and the figure over their steps."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from families import FAMILIES, save_family
from hub_server import HubServer, Repository, environment
from sweep import AMOUNTS, project_with, write_corpus
from workflows import Workflows

pytestmark = pytest.mark.slow

COMMITS = {step: f"{step:040x}" for step in (0, 1, 512)}


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
    with (
        HubServer(models=models, datasets=datasets) as hub,
        Workflows(tmp_path, environment(hub, tmp_path / "home", TERM="dumb")) as workflows,
    ):
        ended = workflows.snakemake(project, amounts=AMOUNTS)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        said = (project / "results/logs/fetch/pythia@step1.log").read_text()
        assert f"warning: EleutherAI/pythia@step1 is commit {COMMITS[1]} today; pin it" in said
        config["models"]["pythia"]["revisions"] = {step: commit for step, commit in COMMITS.items() if step != 1}
        (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        planned = workflows.snakemake(project, "-n", amounts=AMOUNTS)
        assert "pythia@step512" in planned.stdout + planned.stderr
        ended = workflows.snakemake(project, amounts=AMOUNTS)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = pd.read_parquet(project / "results/text/summary.parquet")
    steps = summary[summary["definition"] == "llm_int8"]
    assert list(zip(steps["series"], steps["step"], strict=True)) == [("pythia", 0), ("pythia", 512)]
    assert list(steps["label"]) == ["Pythia step 0", "Pythia step 512"]
    assert (project / "results/plots/training.png").stat().st_size > 10_000
