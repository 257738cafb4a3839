"""The profiles: what both must say alike, and that a mistyped one runs nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from outlier_features.config import profiles
from outlier_features.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
PROFILES = {
    path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in REPOSITORY.glob("profiles/*/profile.yaml")
}
EVERYWHERE = ("rerun-triggers", "rerun-incomplete", "show-failed-logs", "max-checksum-file-size")
"""Keys that decide what is stale and what is shown: a profile replaces the default one whole, so each repeats them."""


@pytest.mark.parametrize("key", EVERYWHERE)
def test_every_profile_says_the_same_of_what_is_stale_and_shown(key: str) -> None:
    assert set(PROFILES) == {"default", "slurm"}
    assert PROFILES["slurm"][key] == PROFILES["default"][key]


def test_the_hub_is_spared_everywhere_and_only_one_machine_counts_its_gpus() -> None:
    assert PROFILES["slurm"]["resources"] == {"hub": PROFILES["default"]["resources"]["hub"]}
    assert "gpu" in PROFILES["default"]["resources"]


def test_no_script_can_go_stale_unseen_by_the_profiles() -> None:
    for profile in PROFILES.values():
        assert "code" not in profile["rerun-triggers"]
        assert {"mtime", "params", "input"} <= set(profile["rerun-triggers"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workflow-profile", "profiles/slurm"],
        ["--workflow-profile=slurm", "--cores", "4"],
        ["--workflow-prof", "profiles/slurm/profile.yaml"],
        ["--workflow-profile", str(REPOSITORY / "profiles/slurm")],
        ["--workflow-profile", "none"],
        ["--cores", "1", "--config", "experiment=demo"],
        [],
    ],
)
def test_a_profile_that_is_there_is_accepted(arguments: list[str]) -> None:
    profiles.check(arguments, REPOSITORY)


@pytest.mark.parametrize("arguments", [["--workflow-profile", "profiles/slrum"], ["--workflow-prof=slrum", "-n"]])
def test_a_profile_that_is_not_there_is_refused_with_those_that_are(arguments: list[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"slrum: there is no such profile \(did you mean profiles/slurm\?\)"
    ) as raised:
        profiles.check(arguments, REPOSITORY)
    assert "Profiles of this project: profiles/default, profiles/slurm." in str(raised.value)


def test_a_relative_profile_is_looked_for_where_the_shell_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(REPOSITORY.parent)  # as snakemake is after --directory
    monkeypatch.setenv("PWD", str(tmp_path))
    profiles.check(["--workflow-profile", "mine"], REPOSITORY)


def test_a_profile_of_the_project_is_not_put_below_the_default_one() -> None:
    with pytest.raises(ConfigError, match="give it as --workflow-profile profiles/slurm"):
        profiles.check(["--profile", "profiles/slurm"], REPOSITORY)
    profiles.check(["--profile", "of-the-site"], REPOSITORY)


def test_a_mistyped_profile_runs_nothing() -> None:
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slrum", "--cores", "1", "-n"]
    ended = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "--workflow-profile profiles/slrum: there is no such profile" in ended.stdout + ended.stderr
    assert "Job stats" not in ended.stdout + ended.stderr
