"""The runs of a pass: their order, their names, their draws, and the first block that each changes."""

import numpy as np
import pytest
from outlier_features.config.variants import Intervention, Variant
from outlier_features.errors import ConfigError
from outlier_features.variants.runs import Found, Shape, generator, runs

SHAPE = Shape("toy", 16, {1: 4, 2: 4}, 3, True)
VARIANTS = {"a": Variant(format="absmax"), "late": Variant(format="int4", blocks=(2,))}
CONTROLS = {"random": 2, "equal_size": 1}


def named(*, noise: bool = True, **entries: dict) -> list:
    interventions = {name: Intervention.model_validate(entry) for name, entry in entries.items()}
    return runs(VARIANTS, interventions, SHAPE, Found(), noise)


def test_the_plain_model_is_first_and_noise_follows_its_format() -> None:
    found = named(i={"channels": [3], "set_to": ["zero", "mean"], "controls": CONTROLS})
    assert [run.key for run in found][:5] == ["plain", "a/format", "a/noise", "late/format", "late/noise"]
    assert [run.key for run in found][5:9] == [
        "i/real/zero",
        "i/random/zero/0",
        "i/random/zero/1",
        "i/equal_size/zero/0",
    ]
    assert len({run.key for run in found}) == len(found) == 5 + 8
    assert [run.first for run in found[:4]] == [0, 0, 0, 2]
    assert [run.changes(1) for run in found[:4]] == [False, True, True, False]
    assert [run.key for run in named(noise=False)] == ["plain", "a/format", "late/format"]


def test_draws_depend_on_nothing_but_their_names_and_seed() -> None:
    alone = {run.key: run for run in named(i={"channels": [3], "controls": CONTROLS})}
    beside = {run.key: run for run in named(h={"channels": [4]}, i={"channels": [3], "controls": CONTROLS})}
    assert alone["i/random/zero/1"].channels == beside["i/random/zero/1"].channels
    np.testing.assert_array_equal(
        alone["i/equal_size/zero/0"].change.directions_Ck, beside["i/equal_size/zero/0"].change.directions_Ck
    )
    other = {run.key: run for run in named(i={"channels": [3], "controls": {"random": 20}, "seed": 1})}
    first = {run.key: run for run in named(i={"channels": [3], "controls": {"random": 20}})}
    assert [r.channels for r in other.values()] != [r.channels for r in first.values()]
    assert generator(0, "a", 1).integers(1 << 30) == generator(0, "a", 1).integers(1 << 30)


def test_experts_and_their_controls_begin_at_their_first_block() -> None:
    found = named(e={"experts": {2: [0]}, "controls": {"random": 1}})[5:]
    assert [(run.key, run.first) for run in found] == [("e/real/zero", 2), ("e/random/zero/0", 2)]
    assert found[0].changes(2)
    assert not found[0].changes(1)


def test_so_many_channels_that_no_others_are_left_cannot_be_drawn() -> None:
    with pytest.raises(ConfigError, match=r"16 channels, so 9 others cannot be drawn; leave random out"):
        named(i={"channels": list(range(9)), "controls": {"random": 1}})
