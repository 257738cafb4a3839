"""Models to publish on a hub of this machine, and somebody who fetches them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from families import FAMILIES, save_family, save_tokenizer
from forks import Forks
from hub_server import HubServer
from hub_users import CLIENT, MEGABYTE, User
from safetensors.numpy import save_file


@pytest.fixture(scope="session")
def client() -> Iterator[Forks]:
    with Forks(CLIENT) as client:
        yield client


@pytest.fixture
def user(client: Forks, tmp_path: Path) -> Iterator[User]:
    with HubServer() as hub:
        yield User(client, hub, tmp_path)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three weight files with tokenizer and licence, beside it other forms of the same weights."""
    directory = save_family(FAMILIES["llama"], tmp_path_factory.mktemp("published") / "llama")
    (directory / "LICENSE").write_text("free")
    (directory / "original").mkdir()
    for name in ("original/model.safetensors", "consolidated.00.pth", "model.onnx", "model.gguf", "README.md"):
        (directory / name).write_bytes(b"another form")
    return directory


@pytest.fixture(scope="session")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three `.bin` files."""
    return save_family(FAMILIES["opt-350m"], tmp_path_factory.mktemp("published") / "opt")


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one file of four megabytes and a little."""
    directory = tmp_path_factory.mktemp("published") / "large"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    save_tokenizer(directory)
    weights = np.random.default_rng(0).integers(256, size=(4, MEGABYTE), dtype=np.uint8)
    save_file({"weight": weights}, directory / "model.safetensors")
    return directory


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A directory to publish, with a configuration only."""
    directory = tmp_path / "odd"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    save_tokenizer(directory)
    return directory
