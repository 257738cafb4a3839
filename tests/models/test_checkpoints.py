"""Checkpoints: what a seal holds, and what no longer fits its seal is refused by name."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_folders import contents, cut, save_model
from outlier_features.config.entries import Model
from outlier_features.errors import DamagedFile, StaleFile
from outlier_features.models.checkpoints import read_source
from outlier_features.sources.fetch import fetch

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


def test_the_seal_holds_size_and_sha256_of_every_file(source: Path, checkpoint: Path) -> None:
    sealed = json.loads((checkpoint / "source.json").read_text(encoding="utf-8"))
    assert sealed["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents(source).items()
    }
    assert sealed["provenance"]["lineage"] == LINEAGE


def test_a_whole_checkpoint_says_where_it_comes_from(source: Path, checkpoint: Path) -> None:
    assert read_source(checkpoint, LINEAGE["checkpoint"]) == {"path": str(source)}


def test_a_seal_that_lies_in_the_local_directory_is_not_taken_over(source: Path, tmp_path: Path) -> None:
    (source / "source.json").write_text('{"provenance": {"lineage": {}}, "files": {}}', encoding="utf-8")
    fetch(Model(path=str(source)), tmp_path / "model", LINEAGE)
    assert read_source(tmp_path / "model", LINEAGE["checkpoint"]) == {"path": str(source)}


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", [lambda path: cut(path, 9), lambda path: path.unlink()], ids=["cut", "deleted"])
def test_a_file_cut_or_deleted_after_sealing_is_refused_by_name(
    checkpoint: Path, name: str, damage: Callable[[Path], None]
) -> None:
    size = (checkpoint / name).stat().st_size
    damage(checkpoint / name)
    with pytest.raises(DamagedFile, match=rf"{re.escape(name)}: has (9|no) bytes where {size} were written; delete"):
        read_source(checkpoint, LINEAGE["checkpoint"])


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"[]"])
def test_a_checkpoint_whose_seal_is_missing_or_damaged_is_refused_by_name(
    checkpoint: Path, content: bytes | None
) -> None:
    (checkpoint / "source.json").unlink()
    if content is not None:
        (checkpoint / "source.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=f"{re.escape(str(checkpoint))}: .*source.json.*run snakemake"):
        read_source(checkpoint)


def test_a_checkpoint_of_another_lineage_is_refused_by_name(checkpoint: Path) -> None:
    with pytest.raises(StaleFile, match=f"{re.escape(str(checkpoint))}.*{LINEAGE['checkpoint']}.*another"):
        read_source(checkpoint, "another")
