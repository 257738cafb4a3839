"""Disk: what does not fit is refused before any of it is written."""

import shutil
from pathlib import Path

import pytest
from conftest import capture_settings
from outlier_features.capture.run import capture
from outlier_features.errors import SourceError
from outlier_features.machine import disk
from outlier_features.machine.disk import require_room


def test_a_folder_that_does_not_exist_yet_is_on_the_disk_of_its_parents(tmp_path: Path) -> None:
    require_room(tmp_path / "not/there/yet", 1, "a file")
    with pytest.raises(SourceError, match=r"a file: needs 1000000000.0 GB more .*, which has .* free; make room"):
        require_room(tmp_path / "not/there/yet", 1e18, "a file")


def test_statistics_that_do_not_fit_are_refused_before_the_model_is_read(
    checkpoints: dict[str, Path], tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def refuse(folder: Path, size: float, where: str) -> None:
        asked.append(size)
        disk.require_room(folder, 1e18, where)

    monkeypatch.setattr("outlier_features.capture.run.require_room", refuse)
    broken = tmp_path / "dense"
    shutil.copytree(checkpoints["dense"], broken)
    with pytest.raises(SourceError, match="the statistics of dense: needs"):
        capture(broken, tokens, tmp_path / "out.json", capture_settings(), {"statistics": "test"})
    assert not (tmp_path / "out.json").exists()
    monkeypatch.undo()
    capture(broken, tokens, tmp_path / "out.json", capture_settings(), {"statistics": "test"})
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert 0.3 * asked[0] < written < 4 * asked[0]
