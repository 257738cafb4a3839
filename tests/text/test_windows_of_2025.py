"""The windows of the 2025 sweep are cut as their definition is written."""

# Shapes: N tensor, S sequence, T position, C channel.

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import CONTEXT, DOCUMENTS, byte_level_tokenizer, naive_windows
from corpora import save_checkpoint as save_tokenizer
from outlier_features.capture.run import capture
from outlier_features.config.entries import Corpus
from outlier_features.errors import ConfigError, SourceError
from outlier_features.metrics.perplexity import perplexity
from outlier_features.statistics.shards import Statistics
from outlier_features.text.tokenize import tokenize
from outlier_features.text.windows import TokenWindows, read_windows
from small_models import DENSE, capture_settings, save_checkpoint
from tokenizers import Tokenizer, decoders
from transformers import AutoModelForCausalLM, AutoTokenizer

LINEAGE = {"tokens": "test"}
TEXTS = [*DOCUMENTS, "Short.", "", "A text that names <s>, a special token.", DOCUMENTS[0] * 3, *DOCUMENTS[::-1]] * 2
PLAIN = [text for text in TEXTS if text.isascii() and "<s>" not in text] * 2
LENGTH = 24


def trimming_tokenizer() -> Tokenizer:
    """Return a tokenizer that drops the space before a text when it decodes, as those made by SentencePiece do."""
    tokenizer = byte_level_tokenizer()
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return tokenizer


CHECKPOINTS = {
    "plain": (byte_level_tokenizer, {}),
    "bos": (lambda: byte_level_tokenizer(bos_by_default=True), {}),
    "short": (byte_level_tokenizer, {"model_max_length": 15}),
    "trimming": (trimming_tokenizer, {}),
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    return {
        name: save_tokenizer(root / name, build(), bos_token="<s>", **settings)
        for name, (build, settings) in CHECKPOINTS.items()
    }


def windows(checkpoint: Path, folder: Path, texts: list[str], **cut: int) -> TokenWindows:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    tokenize(checkpoint, Corpus(path=str(path), windows="arb8020", **cut), folder / "out.arrow", LINEAGE)
    return read_windows(folder / "out.arrow", LINEAGE["tokens"])


@pytest.mark.parametrize("length", [4, 9, LENGTH])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_windows_are_those_of_the_definition(name: str, length: int, tokenizers, tmp_path) -> None:
    checkpoint = tokenizers[name]
    found = windows(checkpoint, tmp_path, TEXTS[2:], sequences=30, length=length)
    texts = naive_windows(checkpoint, TEXTS[2:], 30, length)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert [found.ids(window).tolist() for window in range(30)] == [tokenizer.encode(text) for text in texts]
    assert found.bytes_ST.sum(1).tolist() == [len(text.encode()) for text in texts]
    assert found.scored_from_S.tolist() == [1] * 30
    window = min(length, tokenizer.model_max_length)
    assert found.cut == {"window": window, "stride": window // 2, "bos": name == "bos", "windows": "arb8020"}


def test_lengths_differ_where_a_cut_changes_tokens_and_padding_is_no_token(tokenizers, tmp_path) -> None:
    found = windows(tokenizers["bos"], tmp_path, TEXTS, sequences=40, length=LENGTH)
    assert found.lengths.max() == found.ids_ST.shape[1]
    assert len(set(found.lengths.tolist())) > 2
    beyond_ST = np.arange(found.ids_ST.shape[1]) >= found.lengths[:, None]
    assert (found.ids_ST[beyond_ST] == -1).all()
    assert (found.ids_ST[~beyond_ST] >= 0).all()
    assert (found.bytes_ST[beyond_ST] == 0).all()


@pytest.mark.parametrize(("name", "length"), [("plain", 24), ("plain", 25), ("bos", 24), ("short", 15)])
def test_consecutive_windows_overlap_by_half(name: str, length: int, tokenizers, tmp_path) -> None:
    found = windows(tokenizers[name], tmp_path, PLAIN, sequences=12, length=length if name != "short" else 99)
    tokenizer = AutoTokenizer.from_pretrained(tokenizers[name])
    whole, start = "".join(f" {text}" for text in PLAIN), 0
    for window in range(12):
        ids = found.ids(window)[int(found.cut["bos"]) :]
        assert whole[start:].startswith(tokenizer.decode(ids))
        start += len(tokenizer.decode(ids[: length // 2]))


def test_no_more_text_is_read_than_the_windows_take(tokenizers, tmp_path) -> None:
    some = windows(tokenizers["plain"], tmp_path, TEXTS, sequences=3, length=LENGTH)
    path = tmp_path / "texts.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], "not JSON"]), encoding="utf-8")
    corpus = Corpus(path=str(path), windows="arb8020", sequences=3, length=LENGTH)
    tokenize(tokenizers["plain"], corpus, tmp_path / "again", LINEAGE)
    np.testing.assert_array_equal(read_windows(tmp_path / "again").ids_ST, some.ids_ST)


def test_a_text_that_is_too_short_says_how_many_windows_it_fills(tokenizers, tmp_path) -> None:
    filled = len(naive_windows(tokenizers["short"], PLAIN, 10_000, 15))
    assert len(windows(tokenizers["short"], tmp_path, PLAIN, sequences=filled, length=99).ids_ST) == filled
    with pytest.raises(SourceError, match=f"fills {filled} windows of 15 tokens where {filled + 1} are asked"):
        windows(tokenizers["short"], tmp_path, PLAIN, sequences=filled + 1, length=99)


def test_a_window_of_special_tokens_only_has_nothing_to_predict(tokenizers, tmp_path) -> None:
    with pytest.raises(SourceError, match=r"window 0 of the corpus.*nothing to predict"):
        windows(tokenizers["plain"], tmp_path, ["<s>" * 9], sequences=1, length=4)


def test_a_window_that_outgrows_the_context_when_encoded_anew_is_refused(tokenizers, tmp_path) -> None:
    assert windows(tokenizers["bos"], tmp_path, PLAIN, sequences=1, length=CONTEXT - 1).lengths == [CONTEXT]
    with pytest.raises(ConfigError, match=f"a window of {CONTEXT + 1} tokens is longer than the context"):
        windows(tokenizers["bos"], tmp_path, PLAIN, sequences=1, length=CONTEXT)


def test_from_text_to_perplexity(tokenizers, tmp_path) -> None:
    found = windows(tokenizers["bos"], tmp_path, TEXTS, sequences=6, length=LENGTH)
    checkpoint = save_checkpoint(tmp_path / "model", DENSE | {"vocab_size": 330})
    capture(checkpoint, tmp_path / "out.arrow", tmp_path / "x.json", capture_settings(), {"statistics": "test"})
    statistics = Statistics([tmp_path / "x.json"])
    assert statistics.facts["positions_per_window"] == found.lengths.tolist()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    losses, tokens = [], []
    for window in range(6):
        ids = torch.from_numpy(found.ids(window)[:LENGTH]).long()[None]
        with torch.inference_mode():
            losses.append(float(model(ids, labels=ids).loss))
        tokens.append(ids.shape[1])
    quality = perplexity(statistics.losses(), found, statistics.facts["windows"])
    assert quality["loss"] == pytest.approx(np.average(losses, weights=tokens), rel=1e-5)
    assert quality["tokens"] == sum(tokens) - 6
