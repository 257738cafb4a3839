"""Kills: whatever moment a run is killed at, the next goes on, and the results are those of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from captures import Captures
from outlier_features.statistics.shards import Statistics
from projects import words_project
from small_models import DENSE, save_checkpoint, write_windows
from workflows import OFFLINE, ONE_DEVICE, Workflows

pytestmark = pytest.mark.slow

WIDE = DENSE | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 12, "head_dim": 64}
KILLS = 20
MANIFESTS = ("results/words/statistics/dense.json", "results/words/statistics/moe.json")


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captures]:
    with Captures(tmp_path_factory.mktemp("said")) as found:
        yield found


def digests(manifest: Path) -> dict[str, str]:
    """Return the digests of the shards of a result, every one of which is whole."""
    statistics = Statistics([manifest])
    for block in range(statistics.blocks):
        statistics.block(block)
    return json.loads(manifest.read_text())["shards"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_until_begun(captures: Captures, process: int) -> None:
    end = time.monotonic() + 60
    while "capture:" not in captures.said(process) and time.monotonic() < end:
        time.sleep(0.005)


def test_twenty_kills_at_any_moment_cost_no_finished_block_and_no_bit(captures: Captures, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", WIDE | {"max_position_embeddings": 256})
    tokens = write_windows(tmp_path / "tokens.arrow", np.random.default_rng(3).integers(160, size=(8, 256)))
    assert captures.run(checkpoint, tokens, tmp_path / "warm.json").status == 0  # compiles, where nothing is cached
    undisturbed = captures.start(checkpoint, tokens, tmp_path / "whole.json")
    wait_until_begun(captures, undisturbed)
    began = time.monotonic()
    assert captures.end(undisturbed).status == 0
    block_seconds = (time.monotonic() - began) / WIDE["num_hidden_layers"]

    out, moments, behind = tmp_path / "out.json", random.Random(0), [0]
    for kill in range(KILLS):
        process = captures.start(checkpoint, tokens, out)
        if kill % 5:  # else the model may still be opening
            wait_until_begun(captures, process)
        time.sleep(moments.uniform(0, 3 * block_seconds))
        ended = captures.kill(process)
        if "going on" in ended.said:
            behind.append(ended.resumed_after)
            assert behind[-1] >= behind[-2]
        if ended.status == 0 or (out.exists() and not (tmp_path / ".out.unfinished").exists()):
            assert digests(out) == digests(tmp_path / "whole.json")
            behind = [0]
    assert captures.run(checkpoint, tokens, out).status == 0
    assert digests(out) == digests(tmp_path / "whole.json")
    assert names(tmp_path / "out") == names(tmp_path / "whole")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


KILL_AT_CHANGE = """
changes = 0
def count(event, arguments):
    global changes
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") and {folder!r} in str(arguments[0]):
        changes += 1
        if changes == {number}:
            os.kill(os.getpid(), 9)
sys.addaudithook(count)
"""


def test_a_kill_before_any_change_of_a_file_name_is_gone_on_from(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, tmp_path: Path
) -> None:
    assert captures.run(checkpoints["dense"], tokens, tmp_path / "whole.json").status == 0
    for number in range(1, 1000):
        folder = tmp_path / str(number)
        order = checkpoints["dense"], tokens, folder / "out.json"
        folder.mkdir()
        ended = captures.run(*order, KILL_AT_CHANGE.format(folder=str(folder), number=number))
        if ended.status == 0:
            break
        assert ended.status == -signal.SIGKILL
        assert captures.run(*order).status == 0
        assert digests(folder / "out.json") == digests(tmp_path / "whole.json")
        assert names(folder) == ["out", "out.json"], number
        assert names(folder / "out") == names(tmp_path / "whole"), number
    assert number > 20


def start_snakemake(project: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "snakemake", *MANIFESTS, *ONE_DEVICE]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=project, env=os.environ | OFFLINE, stdout=nowhere, stderr=nowhere, start_new_session=True
    )


def sealed(project: Path) -> dict[str, dict[str, str]]:
    return {path.stem: digests(path) for path in sorted(project.glob("results/words/statistics/*.json"))}


MOMENTS = {
    "results/logs/train/*.log": 1.5,
    "results/words/tokens/*.arrow": 0.05,
    "results/words/statistics/.*.unfinished": 0.3,
    "results/words/statistics/*.json": 0.05,
}
"""What a run makes on its way, and within how many seconds of the first such file it is killed.

Moments drawn from the whole of a run fell mostly on imports. These four fall on what a kill can harm: a model being
trained, windows whole and not yet noted by Snakemake, a capture at work, and a sealed one not yet noted.
"""


def test_kills_of_snakemake_at_every_stage_change_no_result(
    workflows: Workflows, finished: Path, tmp_path: Path
) -> None:
    project, moments = words_project(tmp_path / "killed"), random.Random(1)
    for pattern, seconds in MOMENTS.items():
        before = set(project.glob(pattern))
        process = start_snakemake(project)
        while set(project.glob(pattern)) == before:
            assert process.poll() is None, f"ended without {pattern}"
            time.sleep(0.005)
        time.sleep(moments.uniform(0, seconds))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert workflows.snakemake(project, "--unlock").returncode == 0
    ended = workflows.snakemake(project, *MANIFESTS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert sealed(project) == sealed(finished)
    assert len(sealed(project)) == 2
    assert workflows.plan(project, *MANIFESTS) == {}
