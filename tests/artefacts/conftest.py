"""Local files that models and texts are made of."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lineages import FILES, settle
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
