"""The command line runs every stage without Snakemake, to the results Snakemake would write."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from outlier_features.cli import commands
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError, DamagedFile, StaleFile
from outlier_features.metrics.evaluate import TABLES
from outlier_features.pipeline.inventory import plans

PROJECT = Path(__file__).parents[2]
SENTENCE = "Outlier features of a language model live in a few channels; they are large, and déjà vu. "
ARCHITECTURE = {
    "model_type": "qwen3_moe",
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
MADE_ONCE = ("train", "tokenize", "capture", "reduce", "summarize", "infer")
STAGES = (*MADE_ONCE, "reproduce", "plot", "export", "page")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config of one small trained model, run to the end by the command line."""
    folder = tmp_path_factory.mktemp("project")
    config = yaml.safe_load((PROJECT / "config.yaml").read_text())
    recipe = {"corpus": "words", "vocabulary": 300, "steps": 2, "batch": 2, "length": 16, "learning_rate": 0.01}
    config["experiments"] = {"demo": {"models": ["moe"], "corpus": "words"}}
    config["models"] = {"moe": {"dtype": "float32", "train": recipe | {"architecture": ARCHITECTURE}}}
    text = {"path": "text", "files": ["a.txt"], "training": ["b.txt"]}
    config["corpora"] = {"words": text | {"sequences": 3, "length": 24}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "text").mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / "text" / name).write_text(SENTENCE * 60)
    (folder / "resources").symlink_to(PROJECT / "resources")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in STAGES:
            commands.main([stage])
    return folder


def test_every_result_is_there(project: Path) -> None:
    names = {path.relative_to(project / "results").as_posix() for path in (project / "results").rglob("*")}
    expected = {"checkpoints/moe/source.json", "words/tokens/moe.arrow", "words/statistics/moe.json"}
    expected |= {"words/statistics/moe/block-001.arrow", "words/statistics/moe/losses.arrow"}
    expected |= {f"words/{table}/moe.parquet" for table in TABLES}
    expected |= {"words/inference.parquet", "words/inference.json", "words/export/summary.tex"}
    expected |= {f"words/export/moe/{name}" for name in ("outlier_channels.json", "act_scales.safetensors", "table.md")}
    expected |= {f"words/summary.{suffix}" for suffix in ("parquet", "csv", "json")}
    expected |= {"words/reproduction.csv", "words/reproduction.md", "index.html"}
    expected |= {"words/statistics/moe/timings.arrow", "words/timings/moe.svg"}
    expected |= {"plots/moe_vs_dense.png", "plots/moe_vs_dense.svg", "plots/channel_map/moe.png"}
    assert expected <= names
    assert not [name for name in names if "unfinished" in name]
    assert "plots/training.png" not in names  # the experiment has no series


def test_what_follows_is_said_of_the_experiment_and_of_the_published_table(project, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    commands.main(["infer"])
    assert "nothing can be concluded about a phase shift" in capsys.readouterr().out
    commands.main(["infer", "--published"])
    said = capsys.readouterr().out
    assert said.startswith("12 models (5 dense, 7 mixture of experts), definition arb8020: No jump")
    assert "- Dense models alone (5): too few to test for a jump." in said


def test_the_summary_has_a_row_per_definition_and_says_what_the_model_is(project: Path) -> None:
    summary = pd.read_parquet(project / "results/words/summary.parquet")
    names = ["arb8020", "llm_int8", "llm_int8_paper"]
    assert summary["definition"].tolist() == [*names, *(f"{name}_rms" for name in names)]
    row = summary.iloc[0]
    assert (row["kind"], row["experts"], row["top_k"]) == ("moe", 4, 2)
    assert (row["architecture"], row["corpus"]) == ("Qwen3MoeForCausalLM", "words")
    experts = 2 * 4 * 3 * 24 * 32
    assert row["total_params"] - row["active_params"] == experts / 2
    assert row["sparsity"] == row["active_params"] / row["total_params"]
    columns = (
        "outlier_count",
        "distinct_channels",
        "mean_layer_pct",
        "mean_layer_pct_low",
        "perplexity",
        "kurtosis_max",
    )
    assert set(columns) <= set(summary.columns)
    assert json.loads((project / "results/words/summary.json").read_text())["models"][0]["model"] == "moe"
    assert len(pd.read_csv(project / "results/words/summary.csv")) == 6


def test_a_second_run_makes_nothing_again(project: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    times = {path: path.stat().st_mtime_ns for path in Path("results/words").rglob("*") if path.is_file()}
    for stage in MADE_ONCE:
        commands.main([stage])
    assert "making" not in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in Path("results/words").rglob("*") if path.is_file()}


def test_the_published_comparison_of_a_model_of_ones_own_says_that_there_is_nothing_to_compare(project: Path) -> None:
    text = (project / "results/words/reproduction.md").read_text(encoding="utf-8")
    assert "measured on 3 sequences of 24 tokens of the corpus `words` (packed windows)" in text
    assert "No measured model is in the published table" in text
    assert "**Measured, not in the published table:** moe." in text


def test_a_stage_whose_input_is_stale_is_refused_by_name(project: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(project)
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["corpora"]["words"]["sequences"] = 2
    changed = tmp_path / "config.yaml"
    changed.write_text(yaml.safe_dump(config))
    with pytest.raises(StaleFile, match=r"results/words/statistics/moe\.json: made from other"):
        commands.main(["--config", str(changed), "reduce"])


@pytest.fixture
def scattered(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project whose three windows are three parts."""
    shutil.copytree(project, tmp_path, symlinks=True, dirs_exist_ok=True)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["capture"]["scatter"] = 3
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_windows_captured_part_by_part_give_the_same_tables(scattered: Path, capsys) -> None:
    tables = [scattered / f"results/words/{name}/moe.parquet" for name in ("outliers", "channels", "layers")]
    perplexity = scattered / "results/words/perplexity/moe.json"
    before = [pd.read_parquet(path) for path in tables], json.loads(perplexity.read_text())
    shutil.rmtree(scattered / "results/words/statistics")
    commands.main(["capture", "--part", "2"])
    assert [path.name for path in scattered.glob("results/words/statistics/*.json")] == ["moe.2-of-3.json"]
    with pytest.raises(DamagedFile, match=r"moe\.1-of-3\.json: missing; run snakemake, or the stage capture"):
        commands.main(["reduce", "--force"])
    capsys.readouterr()
    commands.main(["capture"])
    lines = capsys.readouterr().out.splitlines()
    said = [line.split(": results/words/statistics/") for line in lines if ": results/words/statistics/" in line]
    assert said == [["making", "moe.1-of-3.json"], ["up to date", "moe.2-of-3.json"], ["making", "moe.3-of-3.json"]]
    for path in (*tables, perplexity):
        path.unlink()
    commands.main(["reduce"])
    for path, expected in zip(tables, before[0], strict=True):
        pd.testing.assert_frame_equal(pd.read_parquet(path), expected, check_exact=True)
    assert json.loads(perplexity.read_text()) == before[1]


def test_the_statistics_are_there_once_every_part_is(scattered: Path) -> None:
    config = Config.read(Path("config.yaml"))
    assert plans(config)[0].cached == ("checkpoint", "tokens", "tables")
    commands.main(["capture"])
    assert plans(config)[0].cached == ("checkpoint", "tokens", "statistics", "tables")
    Path("results/words/statistics/moe.3-of-3.json").unlink()
    assert plans(config)[0].cached == ("checkpoint", "tokens", "tables")


@pytest.mark.parametrize("part", ["0", "4"])
def test_a_part_that_is_none_is_one_line(part: str, scattered: Path) -> None:
    with pytest.raises(ConfigError, match=rf"--part {part}: capture\.scatter is 3; give a part of 1 to 3"):
        commands.main(["capture", "--part", part])


def test_show_prints_the_summary(project: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    commands.main(["show", "--definition", "llm_int8"])
    assert "moe" in capsys.readouterr().out
    commands.main(["show", "--format", "json"])
    assert len(json.loads(capsys.readouterr().out)) == 6


def test_show_keeps_a_kind_and_a_family_and_sorts_either_way(project: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)

    def definitions(*arguments: str) -> list[str]:
        commands.main(["show", "--format", "json", *arguments])
        return [row["definition"] for row in json.loads(capsys.readouterr().out)]

    assert len(definitions("--kind", "moe", "--family", "qwen3moe")) == 6
    assert definitions("--kind", "dense") == []
    ascending = definitions("--sort", "definition")
    assert ascending == sorted(ascending)
    assert definitions("--sort", "definition", "--descending") == ascending[::-1]


def test_a_run_is_compared_with_one_of_other_windows_and_another_definition(
    project: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    before = project / "results/words/summary.parquet"
    shutil.copytree(project, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    commands.main(["show", "--against", str(before)])
    printed = capsys.readouterr().out
    assert "Nothing moved: all 34 values are the same." in printed
    assert "Both were measured on the same windows" in printed
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["corpora"]["words"]["sequences"] = 2
    config["definitions"]["strict"] = config["definitions"].pop("llm_int8") | {"threshold": 8}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    for stage in ("tokenize", "capture", "reduce", "summarize"):
        commands.main([stage])
    capsys.readouterr()
    commands.main(["show", "--against", str(before), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert [warning.partition(". ")[0] for warning in found["warnings"]] == [
        "Only in this run: definitions strict, strict_rms.",
        "Only in the other run: definitions llm_int8, llm_int8_rms.",
        "Different number of sequences (model moe): 2 in this run, 3 in the other",
    ]
    assert found["origins"][-1].endswith("reduction of moe; perplexity of moe.")
    old, new = (pd.read_parquet(path).iloc[0]["perplexity"] for path in (before, "results/words/summary.parquet"))
    (row,) = [row for row in found["rows"] if row["quantity"] == "perplexity"]
    assert (row["value"], row["against"]) == pytest.approx((new, old), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "results/words/summary.csv"], "summary.csv: not a readable parquet file"),
        (["--against", "text"], "text holds no summary.parquet"),
        (["--against", "nowhere.parquet"], "no file, folder or kept run 'nowhere.parquet'; kept runs: demo."),
        (["--against", "results/words/layers/moe.parquet"], "layers/moe.parquet: no summary"),
        (["--against", "results/words/summary.parquet", "--plot"], "leave --plot or --against out"),
        (["--family", "llama"], "unknown family 'llama': no architecture begins so; present: Qwen3MoeForCausalLM"),
        (["--descending"], "name it with --sort"),
    ],
)
def test_what_show_cannot_do_is_one_line(arguments: list[str], words: str, project: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(ConfigError, match=re.escape(words)):
        commands.main(["show", *arguments])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["capture", "mo"], "unknown model 'mo'.*moe"), (["--experiment", "x", "show"], "experiment: unknown 'x'")],
)
def test_a_wrong_name_is_one_line(arguments: list[str], words: str, project: Path, monkeypatch) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(ConfigError, match=words):
        commands.main(arguments)
