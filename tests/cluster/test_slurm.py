"""The pipeline on a real Slurm: the same bits as without it, whatever happens to jobs, nodes and the controller."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from outlier_features.config.config import Config
from outlier_features.pipeline.job_resources import Requests
from projects import model, words_project
from slurm import Slurm, Unavailable, running
from snakemake.iocontainers import Wildcards

pytestmark = pytest.mark.slow

FAULTS = ("cancelled", "hung", "starved", "broken")
"""Models named by what happens to their capture."""
LOCAL = """
from outlier_features.cli.commands import main
for stage in ("train", "tokenize"):
    main([stage, "--experiment", "all"])
for stage in ("capture", "reduce", "summarize"):
    main([stage, "--experiment", "demo"])
main(["capture", "--experiment", "all", "--config", "whole.yaml"])
"""
PROMPT = ("--slurm-init-seconds-before-status-checks", "4", "--latency-wait", "10")
"""The profile's patience is for a cluster where many people wait."""
OUTAGE = 4
"""Seconds without a controller: commands of Slurm ask again for ten."""
UNTRACKED = ("logs", "timings.arrow")
"""What tells of a run and is no result: its logs, and how long it took."""


class Run(NamedTuple):
    """How a run of snakemake ended, what it said, and its jobs."""

    status: int
    said: str
    jobs: list[dict[str, str]]

    def of(self, name: str) -> list[dict[str, str]]:
        """Return the captures of a model, in the order they were submitted."""
        return [job for job in self.jobs if job["Comment"].startswith(f"rule_capture_wildcards_words_{name}")]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A cluster of two nodes, stopped after the tests; they are skipped where there can be none."""
    try:
        with running() as cluster:
            yield cluster
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has been run without Slurm and without Snakemake; its results are kept as `local`."""

    def change(config: dict[str, Any]) -> None:
        config["models"] |= {name: model(2 + seed) for seed, name in enumerate(FAULTS)}
        config["experiments"]["demo"]["models"] = ["moe"]
        config["experiments"]["all"] = {"models": list(config["models"]), "corpus": "words"}
        config["capture"]["scatter"] = 2

    project = words_project(tmp_path_factory.mktemp("cluster"), change)
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["capture"]["scatter"] = 1
    (project / "whole.yaml").write_text(yaml.safe_dump(config))
    environment = os.environ | {"PYTHONPATH": "workflow"}
    subprocess.run([sys.executable, "-c", LOCAL], cwd=project, env=environment, check=True, capture_output=True)
    (project / "results").rename(project / "local")
    return project


@contextmanager
def started(slurm: Slurm, project: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a run of the project on the cluster; it does not outlive the block."""
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", *PROMPT, *arguments]
    process = subprocess.Popen(
        slurm.command(*command, where=project),
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TERM": "dumb"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finished(slurm: Slurm, process: subprocess.Popen[str], before: int = 0) -> Run:
    """Wait for the end of a run; its jobs are those after the first `before`."""
    said, _ = process.communicate(timeout=600)
    return Run(process.returncode, said, slurm.jobs()[before:])


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every result, by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not set(UNTRACKED) & set(path.relative_to(folder).parts)
    }


def statistics(results: Path, name: str) -> dict[str, str]:
    """Return the digests of the statistics of a model that one job has captured."""
    found = digests(results / "words/statistics")
    return {path: digest for path, digest in found.items() if path.startswith((f"{name}/", f"{name}.json"))}


def wait_for(found: Callable[[], Any], seconds: float = 300) -> Any:
    """Return what is found as soon as there is something."""
    last = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < last
        time.sleep(0.2)
    return value


def is_computing(project: Path, name: str) -> bool:
    """Return whether the capture of a model has begun to work, not only its job."""
    return (project / f"results/logs/capture/words/{name}.log").is_file()


def running_capture(slurm: Slurm, name: str) -> dict[str, str] | None:
    """Return the job that captures a model, if it runs."""
    jobs = slurm.jobs_of(f"rule_capture_wildcards_words_{name}")
    return next((job for job in jobs if job["JobState"] == "RUNNING"), None)


@pytest.fixture(scope="module")
def healthy(slurm: Slurm, project: Path) -> Run:
    """The whole pipeline, from nothing to the summary, the windows shared out between two jobs."""
    with started(slurm, project, "results/words/summary.json") as process:
        return finished(slurm, process)


def test_the_pipeline_runs_on_slurm_to_the_same_bits_as_without_it(healthy: Run, project: Path, slurm: Slurm) -> None:
    assert healthy.status == 0, healthy.said
    found, expected = digests(project / "results"), digests(project / "local")
    assert len(found) > 15
    assert found == {path: expected[path] for path in found}
    print(slurm.table())


def test_only_what_computes_becomes_a_job(healthy: Run) -> None:
    rules = sorted(job["Comment"].split("_wildcards")[0] for job in healthy.jobs)
    assert rules == ["rule_capture_part", "rule_capture_part", "rule_reduce", "rule_train"]
    assert {job["JobState"] for job in healthy.jobs} == {"COMPLETED"}


def test_a_rule_that_wants_a_gpu_gets_one_from_slurm(healthy: Run) -> None:
    for job in healthy.jobs:
        assert job.get("TresPerJob") == (None if "rule_reduce" in job["Comment"] else "gres:gpu:1")


def test_the_parts_of_a_model_run_on_both_nodes(healthy: Run) -> None:
    parts = [job for job in healthy.jobs if "rule_capture_part" in job["Comment"]]
    assert {job["NodeList"] for job in parts} == {"node1", "node2"}


def test_a_capture_asks_slurm_for_the_memory_and_time_of_its_plan(
    healthy: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (job,) = [job for job in healthy.jobs if job["Comment"].endswith("part_wildcards_words_moe_1-of-2")]
    wildcards = Wildcards(fromdict={"corpus": "words", "model": "moe", "scatteritem": "1-of-2"})
    planned = Requests(Config.read(Path("config.yaml"))).capture(wildcards)
    assert job["MinMemoryNode"] == f"{planned.memory_mb}M"
    assert job["TimeLimit"] == f"00:{planned.minutes:02}:00"


@pytest.fixture(scope="module")
def bad_day(slurm: Slurm, project: Path, healthy: Run) -> Run:
    """One run of four models: a job is cancelled, one hangs, one lacks memory, and one checkpoint is damaged."""
    before = len(slurm.jobs())
    for kind in ("checkpoints", "words/tokens"):
        shutil.copytree(project / "local" / kind, project / "results" / kind, dirs_exist_ok=True)
    weights = project / "results/checkpoints/broken/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    memory = "100 if wildcards.model == 'starved' and attempt == 1 else 1500 * attempt"
    targets = [f"results/words/statistics/{name}.json" for name in FAULTS]
    arguments = ("--set-resources", f"capture:mem_mb={memory}", "--retries", "1", "--set-scatter", "capture=1")
    with started(slurm, project, *arguments, "--", *targets) as process:
        strike(slurm, {"cancelled": cancel, "hung": hang})
        return finished(slurm, process, before)


def strike(slurm: Slurm, faults: dict[str, Callable[[Slurm, dict[str, str]], None]]) -> None:
    """Bring its fault upon the capture of each model as soon as it runs, in whichever order they come."""

    def struck() -> bool:
        for name in list(faults):
            if job := running_capture(slurm, name):
                faults.pop(name)(slurm, job)
        return not faults

    wait_for(struck)


def cancel(slurm: Slurm, job: dict[str, str]) -> None:
    """Cancel a job as its user would."""
    slurm.ask("scancel", job["JobId"])


def hang(slurm: Slurm, job: dict[str, str]) -> None:
    """Stop every process of a job, and let its time be over in a moment."""
    listed = slurm.ask("scontrol", "listpids", job["JobId"], job["NodeList"]).splitlines()[1:]
    for line in listed:
        os.kill(int(line.split()[0]), signal.SIGSTOP)
    slurm.ask("scontrol", "update", f"JobId={job['JobId']}", "EndTime=now+1")


@pytest.mark.parametrize(("name", "state"), [("cancelled", "CANCELLED"), ("hung", "TIMEOUT"), ("starved", "FAILED")])
def test_a_job_that_slurm_ends_is_submitted_again_and_comes_to_the_same_bits(
    bad_day: Run, project: Path, name: str, state: str
) -> None:
    assert [job["JobState"] for job in bad_day.of(name)] == [state, "COMPLETED"], bad_day.said
    found = statistics(project / "results", name)
    assert len(found) > 3
    assert found == statistics(project / "local", name)


def test_a_job_that_is_submitted_again_asks_for_more_memory_and_time(bad_day: Run) -> None:
    first, second = bad_day.of("cancelled")
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("1500M", "3000M")
    assert (first["TimeLimit"], second["TimeLimit"]) == ("00:11:00", "00:22:00")


def test_a_model_that_cannot_be_captured_is_named_and_every_other_one_is_done(bad_day: Run, project: Path) -> None:
    assert bad_day.status != 0
    assert [job["JobState"] for job in bad_day.of("broken")] == ["FAILED", "FAILED"]
    assert "results/words/statistics/broken.json" in bad_day.said
    assert "error: " in (project / "results/logs/capture/words/broken.log").read_text()
    done = {path.stem for path in (project / "results/words/statistics").glob("*.json") if "-of-" not in path.stem}
    assert done == set(FAULTS) - {"broken"}


def test_what_slurm_said_of_a_failed_job_lies_beside_the_logs(bad_day: Run, project: Path) -> None:
    (first, _) = bad_day.of("starved")
    log = project / f"results/logs/slurm/rule_capture/words_starved/{first['JobId']}.log"
    assert "exceeded memory limit" in log.read_text()


def test_a_drained_node_and_a_restarted_controller_cost_only_time(slurm: Slurm, project: Path, bad_day: Run) -> None:
    shutil.rmtree(project / "results/words/statistics")
    shutil.rmtree(project / "results/logs/capture")
    before = len(slurm.jobs())
    slurm.ask("scontrol", "update", "NodeName=node1", "State=DRAIN", "Reason=test")
    targets = [f"results/words/statistics/{name}.json" for name in ("dense", "moe")]
    with started(slurm, project, "--set-scatter", "capture=1", "--", *targets) as process:
        wait_for(lambda: any(is_computing(project, name) for name in ("dense", "moe")))
        slurm.stop_controller()
        time.sleep(OUTAGE)
        slurm.start_controller()
        run = finished(slurm, process, before)
    assert run.status == 0, run.said
    assert [(job["JobState"], job["NodeList"]) for job in run.jobs] == [("COMPLETED", "node2")] * 2
    for name in ("dense", "moe"):
        assert statistics(project / "results", name) == statistics(project / "local", name)
