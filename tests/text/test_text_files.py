"""Documents: what a file holds is read by name and content, and what is no text is refused by file and row."""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outlier_features.config.entries import Corpus
from outlier_features.errors import SourceError
from outlier_features.text import documents as module
from outlier_features.text.documents import documents, in_pieces
from outlier_features.text.text_files import BLOCK

ROWS = ["One, two.", 'Größe "in" Anführung, €.', "🙂\nA second line.", ""]
FORMATS = (".txt", ".md", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda content: bytes(pa.Codec("zstd").compress(content, asbytes=True)),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def separated(mark: str, rows: list[str]) -> bytes:
    quoted = [row.replace('"', '""') for row in rows]
    lines = [f"id{mark}text", *(f'{number}{mark}"{row}"' for number, row in enumerate(quoted))]
    return "".join(f"{line}\n" for line in lines).encode()


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def content(suffix: str, rows: list[str]) -> bytes:
    objects = [{"id": number, "text": row} for number, row in enumerate(rows)]
    return {
        ".txt": rows[0].encode(),
        ".md": rows[0].encode(),
        ".jsonl": "".join(f"{json.dumps(each)}\n" for each in objects).encode(),
        ".ndjson": "\n\n".join(json.dumps(each, ensure_ascii=False) for each in objects).encode(),
        ".json": json.dumps(objects, indent=1).encode(),
        ".csv": separated(",", rows),
        ".tsv": separated("\t", rows),
        ".parquet": parquet(id=list(range(len(rows))), text=rows),
    }[suffix]


def read(path: Path, **corpus: Any) -> list[str]:
    return list(documents(Corpus(path=str(path), sequences=1, length=8, **corpus)))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(path: Path, **corpus: Any) -> str:
    with pytest.raises(SourceError, match=re.escape(str(path))) as raised:
        read(path, **corpus)
    words = str(raised.value)
    assert "\n" not in words
    return words.removeprefix(str(path))


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read_compressed_or_not_in_any_case(suffix, compression, upper, tmp_path) -> None:
    name = f"text{suffix}{compression}"
    path = written(tmp_path / (name.upper() if upper else name), COMPRESSIONS[compression](content(suffix, ROWS)))
    assert read(path) == (ROWS[:1] if suffix in (".txt", ".md") else ROWS)


@pytest.mark.parametrize("compression", [".gz", ".zst", ".bz2", ".xz"])
def test_members_one_behind_another_are_all_read(compression, tmp_path) -> None:
    pack = COMPRESSIONS[compression]
    assert read(written(tmp_path / f"a.txt{compression}", pack(b"one ") + pack(b"two"))) == ["one two"]


@pytest.mark.parametrize("name", ["text", "text.text", "text.jsonl.lz4", "text.gz", "text.bin", ".txt.zip"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(name, tmp_path) -> None:
    told = refusal(written(tmp_path / name, b"One."))
    assert all(suffix in told for suffix in (*FORMATS, ".gz", ".zst", ".bz2", ".xz"))


@pytest.mark.parametrize(
    ("name", "holds", "words"),
    [
        ("a.txt", gzip.compress(b"One.", mtime=0), r"holds \.gz data.*rename it to a\.txt\.gz"),
        ("a.jsonl", COMPRESSIONS[".zst"](b"{}"), r"holds \.zst data.*rename it to a\.jsonl\.zst"),
        ("a.csv", bz2.compress(b""), r"holds \.bz2 data"),
        ("a.txt.gz", b"One.", r"is named \.gz, but holds no data compressed in that way"),
        ("a.txt.gz", b"", r"is named \.gz, but holds no data"),
        ("a.txt.xz", gzip.compress(b"One.", mtime=0), r"is named \.xz, but holds \.gz data"),
        ("a.txt", parquet(text=["One."]), "holds a parquet file, not text"),
        ("a.txt.gz", gzip.compress(parquet(text=["One."]), mtime=0), "holds a parquet file, not text"),
        ("a.md", b"PK\x03\x04\x14\x00", "holds a zip archive"),
        ("a.txt", bytes(range(256)), "binary data"),
        ("a.parquet", b'{"text": "One."}\n', "cannot be read"),
        ("a.json", b"One.", "row 1: is not JSON"),
        ("a.jsonl", b'[{"text": "One."}]\n', r"row 1: is \[.*\(list\), not an object with the column text"),
        ("a.txt", "One.".encode("utf-16"), "is UTF-16LE text, not UTF-8; convert it: iconv -f UTF-16LE"),
        ("a.txt", b"\xfe\xff" + "One.".encode("utf-16-be"), "is UTF-16BE text"),
        ("a.jsonl", '{"text": "One."}\n'.encode("utf-16-le"), "is UTF-16LE text"),
        ("a.csv", "One.".encode("utf-32"), "is UTF-32LE text"),
        ("a.txt", b"caf\xe9 au lait", "is not UTF-8 text .* at byte 3"),
        ("a.jsonl", b'{"text": "One."}\n{"text": "caf\xe9"}', "is not UTF-8 text .* at byte 30"),
        ("a.txt", b"x" * (2 * BLOCK - 1) + "€".encode()[:2], f"at byte {2 * BLOCK - 1}"),
        ("a.txt.gz", gzip.compress(b"One." * 9999, mtime=0)[:-9], "damaged, cut"),
        ("a.txt.xz", lzma.compress(b"One." * 9999)[:-9], "damaged, cut"),
        ("a.txt.zst", COMPRESSIONS[".zst"](bytes(range(1, 127)) * 99)[:-9], "damaged, cut"),
        ("a.json", b'[{"text": "One."}', "does not end after row 1"),
        ("a.json", b'[{"text": "One."}, {"text": "tw', "row 2: is not JSON"),
        ("a.json", b'[{"text": "One."} {"text": "two"}]', "row 2: is not parted .* by a comma"),
        ("a.json", b'[{"text": "One."}] {}', "continues after the end"),
        ("a.json", b'[{"text": "One."}, {"deep": ' + b"[" * 9999, "row 2: is not JSON .*recursion"),
        ("a.jsonl", b'{"text": "One."}\n' + b"[" * 9999, "row 2: is not JSON .*recursion"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(name, holds, words, tmp_path) -> None:
    assert re.search(words, refusal(written(tmp_path / name, holds)))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_is_no_text(suffix, tmp_path) -> None:
    path = written(tmp_path / f"a{suffix}", b"\xef\xbb\xbf" + content(suffix, ROWS).replace(b"id,text", b"text,id"))
    if suffix == ".csv":
        path.write_bytes(b"\xef\xbb\xbftext\nOne\n")
        assert read(path) == ["One"]
    else:
        assert read(path)[0] == ROWS[0]


@pytest.mark.parametrize("text", ["BZh is no mark of bzip2", "PAR1 is a word", "%PDF is one", "ARROW1"])
def test_text_that_only_begins_like_another_file_is_text(text, tmp_path) -> None:
    assert read(written(tmp_path / "a.txt", text.encode())) == [text]


@pytest.mark.parametrize("separate", [", ", "\n", ""])
def test_json_is_a_list_or_one_object_behind_another(separate, tmp_path) -> None:
    joined = separate.join(json.dumps({"text": row}, indent=2) for row in ROWS)
    path = written(tmp_path / "a.json", (f"[{joined}]\n" if separate == ", " else joined).encode())
    assert read(path) == ROWS


def test_a_value_that_ends_with_a_block_is_read_whole(tmp_path) -> None:
    rows = ["x" * (BLOCK + shift) for shift in range(-30, -10)]
    path = written(tmp_path / "a.json", json.dumps([{"text": row} for row in rows]).encode())
    assert read(path) == rows


NO_TEXT = {"null": None, "7": 7, "1.5": 1.5, "True": True, r"\['a'\]": ["a"], r"\{'a': 1\}": {"a": 1}}


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("words", NO_TEXT)
def test_a_row_without_text_is_named(words, suffix, compression, tmp_path) -> None:
    value = NO_TEXT[words]
    rows = [{"text": "One."}] * 2 + [{"text": value}]
    holds = {
        ".jsonl": "".join(f"{json.dumps(row)}\n" for row in rows).encode(),
        ".json": json.dumps(rows).encode(),
        ".parquet": parquet(text=["One.", "One.", None] if value is None else [value]),
    }[suffix]
    path = written(tmp_path / f"a{suffix}{compression}", COMPRESSIONS[compression](holds))
    number = 1 if suffix == ".parquet" and value is not None else 3
    assert re.match(rf", row {number}: text holds {words}.*, not text", refusal(path))


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_half_a_surrogate_pair_is_refused_by_row_and_a_whole_one_is_a_character(suffix, tmp_path) -> None:
    rows = [r'{"text": "\ud83d\ude42"}', r'{"text": "ab\ud800c"}']
    path = written(tmp_path / f"a{suffix}", "\n".join(rows).encode())
    assert next(documents(Corpus(path=str(path), sequences=1, length=8))) == "🙂"
    assert re.match(r", row 2: text holds half a surrogate pair \(U\+D800 at character 2\)", refusal(path))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_a_wrong_column_is_refused_with_the_columns_there_are(suffix, tmp_path) -> None:
    path = written(tmp_path / f"a{suffix}", content(suffix, ROWS))
    assert re.search(
        r"has no column body; its columns are id, text; set column to one of them\.", refusal(path, column="body")
    )


def test_a_table_without_names_of_columns_says_what_was_taken_for_them(tmp_path) -> None:
    told = refusal(written(tmp_path / "a.csv", b"Once upon a time.\nThere was.\n"))
    assert "its first line taken as the names of the columns" in told
    assert "Once upon a time." in told


@pytest.mark.parametrize(
    ("holds", "words"),
    [
        (b"text,id\none,1\ntwo\n", "row 2: has 1 fields where the header has 2"),
        (b"text,id\none,1,2\n", "row 1: has 3 fields where the header has 2"),
        (b'text,id\none,1\n"two,2\n', "row 2: is not separated as its name says"),
        (b"text,text\na,b\n", "2 columns called text"),
    ],
)
def test_a_table_that_is_not_regular_is_refused_by_row(holds, words, tmp_path) -> None:
    assert words in refusal(written(tmp_path / "a.csv", holds))


def test_a_column_that_is_there_twice_in_parquet_is_refused(tmp_path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "2 columns called text" in refusal(tmp_path / "a.parquet")


def test_empty_lines_before_the_names_of_columns_are_none(tmp_path) -> None:
    assert read(written(tmp_path / "a.csv", b"\n\ntext,id\none,1\n")) == ["one"]


def test_a_field_of_a_table_may_be_long(tmp_path) -> None:
    assert read(written(tmp_path / "a.csv", b"text\n" + b"x" * 200_000 + b"\n")) == ["x" * 200_000]


@pytest.mark.parametrize(("checksum", "place"), [(False, 0), (True, 4000)])
def test_a_damaged_page_names_the_row_group(checksum, place, tmp_path) -> None:
    path = tmp_path / "a.parquet"
    rows = [np.random.default_rng(number).bytes(300).hex() for number in range(300)]
    written = {"row_group_size": 100, "compression": "zstd", "use_dictionary": False, "write_page_checksum": checksum}
    pq.write_table(pa.table({"text": rows}), path, **written)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    raw = bytearray(path.read_bytes())
    raw[start + place : start + place + 200] = bytes(200)
    path.write_bytes(raw)
    assert "row group 1 of 3: is damaged" in refusal(path)
    found = documents(Corpus(path=str(path), sequences=1, length=8))
    assert [next(found) for _ in range(100)] == rows[:100]


def test_a_row_of_parquet_that_is_not_utf8_is_named(tmp_path) -> None:
    column = pa.array([b"one", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", store_schema=False)
    assert re.match(r", row 2: is not UTF-8 text .* at byte 3 of the value", refusal(tmp_path / "a.parquet"))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_kind_of_text_column_of_parquet_is_text(kind, tmp_path) -> None:
    pq.write_table(pa.table({"text": pa.array(ROWS).cast(kind)}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ROWS


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".csv"])
def test_an_empty_file_has_no_text(suffix, tmp_path) -> None:
    assert "".join(read(written(tmp_path / f"a{suffix}", b""))) == ""


def test_newlines_of_every_kind_are_one_character(tmp_path) -> None:
    assert read(written(tmp_path / "a.txt", b"one\r\ntwo\rthree\n")) == ["one\ntwo\nthree\n"]
    padded = b"x" * (BLOCK - 1) + b"\r\ny"
    assert read(written(tmp_path / "b.txt", padded)) == ["x" * (BLOCK - 1) + "\ny"]


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
