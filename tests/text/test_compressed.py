"""Compressed files: each is read as the bytes it holds."""

import pytest
from text_formats import COMPRESSIONS, FORMATS, ROWS, content, read, written


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
