"""Remedies: only what can help is offered."""

import json
import os
from pathlib import Path

import pytest
from outlier_features.artefacts import atomic, paths, provenance, remedies
from outlier_features.artefacts.tables import read_json, read_table
from outlier_features.errors import DamagedFile, StaleFile


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


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("results/checkpoints/summary/source.json", "fetch (train, for a model with a recipe)"),
        ("results/words/tokens/moe.arrow", "tokenize"),
        ("results/words/statistics/moe.2-of-4.json", "capture"),
        ("results/words/layers/moe.parquet", "reduce"),
        ("results/words/perplexity/moe.json", "reduce"),
        ("results/words/summary.parquet", "summarize"),
        ("results/words/inference.json", "infer"),
        ("results/plots/moe_vs_dense.png", "plot"),
    ],
)
def test_a_stale_file_names_the_stage_that_writes_it(path: str, stage: str) -> None:
    with pytest.raises(StaleFile, match=r"\(lineage old\) than the present ones \(new\); run snakemake, or") as raised:
        provenance.require({"lineage": {"summary": "old"}}, "summary", "new", Path(path))
    assert str(raised.value).endswith(f"or the stage {stage}.")


def test_a_table_that_is_missing_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(remedies.DamagedFile) as raised:
        read_table(Path("results/words/layers/moe.parquet"))
    assert str(raised.value) == "results/words/layers/moe.parquet: missing; run snakemake, or the stage reduce."
    with pytest.raises(remedies.DamagedFile) as raised:
        read_json(Path("results/words/inference.json"), "inference", None)
    assert str(raised.value) == "results/words/inference.json: missing; run snakemake, or the stage infer."


def test_a_damaged_table_is_deleted_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("results/words/layers/moe.parquet")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(remedies.DamagedFile) as raised:
        read_table(path)
    assert (
        str(raised.value) == f"{path}: not a readable parquet file; delete it, then run snakemake, or the stage reduce."
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_table_that_may_not_be_read_is_not_to_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "summary.parquet"
    path.write_text(json.dumps({}))
    path.chmod(0)
    with pytest.raises(remedies.DamagedFile, match="permission denied; change the permissions of the file"):
        read_table(path)
