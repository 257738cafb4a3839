"""Atomic writes: a result is there whole or not at all, and nothing is left beside it."""

import hashlib
from contextlib import suppress
from pathlib import Path

from outlier_features.artefacts import atomic


def test_a_file_takes_the_place_of_the_older_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep/result.txt"
    for text in ("old", "new"):
        with atomic.file(path) as unfinished:
            unfinished.write_text(text)
            assert path.exists() == (text == "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_after_an_error_the_older_file_is_as_it_was_and_nothing_is_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with suppress(KeyboardInterrupt), atomic.file(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_the_older_one_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "results"
    for name in ("old", "new"):
        with atomic.directory(path) as unfinished:
            (unfinished / name).touch()
    assert [each.name for each in path.iterdir()] == ["new"]
    with suppress(KeyboardInterrupt), atomic.directory(path) as unfinished:
        (unfinished / "half").touch()
        raise KeyboardInterrupt
    assert [each.name for each in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_of_a_folder_is_not_taken_over(tmp_path: Path) -> None:
    with atomic.directory(tmp_path / "results") as unfinished:
        pass
    unfinished.mkdir()
    (unfinished / "half").touch()
    with atomic.directory(tmp_path / "results"):
        pass
    assert list((tmp_path / "results").iterdir()) == []


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00abc" * 100_000)
    assert atomic.digest(tmp_path / "file") == hashlib.sha256(b"\x00abc" * 100_000).hexdigest()
