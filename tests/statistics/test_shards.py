"""Shards: what was captured in parts equals one pass; what is damaged or stale is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from outlier_features.artefacts import arrow
from outlier_features.capture.run import capture
from outlier_features.config.entries import Definition
from outlier_features.errors import ConfigError, DamagedFile, StaleFile
from outlier_features.metrics import criteria, evidence, outlier_features
from outlier_features.metrics import layers as metrics
from outlier_features.site_names import SITES
from outlier_features.statistics.shards import Statistics, block_name, experts_name
from small_models import WINDOWS, capture_settings, write_windows

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


def test_parts_that_overlap_are_refused(manifests: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="captures of the same windows"):
        Statistics([manifests["dense"], manifests["dense"]])


@pytest.mark.parametrize("parts", [([0, 3], [1, 2, 4]), ([2], [4, 0], [1], [3])])
def test_what_experts_read_in_parts_is_that_of_one_pass_to_the_bit(parts, checkpoints, tokens, tmp_path) -> None:
    settings = capture_settings(sites=tuple(SITES))
    merged = [tmp_path / f"{index}.json" for index in range(len(parts))]
    for path, windows in zip(merged, parts, strict=True):
        capture(checkpoints["moe"], tokens, path, settings, {"statistics": "test"}, windows=windows)
    capture(checkpoints["moe"], tokens, tmp_path / "whole.json", settings, {"statistics": "test"})
    for site in ("mlp_in", "down_in"):
        found, expected = (Statistics(files).block(1).experts[site] for files in (merged, [tmp_path / "whole.json"]))
        for name, values in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)
    assert Statistics(merged).block(0).experts.get("down_in") is None  # a dense block


def test_an_expert_without_tokens_has_none_and_nothing(checkpoints, tmp_path) -> None:
    ids = np.random.default_rng(3).integers(160, size=(1, 2))  # two tokens go to at most four of six experts
    tokens = write_windows(tmp_path / "tokens.arrow", ids)
    settings = capture_settings(sites=tuple(SITES))
    capture(checkpoints["moe"], tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    statistics = Statistics([tmp_path / "x.json"])
    counts = np.bincount(statistics.block(1).site("router").lists("expert_choices")[0], minlength=6)
    assert (counts == 0).sum() >= 2
    rows = arrow.read(tmp_path / "x" / experts_name(1))[0].to_pandas()
    for _, row in rows.iterrows():
        assert row["tokens"] == counts[row["expert"]]
        assert (row["sum_2"] is None) == (row["max_abs"] is None) == (row["tokens"] == 0)
    assert (statistics.block(1).experts["down_in"].sum_2_EC[counts == 0] == 0).all()
