"""Tokenize: a corpus becomes windows of token ids for the tokenizer of a model."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from outlier_features.artefacts import provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.config.entries import Corpus
from outlier_features.errors import ConfigError, SourceError
from outlier_features.models import checkpoint_code
from outlier_features.text import context, documents, windows_of_2025
from outlier_features.text.token_stream import Encoder, tokens
from outlier_features.text.windows import too_short, write_windows

PROBES = ("a", "The state of the Union.", "12 34\n")
"""Texts whose encoding shows what a tokenizer puts before any text."""


def tokenize(checkpoint: Path, corpus: Corpus, output: Path, lineage: Lineage) -> None:
    """Cut a corpus into windows for the tokenizer of `checkpoint` and write them to `output`.

    Raises SourceError if the text is too short, and ConfigError if a window exceeds the model's context or holds a
    token that the model has no embedding for.
    """
    tokenizer, settings = _opened(checkpoint)
    prefix = _prefix(corpus, tokenizer)
    cut = _cut(corpus, tokenizer, prefix)
    _check_context(cut["window"], settings, checkpoint)
    encoder = Encoder(tokenizer, checkpoint.name)
    texts = documents.in_pieces(corpus)
    if corpus.windows == "arb8020":
        rows = windows_of_2025.rows(texts, tokenizer, encoder, corpus.sequences, cut["window"])
    else:
        rows = _pack(tokens(texts, encoder), corpus.sequences, cut["window"], cut["stride"], prefix)
    _check_context(max(len(row["token_ids"]) for row in rows), settings, checkpoint)
    _check_vocabulary(max(max(row["token_ids"]) for row in rows), tokenizer, settings, checkpoint)
    origin = provenance.record(lineage, model=checkpoint.name, cut=cut, text=corpus.canonical())
    write_windows(output, rows, origin)


def calibrate(checkpoint: Path, corpus: Corpus, windows: int, output: Path, lineage: Lineage) -> None:
    """Cut the first so many windows of a corpus' training text, as `tokenize` cuts what is measured."""
    text = corpus.model_copy(update={"files": corpus.training, "training": (), "sequences": windows})
    tokenize(checkpoint, text, output, lineage)


def require_tokenizer(directory: Path, corpus: Corpus | None, where: object) -> None:
    """Raise SourceError or ConfigError where the tokenizer in `directory` cannot cut a corpus; no text is read."""
    tokenizer, settings = _opened(directory, where)
    if corpus is not None:
        cut = _cut(corpus, tokenizer, _prefix(corpus, tokenizer))
        _check_context(cut["window"], settings, Path(str(where)))


def require_context(corpus: Corpus, settings: Any, where: object) -> None:
    """Raise ConfigError where windows are longer than the context, as far as that is known without a tokenizer."""
    if corpus.windows == "packed":
        _check_context(corpus.length, settings, Path(str(where)))


def _opened(checkpoint: Path, where: object = None) -> tuple[Any, Any]:
    """Return the tokenizer of a checkpoint, and the configuration of its text part; errors name `where`."""
    from transformers import AutoConfig, AutoTokenizer  # seconds to import; readers of windows do without

    where = where or checkpoint
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
        settings = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what a tokenizer of a later version raises is a plain Exception
        if code := checkpoint_code.asked_for(checkpoint).get("tokenizer_config.json"):
            raise SourceError(
                f"{where}: its tokenizer is code of the checkpoint ({code}), which is never run; choose a model "
                "whose tokenizer is a tokenizer.json."
            ) from error
        raise SourceError(f"{where}: {_without_tokenizer(checkpoint, error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # of some classes transformers makes one without any file
        raise SourceError(f"{where}: {_without_tokenizer(checkpoint)}")
    if not tokenizer.is_fast:
        raise SourceError(f"{where}: has only a slow tokenizer, which cannot count bytes; convert it to fast.")
    return tokenizer, settings.get_text_config()


def _without_tokenizer(checkpoint: Path, error: Exception | None = None) -> str:
    """Say why there is no tokenizer, and what to do."""
    if error is not None and (checkpoint / "tokenizer.json").is_file():
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return (
            f"its tokenizer.json cannot be read by tokenizers {metadata.version('tokenizers')} ({reason:.200}); one "
            "written by a later version needs that version, another is damaged."
        )
    return (
        "has no tokenizer.json, and no other file that transformers makes a tokenizer of; name a model that has one, "
        "or a local copy of this one with the tokenizer it was trained with."
    )


def _prefix(corpus: Corpus, tokenizer: Any) -> list[int]:
    """Return the tokens that start each window: those the tokenizer itself puts before a text, BOS, or none."""
    if corpus.bos == "never":
        return []
    by_default = default_prefix(tokenizer)
    bos = tokenizer.bos_token_id
    if corpus.bos == "auto" or bos in by_default:
        return by_default
    if bos is None and not by_default:
        raise ConfigError("corpora: bos is always, but this tokenizer has no BOS token; use auto or never.")
    return by_default if bos is None else [bos]


def default_prefix(tokenizer: Any) -> list[int]:
    """Return the tokens that a tokenizer puts before any text when it is called without options."""
    found = [_put_before(text, tokenizer) for text in PROBES]
    if any(each != found[0] for each in found):
        raise SourceError(
            f"{tokenizer.name_or_path}: its tokenizer starts texts differently ({found}); set bos to always or never."
        )
    return found[0]


def _put_before(text: str, tokenizer: Any) -> list[int]:
    whole = tokenizer(text, verbose=False)["input_ids"]
    bare = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    places = range(len(whole) - len(bare) + 1)
    return whole[: next(place for place in places if whole[place : place + len(bare)] == bare)]


def _cut(corpus: Corpus, tokenizer: Any, prefix: list[int]) -> dict[str, Any]:
    """Return how a corpus is cut for a tokenizer: window, stride, bos, and `windows` where they are those of 2025.

    `bos` says whether anything starts each window; `prefix` has what it is, where that is not the BOS token alone.
    """
    cut: dict[str, Any] = {"window": corpus.length, "bos": bool(prefix)}
    if prefix and prefix != [tokenizer.bos_token_id]:
        cut["prefix"] = tokenizer.convert_ids_to_tokens(prefix)
    if corpus.windows == "arb8020":
        length = min(corpus.length, int(tokenizer.model_max_length))
        return cut | {"window": length, "stride": length // 2, "windows": corpus.windows}
    room = corpus.length - len(prefix)
    if room < 1:
        raise ConfigError(
            f"corpora: length {corpus.length} leaves no room for text after the {len(prefix)} tokens that start each "
            f"window ({' '.join(cut.get('prefix', []))}); choose a greater length, or bos: never."
        )
    # what starts a window takes the place of text; the windows still leave no text out
    return cut | {"stride": min(corpus.stride or corpus.length, room)}


def _check_context(length: int, settings: Any, checkpoint: Path) -> None:
    longest = context.tokens(settings)
    if longest and length > longest:
        raise ConfigError(
            f"corpora: a window of {length} tokens is longer than the context of {checkpoint.name} ({longest} tokens); "
            "choose a shorter length."
        )


def _check_vocabulary(largest: int, tokenizer: Any, settings: Any, checkpoint: Path) -> None:
    if largest >= settings.vocab_size:
        raise ConfigError(
            f"{checkpoint}: its tokenizer has {len(tokenizer)} tokens, its embedding {settings.vocab_size} rows, and "
            f"the text holds token {largest}; tokenizer and model do not belong together."
        )


def _pack(
    stream: Iterator[tuple[int, int]], sequences: int, length: int, stride: int, prefix: list[int]
) -> list[Mapping[str, Any]]:
    """Cut a stream of tokens into windows of equal length. Raises SourceError if it does not fill them."""
    room, start = length - len(prefix), [(token, 0) for token in prefix]
    window = list(islice(stream, room))
    rows: list[Mapping[str, Any]] = []
    for index in tqdm(range(sequences), desc="packing windows", unit="window"):
        if len(window) < room:
            raise too_short(index, length, sequences)
        ids, widths = zip(*start, *window, strict=True)
        scored_from = max(1, len(prefix), 0 if index == 0 else length - stride)
        rows.append({"window": index, "token_ids": ids, "token_bytes": widths, "scored_from": scored_from})
        if index + 1 < sequences:
            window = window[stride:] + list(islice(stream, stride))
    return rows
