"""Corpora: text from a package, from local files or from the hub, cut into windows of token ids."""

# Shapes: S sequence (window), T position.

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from outlier_features import atomic, checkpoint_code, provenance, ragged, text_files
from outlier_features.config import Corpus
from outlier_features.errors import ConfigError, DamagedFile, SourceError
from outlier_features.lineage import Lineage

SEPARATOR = "\n\n"
"""Joins the documents of a corpus."""

NO_TOKEN = -1
"""Stands after the end of a window that is shorter than the longest."""

SCHEMA = pa.schema(
    [
        ("window", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("token_bytes", pa.list_(pa.int32())),
        ("scored_from", pa.int32()),
    ]
)
"""One row a window. `token_bytes` are the UTF-8 bytes each token adds to the text; tokens from `scored_from` on are
predicted in this window and in no earlier one."""


@dataclass(frozen=True)
class TokenWindows:
    """Windows of one corpus for one tokenizer: packed ones are equally long, those of 2025 nearly so."""

    ids_ST: np.ndarray
    """Token ids; NO_TOKEN after the end of a window shorter than the longest, so that no model takes it for a token."""
    bytes_ST: np.ndarray
    scored_from_S: np.ndarray
    provenance: provenance.Provenance

    @property
    def cut(self) -> dict[str, Any]:
        """How the text was cut: window, stride, bos; and windows, where they are not packed."""
        return self.provenance["cut"]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each window (S,)."""
        return (self.ids_ST != NO_TOKEN).sum(1)

    def ids(self, window: int) -> np.ndarray:
        """Return the token ids of one window, as many as it has (T,)."""
        return self.ids_ST[window, : self.lengths[window]]


def documents(corpus: Corpus, part: text_files.Part = "files") -> Iterator[str]:
    """Yield the texts of one part of a corpus, in a fixed order. Raises SourceError if there is none to be had."""
    if corpus.hub is not None:
        yield from _from_hub(corpus)
        return
    for path in text_files.paths(corpus, part):
        yield from _from_file(path, corpus.column)


def tokenize(checkpoint: Path, corpus: Corpus, output: Path, lineage: Lineage) -> None:
    """Cut a corpus into windows for the tokenizer of `checkpoint` and write them to `output`.

    Raises SourceError if the text is too short, and ConfigError if a window exceeds the model's context or holds a
    token that the model has no embedding for.
    """
    tokenizer, settings = _opened(checkpoint)
    cut = _cut(corpus, tokenizer)
    _check_context(cut["window"], settings, checkpoint)
    if corpus.windows == "arb8020":
        texts = _overlapping(documents(corpus), tokenizer, cut["window"])
        rows = _encode_anew(texts, tokenizer, corpus.sequences, cut["window"])
    else:
        bos = tokenizer.bos_token_id if cut["bos"] else None
        encoded = _encoded(documents(corpus), tokenizer)
        rows = _pack(encoded, corpus.sequences, cut["window"], cut["stride"], bos)
    _check_context(max(len(row["token_ids"]) for row in rows), settings, checkpoint)
    _check_vocabulary(max(max(row["token_ids"]) for row in rows), tokenizer, settings, checkpoint)
    origin = provenance.record(lineage, model=checkpoint.name, cut=cut, text=corpus.canonical())
    write_windows(output, rows, origin)


def write_windows(path: Path, rows: Sequence[Mapping[str, Any]], origin: provenance.Provenance) -> None:
    """Write windows, one row each with the columns of SCHEMA, whole or not at all; `origin` says how they are cut."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(provenance.encode(origin)))
    with (
        atomic.file(path) as unfinished,
        pa.OSFile(str(unfinished), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def read_windows(path: Path, expected: str | None = None) -> TokenWindows:
    """Read windows; refuse a damaged file or one whose lineage is not `expected`."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            table = reader.read_all()
    except FileNotFoundError as error:
        raise DamagedFile(f"{path}: missing; run the tokenize stage.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedFile(f"{path}: not a readable Arrow file; delete it and run the tokenize stage again.") from error
    origin = provenance.decode(table.schema.metadata)
    if expected is not None:
        provenance.require(origin, "tokens", expected, path)
    return TokenWindows(
        ids_ST=ragged.rectangle(table["token_ids"], NO_TOKEN),
        bytes_ST=ragged.rectangle(table["token_bytes"], 0),
        scored_from_S=table["scored_from"].to_numpy(),
        provenance=origin,
    )


def require_tokenizer(directory: Path, corpus: Corpus | None, where: object) -> None:
    """Raise SourceError or ConfigError where the tokenizer in `directory` cannot cut a corpus; no text is read."""
    tokenizer, settings = _opened(directory, where)
    if corpus is not None:
        _check_context(_cut(corpus, tokenizer)["window"], settings, Path(str(where)))


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


def _cut(corpus: Corpus, tokenizer: Any) -> dict[str, Any]:
    """Return how a corpus is cut for a tokenizer: window, stride, bos, and `windows` where they are those of 2025."""
    has_bos = _bos(tokenizer, corpus.bos) is not None
    if corpus.windows == "arb8020":
        length = min(corpus.length, int(tokenizer.model_max_length))
        return {"window": length, "stride": length // 2, "bos": has_bos, "windows": corpus.windows}
    # a BOS takes the place of one token; the windows still leave no text out
    stride = min(corpus.stride or corpus.length, corpus.length - has_bos)
    return {"window": corpus.length, "stride": stride, "bos": has_bos}


def _check_context(length: int, settings: Any, checkpoint: Path) -> None:
    context = getattr(settings, "max_position_embeddings", None)
    if context and length > context:
        raise ConfigError(
            f"corpora: a window of {length} tokens is longer than the context of {checkpoint.name} ({context} tokens); "
            "choose a shorter length."
        )


def _check_vocabulary(largest: int, tokenizer: Any, settings: Any, checkpoint: Path) -> None:
    if largest >= settings.vocab_size:
        raise ConfigError(
            f"{checkpoint}: its tokenizer has {len(tokenizer)} tokens, its embedding {settings.vocab_size} rows, and "
            f"the text holds token {largest}; tokenizer and model do not belong together."
        )


def _encoded(texts: Iterable[str], tokenizer: Any) -> Iterator[tuple[int, int]]:
    """Yield each token of the joined texts with the UTF-8 bytes it adds; they sum up to the bytes of the text."""
    for text in texts:
        text += SEPARATOR
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        yield from zip(encoding["input_ids"], _bytes_added(text, encoding["offset_mapping"]), strict=True)


def _bytes_added(text: str, offsets: list[tuple[int, int]]) -> list[int]:
    """Return the UTF-8 bytes by which each token takes the text further; none for a special one."""
    ends = np.array([end for _, end in offsets], dtype=np.int64)
    position = _bytes_before(text)[np.maximum.accumulate(ends)] if len(ends) else ends
    return np.diff(position, prepend=0).tolist()


def _bytes_before(text: str) -> np.ndarray:
    """Return the UTF-8 length of each prefix of a text, the empty one first."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(widths)])


def _pack(
    tokens: Iterator[tuple[int, int]], sequences: int, length: int, stride: int, bos: int | None
) -> list[dict[str, Any]]:
    """Cut a stream of tokens into windows of equal length. Raises SourceError if it does not fill them."""
    room = length - (bos is not None)
    window = list(islice(tokens, room))
    rows: list[dict[str, Any]] = []
    for index in tqdm(range(sequences), desc="packing windows", unit="window"):
        if len(window) < room:
            raise _too_short(index, length, sequences)
        start = [(bos, 0)] if bos is not None else []
        ids, widths = zip(*start, *window, strict=True)
        scored_from = 1 if index == 0 else max(1, length - stride)
        rows.append({"window": index, "token_ids": ids, "token_bytes": widths, "scored_from": scored_from})
        window = window[stride:] + list(islice(tokens, stride))
    return rows


def _overlapping(texts: Iterable[str], tokenizer: Any, length: int) -> Iterator[str]:
    """Yield the texts of the windows of the 2025 sweep: pieces of `length` tokens that overlap by half.

    The buffer is text, as it was there: what is left of it is decoded after each window and encoded anew for the next,
    and cutting inside a word or a character can change a token. A buffer is done with once less than a window is left.
    """
    buffer = ""
    for text in texts:
        buffer += " " + text
        ids = left = _ids(buffer, tokenizer)
        while len(left) >= length:
            yield tokenizer.decode(ids[:length], skip_special_tokens=True)
            left = ids[length // 2 :]
            buffer = tokenizer.decode(left, skip_special_tokens=True)
            if len(left) >= length:
                ids = _ids(buffer, tokenizer)


def _ids(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _encode_anew(texts: Iterator[str], tokenizer: Any, sequences: int, length: int) -> list[dict[str, Any]]:
    """Encode the text of each window as the tokenizer does by default: BOS included, and not always `length` tokens.

    Every window scores all of its tokens, those it shares with the one before too. Raises SourceError if there are
    fewer windows than asked for.
    """
    rows: list[dict[str, Any]] = []
    progress = tqdm(islice(texts, sequences), desc="cutting windows", unit="window", total=sequences)
    for index, text in enumerate(progress):
        encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids, widths = encoding["input_ids"], _bytes_added(text, encoding["offset_mapping"])
        if len(ids) < 2:
            raise SourceError(
                f"window {index} of the corpus, encoded anew, has {len(ids)} tokens and nothing to predict; "
                "choose a greater length."
            )
        rows.append({"window": index, "token_ids": ids, "token_bytes": widths, "scored_from": 1})
    if len(rows) < sequences:
        raise _too_short(len(rows), length, sequences)
    return rows


def _too_short(filled: int, length: int, sequences: int) -> SourceError:
    return SourceError(
        f"the corpus is too short: it fills {filled} windows of {length} tokens where {sequences} are asked "
        "for; lower sequences or length, or give more text."
    )


def _bos(tokenizer: Any, wish: Literal["auto", "always", "never"]) -> int | None:
    """Return the token that starts each window, if any."""
    bos = tokenizer.bos_token_id
    if wish == "always" and bos is None:
        raise ConfigError("corpora: bos is always, but this tokenizer has no BOS token; use auto or never.")
    by_default = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    return bos if wish == "always" or (wish == "auto" and by_default) else None


def _from_file(path: Path, column: str) -> Iterator[str]:
    try:
        for text in _values(path, column):
            if not isinstance(text, str):
                raise TypeError(f"{column} holds {text!r:.40}, not text")
            yield text
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"{path}: cannot be read as text ({reason}); is the column right?") from error


def _values(path: Path, column: str) -> Iterator[Any]:
    """Yield what a file has in the column; the whole of a plain text file."""
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line)[column] for line in lines if line.strip())
    elif path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches(columns=[column]):
            yield from batch[column].to_pylist()
    else:
        yield path.read_text(encoding="utf-8")


def _from_hub(corpus: Corpus) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise SourceError(f"{corpus.hub}: reading a hub data set needs the package datasets; install it.") from error
    try:
        stream = load_dataset(
            corpus.hub, name=corpus.name, split=corpus.split, revision=corpus.revision, streaming=True
        )
        for row in stream:
            yield row[corpus.column]
    except KeyError as error:
        raise SourceError(f"{corpus.hub}: has no column {error}; set column in config.yaml.") from error
    except Exception as error:  # the client raises a dozen kinds; all mean that the text cannot be had
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"{corpus.hub}: the data set cannot be read from the hub ({type(error).__name__}: {reason}); "
            "check the network, HF_ENDPOINT, HF_TOKEN and the revision."
        ) from error
