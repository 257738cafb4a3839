"""The plan of an experiment: sizes and costs before anything is fetched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from families import FAMILIES, save_family
from hub_server import HubServer, Repository, environment
from outlier_features.cli import commands
from outlier_features.cli.show_plan import CONVENTIONS
from outlier_features.pipeline.inventory import plans
from projects import PROJECT, words_project
from published_sizes import CONFIGURATIONS, ROUNDED_TO_BILLIONS, experiment


def test_a_plan_of_the_sweep_needs_no_hub_and_knows_the_published_sizes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    arguments = ["plan", "--experiment", "moe_vs_dense", "--configurations", str(CONFIGURATIONS)]
    commands.main([*arguments, "--format", "json", "--flops", "1e14", "--bandwidth", "2e9"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["hub"] for row in rows] == [
        experiment("moe_vs_dense").models[name].hub for name in experiment("moe_vs_dense").chosen.models
    ]
    for row in rows:
        assert abs(row["total_difference_pct"]) < 2
        assert abs(row["active_difference_pct"]) < (10 if row["hub"] in ROUNDED_TO_BILLIONS else 2)
        assert row["convention"] in CONVENTIONS
        assert not row["is_download_known"]
        assert row["seconds"] >= row["read_bytes"] / 2e9
    commands.main(arguments)
    table = capsys.readouterr().out
    assert all(len(line) <= 120 for line in table.splitlines())
    assert "GPT-OSS-120B" in table
    assert "head counted, embedding not" in table


def test_the_variants_of_twelve_models_are_planned_and_priced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(PROJECT)
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["variants"] = {"llm_int8": {"format": "vector_wise", "keep_above": 6.0}, "nvfp4": {"format": "nvfp4"}}
    moe = ["olmoe-1b-7b", "gpt-oss-20b"]
    routing = {"channels": "llm_int8", "at": ["router"], "controls": {"random": 39, "equal_size": 99}, "models": moe}
    config["interventions"] = {"routing": routing}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config", str(tmp_path / "config.yaml"), "plan", "--experiment", "moe_vs_dense"]
    arguments += ["--configurations", str(CONFIGURATIONS)]
    commands.main([*arguments, "--format", "json"])
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows) == 12
    assert {name: row["variant_runs"] for name, row in rows.items()} == {name: 5 + 139 * (name in moe) for name in rows}
    assert rows["qwen3-8b"]["variants"] == ["llm_int8", "nvfp4"]
    for row in rows.values():
        assert row["variants_read_bytes"] == row["read_bytes"]
        assert row["variants_hidden_bytes"] > row["variant_runs"] * 2 * 16 * 2048 * 1024 * 2
        assert row["variants_seconds"] >= row["seconds"]
    commands.main(arguments)
    table = capsys.readouterr().out
    assert all(len(line) <= 120 for line in table.splitlines())
    assert "llm_int8, nvfp4, routing" in table


@pytest.mark.slow
def test_models_that_need_no_hub_are_planned_from_their_recipes_and_packages() -> None:
    found = {plan.model: plan for plan in plans(experiment("demo"))}
    assert found["tiny-moe"].footprint.counts["experts"] == 8
    assert found["smollm2-135m"].footprint.counts["total_params"] == 134_515_008
    assert all(plan.is_download_known and plan.download_bytes == 0 for plan in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("described", "told"), [({}, None), ({"model_type": "mamba"}, "mamba has no attention heads")])
def test_a_model_of_the_hub_is_planned_or_refused_without_its_weights(
    tmp_path: Path, described: dict[str, str], told: str | None
) -> None:
    directory = save_family(FAMILIES["llama"], tmp_path / "published")
    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if described:
        (directory / "config.json").write_text(json.dumps(described))

    def change(config: dict) -> None:
        config["models"] = {"dense": {"hub": "org/model", "revision": "a" * 40}}
        config["experiments"] = {"demo": {"models": ["dense"], "corpus": "words"}}

    project = words_project(tmp_path / "project", change)
    with HubServer(models={"org/model": Repository({"a" * 40: directory})}) as hub:
        ended = subprocess.run(
            [sys.executable, "-m", "outlier_features", "plan", "--format", "json"],
            env=environment(hub, tmp_path / "home", PYTHONPATH=str(project / "workflow")),
            cwd=project,
            capture_output=True,
            text=True,
        )
        assert hub.seen("GET .*safetensors$") == []
    if told is None:
        (row,) = json.loads(ended.stdout)
        assert row["download_bytes"] == row["read_bytes"] == stored
    else:
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].startswith(f"error: org/model@aaaaaaaaaaaa: {told}")
