"""Weight files: of a local folder just those weights are taken that transformers opens, or none and a word why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import FAMILIES, PLANTED, Tensors, random_model, save_tokenizer, write_files
from outlier_features.config.entries import Model
from outlier_features.errors import SourceError
from outlier_features.sources.fetch import fetch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

LINEAGE = {"checkpoint": "0123456789abcdef"}
OLDER = "model-00001-of-00003.safetensors and 2 more"

Layout = Callable[[Path, Tensors, Tensors], None]
"""Writes the weights that transformers opens, and others, to a folder."""


@pytest.fixture(scope="module")
def sets() -> tuple[Tensors, Tensors]:
    """Two sets of weights of one architecture."""
    first, second = (random_model(FAMILIES["llama"], seed, PLANTED).float().state_dict() for seed in (1, 2))
    assert not any(torch.equal(first[name], second[name]) for name in first)
    return first, second


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A local model without weights."""
    directory = tmp_path / "local"
    directory.mkdir()
    random_model(FAMILIES["llama"], 0, PLANTED).config.save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def safe(tensors: Tensors, path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


def declare(directory: Path, name: str) -> None:
    """Let config.json name its weights."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"transformers_weights": name}))


def whole_beside_index(directory: Path, wanted: Tensors, other: Tensors) -> None:
    safe(wanted, directory / "model.safetensors")
    write_files(other, directory, is_pickled=False)


def bin_beside_its_index(directory: Path, wanted: Tensors, other: Tensors) -> None:
    torch.save(wanted, directory / "pytorch_model.bin")
    write_files(other, directory, is_pickled=True)


def index_beside_bin(directory: Path, wanted: Tensors, other: Tensors) -> None:
    write_files(wanted, directory, is_pickled=False)
    torch.save(other, directory / "pytorch_model.bin")


def declared_file(directory: Path, wanted: Tensors, other: Tensors) -> None:
    safe(wanted, directory / "pytorch_model.safetensors")
    safe(other, directory / "model.safetensors")
    declare(directory, "pytorch_model.safetensors")


def declared_index_of_a_folder(directory: Path, wanted: Tensors, other: Tensors) -> None:
    (directory / "parts").mkdir()
    write_files(wanted, directory / "parts", is_pickled=False)
    index = json.loads((directory / "parts/model.safetensors.index.json").read_text())
    index["weight_map"] = {key: f"parts/{name}" for key, name in index["weight_map"].items()}
    (directory / "new.safetensors.index.json").write_text(json.dumps(index))
    safe(other, directory / "model.safetensors")
    declare(directory, "new.safetensors.index.json")


def bin_beside_adapter(directory: Path, wanted: Tensors, other: Tensors) -> None:
    torch.save(wanted, directory / "pytorch_model.bin")
    safe(other, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


def whole_beside_others(directory: Path, wanted: Tensors, other: Tensors) -> None:
    safe(wanted, directory / "model.safetensors")
    safe(other, directory / "model.fp16.safetensors")
    safe(other, directory / "consolidated.safetensors")
    (directory / "original").mkdir()
    safe(other, directory / "original/model.safetensors")


TAKEN: dict[Layout, str] = {
    whole_beside_index: f"takes model.safetensors, as transformers does, and passes over {OLDER}",
    bin_beside_its_index: "takes pytorch_model.bin, as transformers does, and passes over "
    "pytorch_model-00001-of-00003.bin and 2 more",
    index_beside_bin: "takes model.safetensors.index.json, as transformers does, and passes over pytorch_model.bin",
    declared_file: "takes pytorch_model.safetensors, as transformers does, and passes over model.safetensors",
    declared_index_of_a_folder: "takes new.safetensors.index.json, as transformers does, and passes over "
    "model.safetensors",
    bin_beside_adapter: "does not apply the adapter adapter_model.safetensors; merge it into the weights to measure "
    "both",
    whole_beside_others: "takes model.safetensors, as transformers does, and passes over consolidated.safetensors and "
    "1 more",
}


def notes(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("note:")]


@pytest.mark.parametrize("write", TAKEN, ids=lambda write: write.__name__)
def test_the_weights_that_transformers_opens_arrive_and_a_line_tells_of_others(
    write: Layout, folder: Path, sets: tuple[Tensors, Tensors], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, other = sets
    write(folder, wanted, other)
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    capsys.readouterr()
    output = tmp_path / "model"
    fetch(Model(path=str(folder)), output, LINEAGE)
    assert notes(capsys.readouterr().err) == [f"note: {folder}: {TAKEN[write]}"]
    arrived = {name: tensor for path in output.rglob("*.safetensors") for name, tensor in load_file(path).items()}
    again = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32, use_safetensors=True).state_dict()
    for name, tensor in wanted.items():
        assert torch.equal(arrived[name], tensor)
        assert torch.equal(opened[name], tensor)
        assert torch.equal(again[name], tensor)
    assert arrived.keys() == wanted.keys()


def shards_without_index(directory: Path, wanted: Tensors, _: Tensors) -> None:
    write_files(wanted, directory, is_pickled=False)
    (directory / "model.safetensors.index.json").unlink()


def bins_without_index(directory: Path, wanted: Tensors, _: Tensors) -> None:
    write_files(wanted, directory, is_pickled=True)
    (directory / "pytorch_model.bin.index.json").unlink()


def another_name(directory: Path, wanted: Tensors, _: Tensors) -> None:
    safe(wanted, directory / "pytorch_model.safetensors")


def variant(directory: Path, wanted: Tensors, _: Tensors) -> None:
    safe(wanted, directory / "model.fp16.safetensors")


def adapter_alone(directory: Path, wanted: Tensors, _: Tensors) -> None:
    bin_beside_adapter(directory, wanted, wanted)
    (directory / "pytorch_model.bin").unlink()


def adapter_without_config(directory: Path, wanted: Tensors, other: Tensors) -> None:
    adapter_alone(directory, wanted, other)
    (directory / "config.json").unlink()


def index_without_metadata(directory: Path, wanted: Tensors, _: Tensors) -> None:
    write_files(wanted, directory, is_pickled=False)
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": json.loads(path.read_text())["weight_map"]}))


def declared_and_missing(directory: Path, wanted: Tensors, _: Tensors) -> None:
    safe(wanted, directory / "model.safetensors")
    declare(directory, "gone.safetensors")


REFUSED: dict[Layout, str] = {
    shards_without_index: f"has {OLDER} without model.safetensors.index.json, without which transformers opens none",
    bins_without_index: "has pytorch_model-00001-of-00003.bin and 2 more without pytorch_model.bin.index.json",
    another_name: "has pytorch_model.safetensors, but transformers opens only model.safetensors, model.safetensors.ind",
    variant: "has model.fp16.safetensors, but transformers opens only model.safetensors",
    adapter_alone: "holds only an adapter of org/base and no weights of a model; merge it into its base model",
    adapter_without_config: "holds only an adapter of org/base and no weights of a model",
    index_without_metadata: 'model.safetensors.index.json has no "metadata"',
    declared_and_missing: "gone.safetensors, which its config.json names, is not among its files",
}


@pytest.mark.parametrize("write", REFUSED, ids=lambda write: write.__name__)
def test_what_transformers_does_not_open_is_refused_when_it_is_fetched(
    write: Layout, folder: Path, sets: tuple[Tensors, Tensors], tmp_path: Path
) -> None:
    write(folder, *sets)
    with pytest.raises((OSError, ValueError, KeyError)):
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with pytest.raises(SourceError) as raised:
        fetch(Model(path=str(folder)), tmp_path / "model", LINEAGE)
    assert str(raised.value).startswith(f"{folder}: {REFUSED[write]}")
    assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path / "model").exists()


def test_an_index_cannot_lead_out_of_its_folder(folder: Path, sets: tuple[Tensors, Tensors], tmp_path: Path) -> None:
    safe(sets[0], tmp_path / "outside.safetensors")
    weight_map = dict.fromkeys(sets[0], "../outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with pytest.raises(SourceError, match=r"\.\./outside\.safetensors, which its index names, is not among its files"):
        fetch(Model(path=str(folder)), tmp_path / "results/model", LINEAGE)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_shards_of_a_distributed_checkpoint_go_before_all_else_and_are_refused(
    folder: Path, sets: tuple[Tensors, Tensors], tmp_path: Path
) -> None:
    safe(sets[0], folder / "model.safetensors")
    safe(sets[1], folder / "shard-00000-model-00000-of-00001.safetensors")
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(opened[name], tensor) for name, tensor in sets[1].items())
    with pytest.raises(SourceError, match="has shards of a distributed checkpoint, which are not read"):
        fetch(Model(path=str(folder)), tmp_path / "model", LINEAGE)


def test_a_pointer_of_git_lfs_is_named_as_one(folder: Path, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(SourceError, match="is a pointer of Git LFS and not the weights; run git lfs pull"):
        fetch(Model(path=str(folder)), tmp_path / "model", LINEAGE)


def test_neither_code_nor_other_weights_are_copied(folder: Path, sets: tuple[Tensors, Tensors], tmp_path: Path) -> None:
    whole_beside_index(folder, *sets)
    for name in ("modeling_own.py", "optimizer.pt", "adapter_config.json", "README.md"):
        (folder / name).write_text("{}")
    shutil.copytree(folder, folder / "checkpoint-10")
    fetch(Model(path=str(folder)), tmp_path / "model", LINEAGE)
    described = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == described | {"model.safetensors", "source.json"}
