"""Remedies: only what can help is offered."""

from pathlib import Path

import pytest
from outlier_features.artefacts import atomic, paths, remedies
from outlier_features.artefacts.tables import read_json
from outlier_features.errors import DamagedFile


def sealed(directory: Path, source: dict[str, str]) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    files = {"config.json": {"bytes": 2, "sha256": atomic.digest(directory / "config.json")}}
    atomic.write_json(directory / "source.json", {"provenance": {"source": source}, "files": files})
    return directory


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ({"hub": "org/name", "revision": "abc"}, "name another revision"),
        ({"path": "/models/mine"}, "mend /models/mine, or name another directory"),
        ({"package": "shipped==1.0", "file": "a.gguf"}, "name another package"),
    ],
)
def test_a_checkpoint_that_is_as_it_was_fetched_is_not_to_be_fetched_again(
    source: dict[str, str], remedy: str, tmp_path: Path
) -> None:
    checkpoint = sealed(tmp_path / "model", source)
    expected = f"it is so where it comes from, and fetching it again brings the same: {remedy}"
    assert remedies.of_checkpoint(checkpoint) == expected
    (checkpoint / "config.json").touch()  # read, for it may be another
    assert remedies.of_checkpoint(checkpoint) == expected


def test_a_checkpoint_that_was_altered_since_is_to_be_fetched_again(tmp_path: Path) -> None:
    checkpoint = sealed(tmp_path / "model", {"path": "/models/mine"})
    (checkpoint / "config.json").write_text("[]")
    assert remedies.of_checkpoint(checkpoint).startswith(f"config.json is not as it was fetched: delete {checkpoint}, ")
    (checkpoint / "source.json").write_text("")
    assert remedies.of_checkpoint(checkpoint).startswith(f"source.json is not as it was fetched: delete {checkpoint}, ")


def test_a_damaged_file_of_a_measurement_offers_no_snakemake(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    answer = tmp_path / "answer.json"
    answer.write_text("{")
    with paths.within(tmp_path), pytest.raises(DamagedFile, match="delete it, then measure the model again as before"):
        read_json(answer, "reduction", None)
