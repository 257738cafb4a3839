"""Shards: what was captured in parts equals one pass; what is damaged or stale is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DENSE, WINDOWS, capture_settings, save_checkpoint
from outlier_features.capture.run import capture
from outlier_features.config.entries import Definition
from outlier_features.errors import ArchitectureError, ConfigError, DamagedFile, NonFiniteActivations, StaleFile
from outlier_features.metrics import criteria, evidence, outlier_features
from outlier_features.metrics import layers as metrics
from outlier_features.statistics.shards import Statistics, block_name
from safetensors.torch import load_file, save_file

CRITERIA = criteria.criteria({"llm_int8": Definition(sites=("attn_in", "mlp_in"))})


def tables(manifests: list[Path]) -> list[pd.DataFrame]:
    statistics = Statistics(manifests)
    found = evidence.gather(statistics, CRITERIA)
    return [
        *map(outlier_features.features, found),
        *map(outlier_features.channels, found),
        metrics.layers(statistics, 6.0),
    ]


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_windows_captured_in_parts_give_the_tables_of_one_pass(kind, checkpoints, tokens, manifests, tmp_path) -> None:
    parts = {"a": [0, 3], "b": [1, 2, 4]}
    for name, windows in parts.items():
        path = tmp_path / f"{name}.json"
        capture(checkpoints[kind], tokens, path, capture_settings(), {"statistics": "test"}, windows=windows)
    merged = [tmp_path / f"{name}.json" for name in parts]
    for found, expected in zip(tables(merged), tables([manifests[kind]]), strict=True):
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert np.array_equal(Statistics(merged).losses(), Statistics([manifests[kind]]).losses())


def test_the_order_in_which_windows_are_asked_for_changes_nothing(checkpoints, tokens, tmp_path) -> None:
    for name, windows in {"mixed": [4, 0, 2], "sorted": [0, 2, 4]}.items():
        path = tmp_path / f"{name}.json"
        capture(checkpoints["dense"], tokens, path, capture_settings(), {"statistics": "test"}, windows=windows)
    mixed, in_order = Statistics([tmp_path / "mixed.json"]), Statistics([tmp_path / "sorted.json"])
    assert mixed.facts == in_order.facts
    assert np.array_equal(mixed.losses(), in_order.losses())


def test_a_capture_that_says_one_length_for_all_windows_is_read_as_before(copy: Path, manifests) -> None:
    content = json.loads(copy.read_text())
    del content["facts"]["positions_per_window"]
    copy.write_text(json.dumps(content))
    for found, expected in zip(tables([copy]), tables([manifests["dense"]]), strict=True):
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_observing_does_not_change_the_losses(checkpoints, tokens, manifests, tmp_path) -> None:
    settings = capture_settings(sites=("residual",), counted=(), coverages=())
    capture(checkpoints["moe"], tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    assert np.array_equal(Statistics([tmp_path / "x.json"]).losses(), Statistics([manifests["moe"]]).losses())


def test_two_captures_write_the_same_bytes(checkpoints, tokens, manifests, tmp_path) -> None:
    capture(checkpoints["dense"], tokens, tmp_path / "dense.json", capture_settings(), {"statistics": "test"})
    digests = [json.loads(path.read_text())["shards"] for path in (tmp_path / "dense.json", manifests["dense"])]
    assert digests[0] == digests[1]


@pytest.fixture
def copy(manifests: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(manifests["dense"].with_suffix(""), tmp_path / "dense")
    return Path(shutil.copy(manifests["dense"], tmp_path / "dense.json"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_shard_is_refused_by_name(damage, copy: Path) -> None:
    damage(copy.with_suffix("") / block_name(1))
    with pytest.raises(
        DamagedFile, match=r"block-001\.arrow: the shard is (cut or altered|missing).*delete .*run snakemake"
    ):
        evidence.gather(Statistics([copy]), CRITERIA)


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_damaged_manifest_is_refused_by_name(damage, copy: Path) -> None:
    damage(copy)
    with pytest.raises(DamagedFile, match=r"dense\.json"):
        Statistics([copy])


def test_statistics_of_another_lineage_are_refused(copy: Path) -> None:
    with pytest.raises(StaleFile, match=r"dense\.json.*lineage test.*other"):
        Statistics([copy], "other")


def test_every_shard_carries_its_provenance(manifests: dict[str, Path]) -> None:
    import pyarrow as pa
    from outlier_features.artefacts import provenance

    for shard in manifests["moe"].with_suffix("").glob("*.arrow"):
        origin = provenance.decode(pa.ipc.open_file(str(shard)).schema.metadata)
        assert origin["lineage"] == {"statistics": "test"}
        assert origin["versions"]["torch"] == torch.__version__
        assert origin["dtype"] == "float32"
        assert (origin["device"], origin["threads"]) == ("cpu", torch.get_num_threads())


def test_statistics_are_much_smaller_than_the_activations(manifests: dict[str, Path]) -> None:
    facts = Statistics([manifests["dense"]]).facts
    assert facts["windows"] == list(range(WINDOWS))
    assert facts["kind"] == "dense"


def poisoned(path: Path, value: float) -> Path:
    checkpoint = save_checkpoint(path, DENSE)
    for file in checkpoint.glob("*.safetensors"):
        tensors = load_file(file)
        if "model.layers.1.input_layernorm.weight" in tensors:
            tensors["model.layers.1.input_layernorm.weight"][5] = value
            save_file(tensors, file, metadata={"format": "pt"})
    return checkpoint


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "33 NaN and 0 infinite"), (float("inf"), "0 NaN and 33 inf")]
)
def test_nan_and_infinity_stop_the_pass_and_leave_nothing(value, words, tmp_path, tokens) -> None:
    checkpoint = poisoned(tmp_path / "model", value)
    with pytest.raises(NonFiniteActivations, match=f"block 1, attn_in, window 0: {words}.*capture.nonfinite to count"):
        capture(checkpoint, tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_pass_that_fails_leaves_the_older_result_whole(tmp_path: Path, tokens: Path, copy: Path) -> None:
    with pytest.raises(NonFiniteActivations):
        capture(poisoned(tmp_path / "m", float("nan")), tokens, copy, capture_settings(), {"statistics": "test"})
    assert len(outlier_features.features(evidence.gather(Statistics([copy], "test"), CRITERIA)[0]))


def test_nan_can_be_counted_instead(tmp_path: Path, tokens: Path) -> None:
    checkpoint = poisoned(tmp_path / "model", float("nan"))
    settings = capture_settings(count_nonfinite=True)
    capture(checkpoint, tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    layers = metrics.layers(Statistics([tmp_path / "x.json"]), 6.0).query("token_class == 'all' and site == 'attn_in'")
    assert layers["nan_count"].tolist()[:2] == [0, 33 * WINDOWS]


def test_a_site_that_saw_nothing_stops_the_run_and_names_the_block(checkpoints, tokens, tmp_path, monkeypatch) -> None:
    from outlier_features.models import sites

    def blind(block, wanted):
        return [probe for probe in found(block, wanted) if probe.site != "mlp_in"]

    found = sites.probes
    monkeypatch.setattr(sites, "probes", blind)
    with pytest.raises(ArchitectureError, match="block 0: no activation was seen at mlp_in"):
        capture(checkpoints["dense"], tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})


def test_tokens_of_another_tokenizer_are_refused(checkpoints, tmp_path) -> None:
    from conftest import write_windows

    tokens = write_windows(tmp_path / "tokens.arrow", np.full((1, 8), 999))
    with pytest.raises(ConfigError, match=r"holds token 999.*160 rows"):
        capture(checkpoints["dense"], tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})


def test_parts_that_overlap_are_refused(manifests: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="captures of the same windows"):
        Statistics([manifests["dense"], manifests["dense"]])
