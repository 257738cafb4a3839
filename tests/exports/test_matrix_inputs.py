"""Matrix inputs: the values of every matrix equal what hooks on it see in a plain forward."""

import json

import numpy as np
import pytest
from exports import LINEAGE, SCALES, Exported
from outlier_features.capture.run import capture
from outlier_features.config.parts import parts, windows
from outlier_features.errors import StaleFile
from small_models import LENGTH, WINDOWS, capture_settings


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_the_values_of_every_matrix_are_those_that_hooks_on_it_see(kind: str, exported, inputs) -> None:
    found = {name: exported[kind].tensors(name) for name in SCALES}
    for tensors in found.values():
        assert tensors.keys() == inputs[kind].keys()
    for name, x_STC in inputs[kind].items():
        np.testing.assert_array_equal(found["act_scales"][name], np.abs(x_STC).max((0, 1)))
        np.testing.assert_array_equal(found["act_scales_rest"][name], np.abs(x_STC[:, 1:]).max((0, 1)))
        np.testing.assert_allclose(found["importance"][name], (x_STC**2).mean((0, 1)), rtol=1e-5)
        assert {tensors[name].dtype for tensors in found.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_what_was_not_captured_is_absent_and_the_metadata_say_so(kind: str, exported) -> None:
    for name in SCALES:
        metadata = exported[kind].metadata(name)
        assert not [key for key in exported[kind].tensors(name) if "down_proj" in key or "lm_head" in key]
        assert "never zeros: inner projections" in metadata["absent"]
        assert ("experts" in metadata) == (kind == "moe")
        expected = WINDOWS * (LENGTH - 1) if name == "act_scales_rest" else WINDOWS * LENGTH
        assert int(metadata["tokens"]) == expected
        assert (metadata["corpus"], metadata["dtype"]) == ("words", "float32")
        assert json.loads(metadata["provenance"])["lineage"] == LINEAGE


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_an_export_of_parts_is_that_of_one_pass(kind, checkpoints, tokens, exported, tmp_path) -> None:
    captured = []
    for part in parts(2):
        manifest = tmp_path / f"{kind}.{part}.json"
        share = windows(part, WINDOWS)
        capture(checkpoints[kind], tokens, manifest, capture_settings(), {"statistics": "test"}, windows=share)
        captured.append(manifest)
    found = Exported(tmp_path, captured, tokens)
    for name in SCALES:
        one_pass = exported[kind].tensors(name)
        assert found.tensors(name).keys() == one_pass.keys()
        for key, values in found.tensors(name).items():
            np.testing.assert_array_equal(values, one_pass[key])
    assert found.channels == exported[kind].channels
    for name in ("table.md", "table.tex"):
        assert found.text(name) == exported[kind].text(name)


def test_statistics_that_do_not_name_the_matrices_are_to_be_captured_again(manifests, tokens, tmp_path) -> None:
    content = json.loads(manifests["dense"].read_text())
    del content["facts"]["consumers"]
    old = tmp_path / "dense.json"
    old.write_text(json.dumps(content))
    old.with_suffix("").symlink_to(manifests["dense"].with_suffix(""))
    with pytest.raises(StaleFile, match=r"dense\.json: .*did not note which matrices .*; capture the model again"):
        Exported(tmp_path, [old], tokens)
    assert not (tmp_path / "export").exists()
