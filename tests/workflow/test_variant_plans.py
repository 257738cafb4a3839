"""Variants in the workflow: their jobs, what makes them stale and what does not, in one part and in two."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from projects import copy_of, write_config
from workflows import Workflows

pytestmark = pytest.mark.slow

VARIANTS: dict[str, Any] = {"int8": {"format": "absmax"}, "static": {"format": "w8a8_static"}}
INTERVENTIONS: dict[str, Any] = {
    "largest": {"channels": {"largest": 2}, "controls": {"random": 2, "equal_size": 2}, "models": ["dense"]},
    "router": {"channels": [3], "at": ["router"], "models": ["moe"]},
}
TABLES = ("quantization", "sqnr", "interventions")
GOALS = tuple(f"results/words/{name}/{model}.parquet" for name in TABLES for model in ("dense", "moe"))


def varied(**changes: Any) -> Any:
    def change(config: dict[str, Any]) -> None:
        config |= {"variants": VARIANTS, "interventions": INTERVENTIONS} | changes
        config["capture"]["scatter"] = changes.get("scatter", 1)
        config.pop("scatter", None)

    return change


@pytest.fixture(scope="module")
def project(workflows: Workflows, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copy_of(finished, tmp_path_factory.mktemp("varied"))
    write_config(project, varied())
    assert workflows.plan(project, *GOALS) == {"calibrate": 2, "vary": 2, "evaluate_variants": 2}
    ended = workflows.snakemake(project, *GOALS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return project


def tables(project: Path) -> dict[str, pd.DataFrame]:
    return {goal: pd.read_parquet(project / goal) for goal in GOALS}


def test_every_model_has_its_variants_and_its_interventions(project: Path) -> None:
    found = tables(project)
    for model in ("dense", "moe"):
        costs = found[f"results/words/quantization/{model}.parquet"]
        assert costs["variant"].tolist() == ["int8", "static"]
        assert costs["delta_nll"].notna().all()
    dense = found["results/words/interventions/dense.parquet"]
    assert dense["kind"].value_counts().to_dict() == {"plain": 1, "real": 1, "random": 2, "equal_size": 2}
    moe = found["results/words/interventions/moe.parquet"]
    assert moe["intervention"].tolist() == ["", "router"]
    assert moe.loc[1, "jaccard"] <= 1


def test_only_what_a_change_touches_runs_again(workflows: Workflows, project: Path) -> None:
    assert workflows.plan(project, *GOALS) == {}
    steps: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
        "a new variant makes no capture stale": (
            {"variants": VARIANTS | {"more": {"format": "int4", "models": ["dense"]}}},
            {"vary": 1, "evaluate_variants": 1},
        ),
        "an intervention of one model": (
            {"interventions": INTERVENTIONS | {"router": {"channels": [4], "at": ["router"], "models": ["moe"]}}},
            {"vary": 1, "evaluate_variants": 1},
        ),
        "more calibration windows": (
            {"variants": VARIANTS | {"static": {"format": "w8a8_static", "windows": 5}}},
            {"calibrate": 2, "vary": 2, "evaluate_variants": 2},
        ),
    }
    for what, (changes, wanted) in steps.items():
        write_config(project, varied(**changes))
        assert workflows.plan(project, *GOALS) == wanted, what
    write_config(project, varied())


def test_two_parts_have_the_tables_of_one_job(workflows: Workflows, project: Path, tmp_path: Path) -> None:
    parts = copy_of(project, tmp_path / "parts")
    write_config(parts, varied(scatter=2))
    for goal in GOALS:
        (parts / goal).unlink()
    ended = workflows.snakemake(parts, *GOALS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for goal, whole in tables(project).items():
        pd.testing.assert_frame_equal(tables(parts)[goal], whole, check_exact=False, rtol=1e-9)
