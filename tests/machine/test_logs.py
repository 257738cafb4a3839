"""Logs: a refusal behind an open progress bar is a line of its own."""

from pathlib import Path

import pytest
from outlier_features.errors import ArchitectureError
from outlier_features.machine.logs import logged
from tqdm import tqdm


def test_a_refusal_behind_an_open_progress_bar_is_a_line_of_its_own(tmp_path: Path) -> None:
    def fail() -> None:
        progress = tqdm(total=3, desc="capture")
        progress.update()
        raise ArchitectureError("model: cannot be measured.")

    with pytest.raises(SystemExit), logged(tmp_path / "log"):
        fail()
    lines = (tmp_path / "log").read_bytes().decode().split("\n")  # as text a return would count as the end of a line
    assert lines[-2:] == ["error: model: cannot be measured.", ""]
    assert lines[-3].rpartition("\r")[2].startswith("capture:  33%")
