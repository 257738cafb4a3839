"""Exports are whole, of one lineage, and load as docs/exports.md shows."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from exports import DEFINITIONS, LINEAGE, SCALES, Exported
from outlier_features.artefacts import paths
from outlier_features.cli import commands
from outlier_features.errors import StaleFile
from outlier_features.exports.export import export
from projects import HOSTILE as MARKUP
from projects import PROJECT, words_project
from small_models import BLOCKS, PLANTED


def test_stale_tables_are_refused(exported: dict[str, Exported], manifests: dict[str, Path], tmp_path: Path) -> None:
    found, manifest = exported["dense"], manifests["dense"]
    for name in ("reduction m", "perplexity m", "statistics"):
        with pytest.raises(StaleFile, match="lineage test"):
            export(found.entry, [manifest], DEFINITIONS, "words", tmp_path, LINEAGE | {name: "other"})


def test_the_files_are_as_readable_as_any_other(exported: dict[str, Exported]) -> None:
    modes = {path.name: path.stat().st_mode for path in exported["dense"].folder.iterdir()}
    assert modes.keys() == {"imatrix.gguf", *(path.name for path in paths.of("export", "words", "moe").values())}
    assert len(set(modes.values())) == 1


SNIPPETS = re.findall(r"^```python\n(.*?)^```", (PROJECT / "docs/exports.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def documented(exported, checkpoints, tmp_path, monkeypatch) -> Path:
    """A folder with the files that docs/exports.md names, of the small dense model."""
    monkeypatch.chdir(tmp_path)
    for path, target in (
        (paths.export("sotu", "smollm2-135m"), exported["dense"].folder),
        (paths.checkpoint("smollm2-135m"), checkpoints["dense"]),
    ):
        path.parent.mkdir(parents=True)
        path.symlink_to(target)
    return tmp_path


def test_the_documentation_has_snippets_for_every_file() -> None:
    assert len(SNIPPETS) == 8
    for name in ("outlier_channels.json", "calibration.json", "imatrix.gguf", *(f"{n}.safetensors" for n in SCALES)):
        folder = "results/sotu/export/smollm2-135m"
        assert any(folder in snippet and f"/{name}" in snippet for snippet in SNIPPETS)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_documentation_runs(number: int, documented: Path, capsys) -> None:
    exec(compile(SNIPPETS[number], f"snippet {number}", "exec"), {"__name__": "snippet"})
    printed = capsys.readouterr().out
    assert "model.layers.0" in printed or "blk.0.ffn_down.weight.in_sum2: 1 x 56" in printed


def test_smoothing_by_the_documentation_moves_the_planted_range_into_the_weights(documented: Path) -> None:
    variables: dict[str, Any] = {"__name__": "snippet"}
    exec(SNIPPETS[1], variables)
    assert not torch.equal(variables["before"], variables["after"])
    gain = variables["model"].model.layers[0].input_layernorm.weight
    assert 0 < gain[max(PLANTED, key=PLANTED.get)] < max(PLANTED.values()) / 1.5
    assert variables["spread"] > 1.5 * variables["smoothed"]


def test_compressed_tensors_runs_with_the_scales_of_every_matrix_and_cache(documented: Path) -> None:
    variables: dict[str, Any] = {"__name__": "snippet"}
    exec(next(snippet for snippet in SNIPPETS if "compressed_tensors" in snippet), variables)
    state, scales = variables["model"].state_dict(), variables["scales"]
    assert len(variables["wanted"]) == BLOCKS * (7 + 2)
    for name in variables["wanted"]:
        assert torch.equal(state[name], scales[name])
    assert 15 < 10 * torch.log10(variables["ratio"]) < 60


def test_the_command_writes_every_file_and_nothing_twice(tmp_path, monkeypatch, capsys) -> None:
    project = words_project(tmp_path)
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["experiments"]["demo"]["models"] = ["moe"]
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(project)
    for stage in ("train", "tokenize", "capture", "reduce", "summarize"):
        commands.main([stage])
    commands.main(["export"])
    files = {path.name for path in paths.export("words", "moe").iterdir()}
    assert files == {"imatrix.gguf", *(path.name for path in paths.of("export", "words", "moe").values())}
    label = "".join(f"\\{letter}" if letter == "<" else letter for letter in MARKUP)
    assert f"| {label} | " in paths.of("export_summary", "words")["markdown"].read_text()
    capsys.readouterr()
    commands.main(["export"])
    assert "up to date: results/words/export/moe/outlier_channels.json" in capsys.readouterr().out
