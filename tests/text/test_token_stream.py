"""Long documents: read in pieces, they have the windows of the whole, and no more is read than those windows need."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from long_texts import CUT, SPEECHES, WHOLE, hard_text
from naive_windows import naive_windows
from outlier_features.config.entries import Corpus
from outlier_features.errors import SourceError
from outlier_features.text import token_stream
from outlier_features.text.expressions import Expression, UnknownSyntax
from outlier_features.text.token_stream import Encoder, tokens
from outlier_features.text.tokenize import tokenize
from outlier_features.text.windows import TokenWindows, read_windows
from small_tokenizers import LINEAGE
from small_tokenizers import save_checkpoint as save_tokenizer
from tokenizers import Tokenizer
from transformers import AutoTokenizer

PROSE = "\n".join(SPEECHES)


class Tokenizers(dict[str, Tokenizer]):
    """The tokenizers by name, each trained when it is first asked for."""

    def __missing__(self, name: str) -> Tokenizer:
        return self.setdefault(name, (CUT | WHOLE)[name]())


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return Tokenizers()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut texts of a few thousand characters as those of many thousand are."""
    monkeypatch.setattr(token_stream, "PIECE", 900)
    monkeypatch.setattr(token_stream, "OVERLAP", 60)


def encoder(tokenizer: Tokenizer) -> Encoder:
    return Encoder(SimpleNamespace(backend_tokenizer=tokenizer), "model")


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(f"{text}\n\n", add_special_tokens=False).ids


def whole_widths(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the UTF-8 bytes by which each token of the whole text goes further than all before."""
    untrimmed = Tokenizer.from_str(tokenizer.to_str())
    untrimmed.post_processor = None
    widths, furthest = [], 0
    for _, end in untrimmed.encode(text, add_special_tokens=False).offsets:
        widths.append(len(text[furthest : max(furthest, end)].encode()))
        furthest = max(furthest, end)
    return widths


@pytest.mark.parametrize("name", [*CUT, *WHOLE])
def test_the_tokens_of_pieces_are_those_of_the_whole(name, tokenizers, small_pieces) -> None:
    for seed in range(6):
        text = hard_text(seed)
        ids, widths = zip(*tokens([[text]], encoder(tokenizers[name])), strict=True)
        assert list(ids) == whole(tokenizers[name], text), seed
        assert list(widths) == whole_widths(tokenizers[name], f"{text}\n\n"), seed


class Read:
    """A text that says how much of it has been taken."""

    def __init__(self, text: str) -> None:
        self.text, self.taken = text, 0

    def pieces(self) -> Iterator[str]:
        for start in range(0, len(self.text), 500):
            self.taken = start + 500
            yield self.text[start : start + 500]


@pytest.mark.parametrize("name", CUT)
def test_tokens_at_the_start_are_those_of_the_whole_and_take_the_start_only(name, tokenizers, small_pieces) -> None:
    read = Read(PROSE)
    stream = tokens([read.pieces()], encoder(tokenizers[name]))
    found = [next(stream)[0] for _ in range(400)]
    assert found == whole(tokenizers[name], PROSE)[:400]
    assert read.taken < len(PROSE) / 20


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_cut_is_taken_whole_and_says_so_where_it_is_large(
    name, tokenizers, small_pieces, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(token_stream, "LARGE", 2_000)
    monkeypatch.setattr(token_stream, "LARGEST", 5_000)
    one = encoder(tokenizers[name])
    assert [token for token, _ in tokens([[PROSE[:4_000]]], one)] == whole(tokenizers[name], PROSE[:4_000])
    assert "model: has to encode a document in one piece, because" in capsys.readouterr().out
    with pytest.raises(SourceError, match=r"in one piece, because .* more than 5,000 characters; divide it"):
        list(tokens([[PROSE]], one))


@pytest.mark.parametrize("name", ["bytes", "numbers in threes", "pieces", "unigram", "word piece"])
def test_a_text_without_a_place_to_cut_grows_to_the_whole(name, tokenizers, small_pieces) -> None:
    for run in (" " * 5_000, "a" * 5_000, "ab" * 2_500, "7" * 5_000):
        text = f"One, two {run} three."
        assert [token for token, _ in tokens([[text]], encoder(tokenizers[name]))] == whole(tokenizers[name], text)


def windows(checkpoint: Path, folder: Path, text: str, **corpus: Any) -> TokenWindows:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    tokenize(checkpoint, Corpus(path=str(folder / "text.txt"), **corpus), folder / "out.arrow", LINEAGE)
    return read_windows(folder / "out.arrow")


@pytest.mark.parametrize("name", ["bytes", "numbers in threes", "pieces", "unigram", "word piece"])
def test_packed_windows_of_a_long_text_hold_the_tokens_of_the_whole(name, tokenizers, small_pieces, tmp_path) -> None:
    checkpoint = save_tokenizer(tmp_path / "model", tokenizers[name], bos_token="<s>")
    text = hard_text(7, 40_000)
    found = windows(checkpoint, tmp_path, text, sequences=40, length=100)
    assert found.ids_ST.flatten().tolist() == whole(tokenizers[name], text)[:4000]


@pytest.mark.parametrize("name", ["bytes", "numbers in threes", "pieces", "unigram", "word piece"])
def test_windows_of_2025_of_a_long_text_are_those_of_the_whole(name, tokenizers, tmp_path, monkeypatch) -> None:
    checkpoint = save_tokenizer(tmp_path / "model", tokenizers[name], bos_token="<s>")
    text, asked = f"{hard_text(3, 2_000)} {PROSE}", []
    read = Encoder.encode

    def encode(self: Encoder, text: str) -> Any:
        asked.append(len(text))
        return read(self, text)

    monkeypatch.setattr(Encoder, "encode", encode)
    found = windows(checkpoint, tmp_path, text, sequences=5, length=64, windows="arb8020")
    assert max(asked) < len(text) / 4
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    expected = [tokenizer.encode(each) for each in naive_windows(checkpoint, [text[: len(text) // 4]], 5, 64)]
    assert [found.ids(window).tolist() for window in range(5)] == expected


@pytest.mark.parametrize(
    "pattern", ["(a|b)*", r"(?<!a)b", r"(a)\1", r"(?<name>a)", r"\K", "a{2}+", "(ab){1,3}", r"[a[b]", "(?m:.)"]
)
def test_an_expression_that_can_look_anywhere_is_not_taken_apart(pattern) -> None:
    with pytest.raises(UnknownSyntax):
        Expression(pattern)


def test_an_expression_reaches_past_as_many_runs_as_it_has_classes() -> None:
    text = "aaa bbb ccc ddd eee fff ggg hhh iii jjj"
    reached = Expression(r" ?[a-z]+|\s+(?!\S)").reach(text, 4)
    assert reached is not None
    assert reached > text.index(" ccc")
    assert Expression(r" ?[a-z]+").reach("x" * 100, 4) is None
    assert Expression("ab").reach("x" * 100, 4) == 4 + 2 + 1
