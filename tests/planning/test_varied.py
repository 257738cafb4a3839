"""What a pass with variants is said to take."""

from dataclasses import replace

import pytest
from configurations import minimal
from outlier_features.config.config import Config
from outlier_features.models.sizes import Footprint
from outlier_features.planning import estimate, varied
from outlier_features.planning.estimate import Pass

VARIANTS = {"a": {"format": "absmax"}, "b": {"format": "int4", "models": ["two"]}}
INTERVENTIONS = {"i": {"channels": [1], "set_to": ["zero", "mean"], "controls": {"random": 3, "equal_size": 5}}}


def counted(**vary: object) -> varied.Runs:
    values = minimal() | {"variants": VARIANTS, "interventions": INTERVENTIONS, "vary": vary}
    values["models"] = {"one": {"path": "somewhere"}, "two": {"path": "elsewhere"}}
    return varied.Runs.of(Config.check(values), "one")


def test_every_format_its_noise_and_every_draw_is_a_run() -> None:
    assert counted() == varied.Runs(total=1 + 2 + 2 * 9, calibrating=4, compared=4, formats=1)
    assert counted(noise=False).total == 1 + 1 + 2 * 9


def test_weights_are_read_once_and_hidden_states_are_kept_of_every_run(sizes: dict[str, Footprint]) -> None:
    footprint = next(iter(sizes.values()))
    run = Pass(16, 2048, "bfloat16", sites=0, counted=0)
    one, many = (varied.estimate(footprint, run, varied.Runs(n, 4, 4, 1)) for n in (1, 33))
    alone = estimate.estimate(footprint, run)
    assert one.read_bytes == many.read_bytes == alone.read_bytes
    assert many.hidden_bytes - one.hidden_bytes == 2 * 32 * run.tokens * footprint.channels * 2
    assert many.device_bytes - one.device_bytes == pytest.approx(many.hidden_bytes - one.hidden_bytes)
    assert many.operations > 25 * alone.operations


def test_as_many_runs_fit_as_their_hidden_states_do(sizes: dict[str, Footprint]) -> None:
    footprint, run = next(iter(sizes.values())), Pass(16, 2048, "bfloat16", sites=0, counted=0)
    runs = varied.Runs(1, 4, 4, 1)
    memory = varied.estimate(footprint, run, replace(runs, total=9)).device_bytes
    assert varied.most_runs(footprint, run, runs, memory + 1) == 9
    assert varied.most_runs(footprint, run, runs, 0) == 0
