"""The sweep of 2025, end to end: one command, twelve hub names, a hub on this machine that is busy now and then."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml
from hub_server import Fault, HubServer, environment
from outlier_features.figures import catalogue
from sweep import AMOUNTS, FAMILY_OF, project_with, serve
from workflows import Ended, Workflows

pytestmark = pytest.mark.slow


class Sweep(NamedTuple):
    """A project, its hub and the runs of it."""

    project: Path
    hub: HubServer
    workflows: Workflows

    def run(self, *arguments: str) -> Ended:
        """Run Snakemake in the project whose hub is the local one."""
        return self.workflows.snakemake(self.project, *arguments, amounts=AMOUNTS)


SHORT_LIVED = ("glm-4.5-air", "gpt-oss-120b")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
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
        with Workflows(folder, environment(hub, folder / "home", TERM="dumb")) as workflows:
            found = Sweep(project, hub, workflows)
            ended = found.run()
            assert ended.returncode == 0, ended.stdout + ended.stderr
            yield found


def test_one_command_measures_all_twelve_models(sweep: Sweep) -> None:
    summary = pd.read_parquet(sweep.project / "results/fineweb-edu/summary.parquet")
    assert set(summary["hub"]) == set(FAMILY_OF)
    assert (summary["kind"] == "moe").groupby(summary["hub"]).first().sum() == 7
    assert summary["perplexity"].notna().all()


def test_every_figure_is_drawn(sweep: Sweep) -> None:
    plots = sweep.project / "results/plots"
    assert {path.stem for path in plots.glob("*.png")} == set(catalogue.names("experiment"))
    of_models = catalogue.names("model")
    assert [len(list((plots / name).glob("*.png"))) for name in of_models] == [12] * len(of_models)
    assert len(list(plots.rglob("*.svg"))) == len(catalogue.names("experiment")) + 12 * len(of_models) + 7
    assert len(list((plots / "experts").glob("*/experts.png"))) == 7  # dense models have no page about experts
    assert len(list((sweep.project / "results/fineweb-edu/timings").glob("*.svg"))) == 12


def test_measured_stands_beside_published_for_every_model(sweep: Sweep) -> None:
    table = pd.read_csv(sweep.project / "results/fineweb-edu/reproduction.csv")
    joined = table[table["quantity"] == "outliers"]
    assert set(joined["hub"]) == set(FAMILY_OF)
    assert joined[["published", "measured"]].notna().all(axis=None)
    assert "Known faults" in (sweep.project / "results/fineweb-edu/reproduction.md").read_text()


def test_checkpoints_record_their_commits(sweep: Sweep) -> None:
    project, hub = sweep.project, sweep.hub
    config = yaml.safe_load((project / "config.yaml").read_text())
    for path in (project / "results/checkpoints").glob("*/source.json"):
        model, origin = config["models"][path.parent.name], json.loads(path.read_text())["provenance"]["source"]
        assert (origin["hub"], origin["commit"]) == (model["hub"], model["revision"])
    assert not hub.faults or all(fault.times == 0 for fault in hub.faults)


def test_weights_that_do_not_stay_are_gone_and_the_others_are_not(sweep: Sweep) -> None:
    config = yaml.safe_load((sweep.project / "config.yaml").read_text())
    there = {path.name for path in (sweep.project / "results/checkpoints").iterdir()}
    assert there == set(config["experiments"]["moe_vs_dense"]["models"]) - set(SHORT_LIVED)


def test_a_finished_sweep_asks_for_nothing_and_downloads_nothing(sweep: Sweep) -> None:
    before = len(sweep.hub.requests)
    ended = sweep.run()
    assert "Nothing to be done" in ended.stdout + ended.stderr
    assert len(sweep.hub.requests) == before


def test_a_capture_asks_for_memory_and_time_once_the_model_is_known(sweep: Sweep) -> None:
    ended = sweep.run("results/fineweb-edu/statistics/mixtral-8x7b.json", "-n", "--forcerun", "capture")
    found = re.search(r"rule capture:.*?resources: (.*)", ended.stdout + ended.stderr, re.DOTALL)
    assert found, ended.stdout + ended.stderr
    assert re.search(r"mem_mb=\d+", found[1])
    assert re.search(r"runtime=\d+", found[1])
    assert re.search(r"disk_mb=\d+", found[1])
