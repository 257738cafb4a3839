"""A folder to measure."""

from pathlib import Path

import pytest


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "my model (v2)"
    folder.mkdir()
    return folder
