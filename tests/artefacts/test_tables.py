"""Tables: one that is missing, damaged or not to be read is told apart, with what helps."""

import json
import os
from pathlib import Path

import pytest
from outlier_features.artefacts import remedies
from outlier_features.artefacts.tables import read_json, read_table


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
