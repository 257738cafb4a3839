"""Matrix inputs: the names of matrices are those of the checkpoint, and an older capture is refused."""

import json

import pytest
from exports import Exported
from outlier_features.errors import StaleFile
from outlier_features.exports.matrix_inputs import DOWN, GATE, UP, part_name


def test_the_matrices_of_an_expert_have_the_names_of_the_checkpoint() -> None:
    assert [part_name("model.layers.0.mlp.experts", part) for part in (GATE, UP, DOWN)] == [GATE, UP, DOWN]
    names = [part_name("model.layers.0.block_sparse_moe.experts", part) for part in (GATE, UP, DOWN)]
    assert names == ["w1", "w3", "w2"]


def test_statistics_that_do_not_name_the_matrices_are_to_be_captured_again(captured, tokens, tmp_path) -> None:
    content = json.loads(captured["dense"].read_text())
    del content["facts"]["consumers"]
    old = tmp_path / "dense.json"
    old.write_text(json.dumps(content))
    old.with_suffix("").symlink_to(captured["dense"].with_suffix(""))
    with pytest.raises(StaleFile, match=r"dense\.json: .*did not note which matrices .*; capture the model again"):
        Exported(tmp_path, [old], tokens)
    assert not (tmp_path / "export").exists()
