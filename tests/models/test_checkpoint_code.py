"""Code of a checkpoint: it is never run, nobody is asked whether it may, and a line says what is used instead."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from families import FAMILIES, save_family
from outlier_features.models.checkpoint_code import asked_for

REPOSITORY = Path(__file__).parents[2]
LIBRARY = REPOSITORY / "workflow"
LOADERS = ("from_pretrained", "from_config")

RUN = """
import sys
from pathlib import Path
import torch
from outlier_features.config.config import Corpus, Model
from outlier_features.text.tokenize import tokenize
from outlier_features.machine.logs import one_line_errors
from outlier_features.sources.fetch import fetch
from outlier_features.models.weights import Weights
source, output, text = map(Path, sys.argv[1:])
with one_line_errors():
    fetch(Model(path=str(source)), output, {"checkpoint": "a"})
    tokenize(output, Corpus(path=str(text), sequences=2, length=8), output / "windows.arrow", {"tokens": "a"})
    Weights(output, torch.float32, torch.device("cpu"))
"""

CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import PreTrainedConfig, PreTrainedTokenizerFast, LlamaForCausalLM
class OwnConfig(PreTrainedConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    pass
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def calls() -> list[tuple[str, ast.Call]]:
    """Return every call in the library and its scripts by which transformers makes something of a checkpoint."""
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS:
                found.append((f"{path.relative_to(REPOSITORY)}:{node.lineno}", node))
    return found


def forbids_code(call: ast.Call) -> bool:
    told = {keyword.arg: keyword.value for keyword in call.keywords}
    value = told.get("trust_remote_code")
    return isinstance(value, ast.Constant) and value.value is False


def test_every_call_that_loads_something_forbids_code() -> None:
    assert len(calls()) >= 8
    assert [place for place, call in calls() if not forbids_code(call)] == []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model whose config.json and tokenizer_config.json ask for code that leaves a mark where it is run."""
    directory = save_family(FAMILIES["llama"], tmp_path / "source")
    (directory / "own.py").write_text(CODE.format(marker=str(tmp_path / "mark")))
    change(directory / "config.json", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"})
    change(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]})
    (tmp_path / "text.txt").write_text("the outlier features of a language model live in few channels " * 9)
    return directory


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def run(source: Path) -> subprocess.CompletedProcess[str]:
    """Fetch, tokenise and open a model with somebody at the keyboard who says yes to everything."""
    folder = source.parent
    return subprocess.run(
        [sys.executable, "-c", RUN, source, folder / "out", folder / "text.txt"],
        env=os.environ | {"PYTHONPATH": str(LIBRARY), "HF_HOME": str(folder / "home")},
        input="y\n" * 100,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_model_that_transformers_knows_goes_on_without_its_code_and_a_line_says_so(source: Path) -> None:
    ended = run(source)
    assert ended.returncode == 0
    assert not (source.parent / "mark").exists()
    assert "[y/N]" not in ended.stdout + ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("note:")] == [
        f"note: {source}: auto_map of config.json and tokenizer_config.json wants code of the checkpoint "
        "(own.OwnConfig, own.OwnModel, own.OwnTokenizer), which is never run; transformers' own LlamaForCausalLM and "
        "tokenizer are used instead"
    ]
    assert not list((source.parent / "out").rglob("*.py"))


def test_a_model_that_is_only_code_is_refused_without_a_question(source: Path) -> None:
    change(source / "config.json", model_type="own", architectures=["OwnModel"])
    ended = run(source)
    assert ended.returncode == 1
    assert not (source.parent / "mark").exists()
    assert ended.stdout == ""
    *_, line = ended.stderr.splitlines()
    assert line == (
        f"error: {source}: the model is code of the checkpoint (own.OwnConfig, own.OwnModel), which is never run, and "
        "transformers has no own of its own; choose a model that it has."
    )


def test_attention_of_the_hub_is_code_too(source: Path) -> None:
    change(source / "config.json", auto_map=None, attn_implementation="somebody/attention")
    ended = run(source)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"error: {source}: attn_implementation of config.json asks for code of the hub (somebody/attention), which is "
        "never run."
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"auto_map": {"AutoTokenizer": [null, "own.Fast"]}}', {"config.json": "own.Fast"}),
        ('{"auto_map": ["own.Slow", null]}', {"config.json": "own.Slow"}),
        ('{"auto_map": null}', {}),
        ("[]", {}),
        ("{", {}),
    ],
)
def test_what_a_checkpoint_asks_for_is_found_in_each_form(tmp_path: Path, content: str, found: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(content)
    assert asked_for(tmp_path) == found
