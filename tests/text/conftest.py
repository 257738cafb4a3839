"""Tokenizers and a text that tests of texts share."""

# Shapes: S sequence (window), T position.

import json
from pathlib import Path

import pytest
from corpora import DOCUMENTS, byte_level_tokenizer, save_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("plain"), byte_level_tokenizer(), bos_token="<s>")


@pytest.fixture(scope="session")
def checkpoint_with_bos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("bos"), byte_level_tokenizer(bos_by_default=True), bos_token="<s>")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS), encoding="utf-8")
    return path
