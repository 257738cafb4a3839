"""Tokenize: texts become windows of equal length; every byte and every prediction is counted once."""

# Shapes: S sequence (window), T position.

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import DOCUMENTS, LINEAGE, byte_level_tokenizer, save_checkpoint, stream, tokens_of, windows
from outlier_features.config.entries import Corpus
from outlier_features.errors import ConfigError, OutlierFeaturesError, SourceError
from outlier_features.text.tokenize import tokenize
from tokenizers import processors
from transformers import AutoTokenizer


def test_windows_have_equal_length_and_hold_consecutive_tokens_of_the_stream(
    checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    found = windows(checkpoint, tmp_path / "out.arrow", path=str(text), sequences=5, length=16)
    assert found.ids_ST.shape == found.bytes_ST.shape == (5, 16)
    assert found.ids_ST.flatten().tolist() == stream(checkpoint)[:80]
    assert found.scored_from_S.tolist() == [1] * 5
    assert found.cut == {"window": 16, "stride": 16, "bos": False}


@pytest.mark.parametrize("stride", [1, 3, 7, 8])
def test_overlapping_windows_score_each_token_once(checkpoint: Path, text: Path, stride: int, tmp_path: Path) -> None:
    found = windows(checkpoint, tmp_path / "out", path=str(text), sequences=12, length=8, stride=stride)
    tokens = stream(checkpoint)
    scored: list[int] = []
    for index, (ids, first) in enumerate(zip(found.ids_ST, found.scored_from_S, strict=True)):
        start = index * stride
        assert ids.tolist() == tokens[start : start + 8]
        scored += range(start + first, start + 8)
    # without overlap the first token of each window has nothing to be predicted from
    lost = range(0, 96, 8) if stride == 8 else [0]
    assert scored == [position for position in range(11 * stride + 8) if position not in lost]


@pytest.mark.parametrize("stride", [1, 3, 7, None])
def test_with_a_bos_every_token_of_the_text_is_scored_once(
    checkpoint: Path, text: Path, stride: int | None, tmp_path: Path
) -> None:
    found = windows(checkpoint, tmp_path / "out", path=str(text), sequences=12, length=8, stride=stride, bos="always")
    tokens, step = stream(checkpoint), stride or 7
    scored: list[int] = []
    assert found.cut == {"window": 8, "stride": step, "bos": True}
    for index, (ids, first) in enumerate(zip(found.ids_ST, found.scored_from_S, strict=True)):
        start = index * step
        assert ids.tolist() == [tokens_of(checkpoint)["<s>"], *tokens[start : start + 7]]
        scored += range(start + first - 1, start + 7)
    assert scored == list(range(11 * step + 7))


@pytest.mark.parametrize(
    ("adds_bos", "wish", "expected"),
    [
        (False, "auto", False),
        (True, "auto", True),
        (False, "always", True),
        (True, "always", True),
        (False, "never", False),
        (True, "never", False),
    ],
)
def test_a_bos_starts_each_window_if_wished_or_if_it_does_by_default(
    checkpoint: Path, checkpoint_with_bos: Path, text: Path, adds_bos: bool, wish: str, expected: bool, tmp_path: Path
) -> None:
    chosen = checkpoint_with_bos if adds_bos else checkpoint
    found = windows(chosen, tmp_path / "out", path=str(text), sequences=3, length=8, bos=wish)
    bos = tokens_of(chosen)["<s>"]
    assert found.cut["bos"] is expected
    assert (found.ids_ST[:, 0] == bos).tolist() == [expected] * 3
    assert bos not in found.ids_ST[:, 1:]
    if expected:
        assert found.bytes_ST[:, 0].tolist() == [0, 0, 0]


def test_a_bos_that_the_tokenizer_does_not_have_is_refused(text: Path, tmp_path: Path) -> None:
    without = save_checkpoint(tmp_path / "without", byte_level_tokenizer())
    with pytest.raises(ConfigError, match="no BOS token; use auto or never"):
        tokenize(without, Corpus(path=str(text), sequences=1, length=8, bos="always"), tmp_path / "out", LINEAGE)


def test_every_kind_of_file_gives_the_same_windows(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    parquet = tmp_path / "text.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "body": DOCUMENTS}), parquet)
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name, document in zip(["a.txt", "deep/b.txt", "deep/c.txt"], DOCUMENTS, strict=True):
        (folder / name).write_text(document, encoding="utf-8")
    (folder / "ignored.md").write_text("Not this.", encoding="utf-8")
    cut: dict[str, Any] = {"sequences": 4, "length": 16}
    others: list[dict[str, Any]] = [
        {"path": str(parquet), "column": "body"},
        {"path": str(folder), "files": ["deep/*.txt", "a.*", "deep/b*"]},
    ]
    expected = windows(checkpoint, tmp_path / "expected", path=str(text), **cut)
    for other in others:
        found = windows(checkpoint, tmp_path / "found", **other, **cut)
        np.testing.assert_array_equal(found.ids_ST, expected.ids_ST)
        np.testing.assert_array_equal(found.bytes_ST, expected.bytes_ST)


@pytest.mark.parametrize(("length", "bos"), [(8, "never"), (16, "never"), (16, "always")])
def test_a_text_that_is_too_short_says_how_many_windows_it_fills(
    checkpoint: Path, text: Path, length: int, bos: str, tmp_path: Path
) -> None:
    filled = len(stream(checkpoint)) // (length - (bos == "always"))
    cut = {"path": str(text), "length": length, "bos": bos}
    assert len(windows(checkpoint, tmp_path / "enough", **cut, sequences=filled).ids_ST) == filled
    with pytest.raises(SourceError, match=f"it fills {filled} windows of {length} tokens where {filled + 1} are asked"):
        windows(checkpoint, tmp_path / "out", **cut, sequences=filled + 1)


@pytest.mark.parametrize("name", ["empty.txt", "empty.jsonl"])
def test_an_empty_file_fills_no_window(checkpoint: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(SourceError, match="it does not fill one window of"):
        windows(checkpoint, tmp_path / "out", path=str(tmp_path / name), sequences=1, length=8)


def unreadable(tmp_path: Path) -> dict[str, Path]:
    """Return files from which no text can be read, by what is wrong with them."""
    contents: dict[str, tuple[str, bytes]] = {
        "no such column": ("jsonl", b'{"body": "text"}\n'),
        "no text in a row": ("jsonl", b'{"text": "one"}\n{"text": null}\n'),
        "a number in a row": ("jsonl", b'{"text": 7}\n'),
        "a row that is no mapping": ("jsonl", b'["one"]\n'),
        "a cut row": ("jsonl", b'{"text": "one"}\n{"text": "tw'),
        "not UTF-8": ("txt", b"caf\xe9"),
        "not parquet": ("parquet", b"PAR1 but not really PAR1"),
    }
    paths = {fault: tmp_path / f"{fault.replace(' ', '-')}.{suffix}" for fault, (suffix, _) in contents.items()}
    for fault, (_, content) in contents.items():
        paths[fault].write_bytes(content)
    for fault, table in {
        "no such parquet column": pa.table({"body": ["text"]}),
        "no text in a parquet row": pa.table({"text": ["one", None]}),
    }.items():
        paths[fault] = tmp_path / f"{fault.replace(' ', '-')}.parquet"
        pq.write_table(table, paths[fault])
    return paths


@pytest.mark.parametrize(
    "fault",
    [
        "no such column",
        "no text in a row",
        "a number in a row",
        "a row that is no mapping",
        "a cut row",
        "not UTF-8",
        "not parquet",
        "no such parquet column",
        "no text in a parquet row",
    ],
)
def test_a_file_without_text_is_refused_by_name(checkpoint: Path, fault: str, tmp_path: Path) -> None:
    path = unreadable(tmp_path)[fault]
    with pytest.raises(SourceError, match=re.escape(str(path))) as raised:
        windows(checkpoint, tmp_path / "out", path=str(path), sequences=9, length=4)
    assert len(str(raised.value).splitlines()) == 1


def test_a_checkpoint_without_tokenizer_is_named(text: Path, tmp_path: Path) -> None:
    with pytest.raises(OutlierFeaturesError, match=re.escape(str(tmp_path / "none"))):
        windows(tmp_path / "none", tmp_path / "out", path=str(text), sequences=1, length=8)


def test_a_tokenizer_larger_than_the_embedding_is_refused_by_both_sizes(
    checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    described = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(described | {"vocab_size": 50}))
    with pytest.raises(ConfigError, match=r"its tokenizer has \d+ tokens, its embedding 50 rows, and the text holds"):
        windows(tmp_path / "model", tmp_path / "out", path=str(text), sequences=1, length=8)


TEMPLATES = {
    "bos": ("<s> $A", ["<s>"]),
    "bos twice": ("<s> <s> $A", ["<s>", "<s>"]),
    "cls and sep": ("[CLS] $A [SEP]", ["[CLS]"]),
    "a language behind bos": ("<s> [EN] $A [SEP]", ["<s>", "[EN]"]),
    "only behind": ("$A [SEP]", []),
}


def templated(directory: Path, template: str) -> Path:
    """Save a tokenizer that puts special tokens around a text, but names another BOS than it puts there."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[EN]", "<other>"])
    names = [name for name in template.split() if name != "$A"]
    special = [(name, tokenizer.token_to_id(name)) for name in names]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return save_checkpoint(directory, tokenizer, bos_token="<other>")


@pytest.mark.parametrize("name", TEMPLATES)
def test_auto_puts_before_a_window_what_the_tokenizer_puts_before_a_text(name: str, text: Path, tmp_path: Path) -> None:
    template, expected = TEMPLATES[name]
    chosen = templated(tmp_path / "model", template)
    found = windows(chosen, tmp_path / "out", path=str(text), sequences=4, length=8)
    prefix = [tokens_of(chosen)[token] for token in expected]
    first = AutoTokenizer.from_pretrained(chosen)("Any text.")["input_ids"][: len(prefix)]
    assert found.ids_ST[:, : len(prefix)].tolist() == [prefix] * 4 == [first] * 4
    assert found.ids_ST[:, len(prefix) :].flatten().tolist() == stream(chosen)[: 4 * (8 - len(prefix))]
    assert found.bytes_ST[:, : len(prefix)].sum() == 0
    assert found.scored_from_S.tolist() == [max(1, len(prefix))] * 4
    assert found.cut == {"window": 8, "stride": 8 - len(prefix), "bos": bool(prefix)} | (
        {"prefix": expected} if expected else {}
    )


def test_always_takes_the_bos_that_the_tokenizer_names(text: Path, tmp_path: Path) -> None:
    chosen = templated(tmp_path / "model", "[CLS] $A [SEP]")
    found = windows(chosen, tmp_path / "out", path=str(text), sequences=2, length=8, bos="always")
    assert found.ids_ST[:, 0].tolist() == [tokens_of(chosen)["<other>"]] * 2


@pytest.mark.parametrize("stride", [2, 4])
def test_behind_a_prefix_of_two_every_token_of_the_text_is_scored_once(stride: int, text: Path, tmp_path: Path) -> None:
    chosen = templated(tmp_path / "model", "<s> [EN] $A")
    found = windows(chosen, tmp_path / "out", path=str(text), sequences=10, length=8, stride=stride)
    scored = [
        index * stride + position - 2 for index, first in enumerate(found.scored_from_S) for position in range(first, 8)
    ]
    assert scored == list(range(9 * stride + 6))


def test_a_prefix_that_fills_the_window_is_refused(text: Path, tmp_path: Path) -> None:
    chosen = templated(tmp_path / "model", "<s> [EN] [CLS] $A")
    with pytest.raises(ConfigError, match=r"length 3 leaves no room .* 3 tokens .*<s> \[EN\] \[CLS\].*greater length"):
        windows(chosen, tmp_path / "out", path=str(text), sequences=1, length=3)
