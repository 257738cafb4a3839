"""A model whose experts torch cannot group."""

from pathlib import Path

import pytest
from small_models import NARROW, save_checkpoint


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "narrow", NARROW)
