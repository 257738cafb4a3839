"""Admission: what config.json and the tokenizer tell is refused before weights are read, by `fetch` and by `plan`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from families import FAMILIES, save_family
from outlier_features.cli import commands
from outlier_features.config.entries import Corpus, Model
from outlier_features.errors import ArchitectureError, OutlierFeaturesError
from outlier_features.machine.logs import logged
from outlier_features.sources.admission import Use, admit
from outlier_features.sources.fetch import fetch
from tqdm import tqdm

REPOSITORY = Path(__file__).parents[2]
LINEAGE = {"checkpoint": "0123456789abcdef"}
TEXT = "the outlier features of a language model live in a few channels and are large "
USE = Use(corpus=Corpus(path="text.txt", sequences=2, length=32))

CONFIGURATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no heads": ({"model_type": "mamba"}, "mamba has no attention heads"),
    "recurrent": ({"model_type": "rwkv"}, "rwkv has no attention heads"),
    "two mixers": (
        {"model_type": "falcon_h1"},
        r"FalconH1DecoderLayer has 2 parts that take a mask or a cache where one attention was expected "
        r"\(FalconH1Mixer, FalconH1Attention\); choose a model whose blocks have one attention each",
    ),
    "no MLP": ({"model_type": "nemotron_h"}, "NemotronHBlock has no part with matrices beside its attention"),
    "encoder": ({"model_type": "bert"}, "bert is no decoder-only language model with a head"),
    "encoder and decoder": ({"model_type": "t5"}, "t5 is no decoder-only language model with a head"),
    "no head": ({"model_type": "llama", "architectures": ["LlamaModel"]}, "LlamaModel is no decoder-only"),
    "quantised": (
        {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}},
        r"the checkpoint is quantised \(gptq\)",
    ),
    "short context": (
        {"model_type": "llama", "max_position_embeddings": 16},
        r"a window of 32 tokens is longer than the context of \w+ \(16 tokens\)",
    ),
    "heads that do not divide": (
        {"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4},
        "config.json is no configuration of llama that transformers can read .*not a multiple of the number of attent",
    ),
    "field of another kind": (
        {"model_type": "llama", "hidden_size": "wide"},
        "config.json is no configuration of llama that transformers can read",
    ),
    "fields that make no model": (
        {"model_type": "ministral"},
        "transformers cannot build the ministral model that config.json describes",
    ),
    "unknown": ({"model_type": "of-next-year"}, r"transformers [\d.]+ knows no model_type 'of-next-year'"),
    "nameless": ({"hidden_size": 8}, "config.json has no model_type"),
}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A local model, called for what would be read of its name, whose weights are damaged."""
    directory = save_family(FAMILIES["llama"], tmp_path / "llama")
    for path in directory.glob("*.safetensors"):
        path.write_bytes(b"damaged")
    (tmp_path / "text.txt").write_text(TEXT * 20)
    return directory


def refusals(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what `fetch` and `plan` say of a model."""
    monkeypatch.chdir(directory.parent)
    said = []
    with pytest.raises(OutlierFeaturesError) as raised:
        fetch(Model(path=str(directory)), directory.parent / "out", LINEAGE, USE)
    said.append(str(raised.value))
    assert not (directory.parent / "out").exists()
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    config["experiments"] = {"demo": {"models": ["one"], "corpus": "words"}}
    config["models"] = {"one": {"path": str(directory)}}
    config["corpora"] = {"words": USE.corpus.canonical()}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(OutlierFeaturesError) as raised:
        commands.main(["plan"])
    return [*said, str(raised.value)]


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_configuration_that_cannot_be_measured_is_refused_in_one_line(
    llama: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    described, told = CONFIGURATIONS[kind]
    (llama / "config.json").write_text(json.dumps(described))
    for said in refusals(llama, monkeypatch):
        assert re.search(told, said)
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("content", ["[]", "{", '"llama"', ""])
def test_a_config_json_that_is_no_object_is_refused_in_one_line(
    llama: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (llama / "config.json").write_text(content)
    for said in refusals(llama, monkeypatch):
        assert said.startswith(f"{llama}: config.json is no JSON")
        assert len(said.splitlines()) == 1


def of_next_year(path: Path) -> None:
    content = json.loads(path.read_text())
    content["model"]["type"] = "OfNextYear"
    path.write_text(json.dumps(content))


TOKENIZERS: dict[str, tuple[Any, str]] = {
    "later version": (
        of_next_year,
        r"its tokenizer.json cannot be read by tokenizers [\d.]+ \(Exception: data did not",
    ),
    "cut": (lambda path: path.write_text(path.read_text()[:500]), "its tokenizer.json cannot be read by tokenizers"),
    "no object": (lambda path: path.write_text("[]"), "its tokenizer.json cannot be read by tokenizers"),
    "missing": (lambda path: path.unlink(), "has no tokenizer.json, and no other file that transformers makes"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_a_tokenizer_that_cannot_be_used_is_refused_in_one_line(
    llama: Path, kind: str, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, told = TOKENIZERS[kind]
    damage(llama / "tokenizer.json")
    described = json.loads((llama / "config.json").read_text()) | {"model_type": model_type, "architectures": None}
    (llama / "config.json").write_text(json.dumps(described))
    (llama / "tokenizer_config.json").unlink()
    for said in refusals(llama, monkeypatch):
        assert re.search(told, said)
        assert len(said.splitlines()) == 1


def test_a_corpus_that_wants_a_bos_token_is_refused_where_there_is_none(llama: Path, tmp_path: Path) -> None:
    corpus = Corpus(path="text.txt", sequences=2, length=32, bos="always")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = json.loads((llama / name).read_text())
        content.pop("bos_token", None)
        (llama / name).write_text(json.dumps(content))
    with pytest.raises(OutlierFeaturesError, match="bos is always, but this tokenizer has no BOS token"):
        fetch(Model(path=str(llama)), tmp_path / "out", LINEAGE, Use(corpus=corpus))


def test_a_site_that_is_not_captured_need_not_be_found(llama: Path) -> None:
    described = {"model_type": "nemotron_h"}
    (llama / "config.json").write_text(json.dumps(described))
    with pytest.raises(OutlierFeaturesError, match=r"leave mlp_in out of capture\.sites"):
        admit(llama, llama, Use(sites=("mlp_in",)))
    assert admit(llama, llama, Use(sites=("residual",))).architecture == "NemotronHForCausalLM"


def test_sizes_that_differ_between_blocks_count_as_the_largest(llama: Path) -> None:
    described = {"model_type": "gemma4_text", "head_dim": 64, "global_head_dim": 128}
    (llama / "config.json").write_text(json.dumps(described))
    assert admit(llama, llama, Use()).head_channels == 128


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
