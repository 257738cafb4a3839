"""Local files that models and texts are made of."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lineages import FILES, TEXTS, settle
from outlier_features.artefacts import file_states, lineage


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a text, a checkpoint, an installed package and a published table, which the process is in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys.modules["outlier_features.shipped"], "CHECKOUT", tmp_path)
    monkeypatch.setattr(file_states, "RACY_SECONDS", 0.0)  # so that files as new as these are remembered
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        settle(path)
    lineage._published.cache_clear()
    yield tmp_path
    lineage._published.cache_clear()


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A directory with two texts."""
    for name in TEXTS:
        (tmp_path / name).write_text(f"what {name} holds")
    return tmp_path


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as new as those of a test are remembered."""
    monkeypatch.setattr(file_states, "RACY_SECONDS", 0.0)
