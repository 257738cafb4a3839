"""Entries of variants and interventions: what is refused, and how it is said."""

from typing import Any

import pytest
from configurations import minimal
from outlier_features.config.config import Config
from outlier_features.config.variants import Intervention, Variant
from outlier_features.errors import ConfigError


def config(**entries: Any) -> Config:
    return Config.check(minimal() | entries)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "format": (
        {"variants": {"v": {"format": "int3"}}},
        r"variants\.v.*unknown format 'int3' .did you mean 'int4'",
    ),
    "list": ({"variants": {"v": {"format": "fp16"}}}, r"known: none, absmax, row_wise, .*nvfp4"),
    "option": ({"variants": {"v": {"format": "int4", "rotatee": "hadamard"}}}, r"variants\.v\.rotatee.*rotate"),
    "two options": (
        {"variants": {"v": {"format": "int4", "smooth": 0.5, "keep_channels": 1}}},
        r"keep_channels and smooth: a variant has one option at most",
    ),
    "option of none": ({"variants": {"v": {"format": "none", "smooth": 0.5}}}, r"smooth: format none rounds nothing"),
    "keep above weights": (
        {"variants": {"v": {"format": "int4_weight_g128", "keep_above": 6.0}}},
        r"keep_above is for formats that quantise inputs; with weights only use keep_channels",
    ),
    "weights twice": (
        {"variants": {"v": {"format": "int8_weight_g128", "weights_only": True}}},
        r"quantises nothing else; leave it out",
    ),
    "blocks of rotation": ({"variants": {"v": {"format": "int4", "rotate": 24}}}, r"give hadamard, or a power of two"),
    "site": ({"variants": {"v": {"format": "int4", "sites": ["keys"]}}}, r"variants\.v\.sites"),
    "neither": ({"interventions": {"i": {}}}, r"give exactly one of channels, experts"),
    "place": ({"interventions": {"i": {"channels": [1], "at": ["down_in"]}}}, r"interventions\.i\.at.*attn_in"),
    "definition": ({"interventions": {"i": {"channels": "strikt"}}}, r"strikt.*did you mean 'strict'"),
    "model": ({"variants": {"v": {"format": "int4", "models": ["nobody"]}}}, r"variants\.v\.models.*nobody"),
    "windows": (
        {"variants": {"v": {"format": "int4", "calibration": "measured", "windows": 999}}},
        r"999 are more than corpora\.\S+\.sequences",
    ),
    "equal size of experts": (
        {"interventions": {"i": {"experts": "super", "controls": {"equal_size": 3}}}},
        r"controls\.equal_size is for channels",
    ),
    "same name": (
        {"variants": {"x": {"format": "int4"}}, "interventions": {"x": {"channels": [1]}}},
        r"interventions\.x: a variant has this name too",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_named_with_what_helps(case: str) -> None:
    entries, words = BAD[case]
    with pytest.raises(ConfigError, match=words):
        config(**entries)


def test_the_examples_of_the_design_are_taken() -> None:
    found = config(
        variants={
            "llm_int8": {"format": "vector_wise", "keep_above": 6.0},
            "mxfp4_keep4": {"format": "mxfp4", "keep_channels": 4, "blocks": [0]},
        },
        interventions={
            "sinks": {
                "channels": "strict",
                "at": ["attn_in", "mlp_in"],
                "set_to": ["zero", "mean"],
                "controls": {"random": 39, "equal_size": 39},
            },
            "router": {"channels": {"largest": 2}, "at": ["router"], "models": ["one"]},
        },
    )
    assert found.variants["llm_int8"].option == "keep_above 6"
    assert found.variants["mxfp4_keep4"].option == "keep_channels 4, blocks 0"
    model = found.chosen.models[0]
    assert found.is_varied(model)
    assert found.needs_capture(model)


def test_the_models_of_an_entry_are_no_part_of_what_its_results_follow_from() -> None:
    assert Variant(format="int4", models=("a",)).result() == Variant(format="int4").result() == {"format": "int4"}
    assert not Variant(format="int4", models=("a",)).is_for("b")
    assert Intervention(channels=(1,)).is_for("b")
