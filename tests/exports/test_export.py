"""Exports equal what hooks on the matrices of a plain forward see, and load as docs/exports.md shows."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import BLOCKS, DENSE, HIDDEN, LENGTH, PLANTED, WINDOWS, capture_settings, save_checkpoint
from markdown_it import MarkdownIt
from naive_features import naive_features
from outlier_features.artefacts import paths
from outlier_features.capture.run import capture
from outlier_features.cli import commands
from outlier_features.config.entries import Definition
from outlier_features.config.parts import parts, windows
from outlier_features.errors import StaleFile
from outlier_features.experiment.summary import Entry, summarize, write_summary
from outlier_features.exports.export import export, export_summary
from outlier_features.metrics.evaluate import TABLES, reduce
from outlier_features.metrics.perplexity import write_perplexity
from projects import HOSTILE as MARKUP
from projects import words_project
from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

REPOSITORY = Path(__file__).parents[2]
DEFINITIONS = {
    "arb8020": Definition(sites=("attn_in", "mlp_in"), scope="sequence", rounding="bfloat16"),
    "llm_int8": Definition(sites=("attn_in", "mlp_in")),
    "llm_int8_paper": Definition(sites=("attn_in", "out_proj_in", "mlp_in")),
}
LINEAGE = {"export": "test", "statistics": "test", "reduction m": "test", "perplexity m": "test"}
SCALES = ("act_scales", "act_scales_rest", "importance")


def consumers(kind: str, blocks: int = BLOCKS) -> dict[str, list[str]]:
    """The matrices of the small Qwen3 models, by tensor; block 0 of the mixture is dense."""
    found = {}
    for block in range(blocks):
        name = f"model.layers.{block}"
        found[f"{block}.attn_in"] = [f"{name}.self_attn.{matrix}_proj" for matrix in "qkv"]
        found[f"{block}.out_proj_in"] = [f"{name}.self_attn.o_proj"]
        mlp = ("experts", "gate") if kind == "moe" and block else ("gate_proj", "up_proj")
        found[f"{block}.mlp_in"] = [f"{name}.mlp.{matrix}" for matrix in mlp]
    return found


def tables(manifests: Sequence[Path], tokens: Path, folder: Path, definitions: dict[str, Definition]) -> Entry:
    """Reduce statistics to the tables of the model `m` in `folder`."""
    files = {name: folder / f"{name}.parquet" for name in TABLES} | {"answer": folder / "answer.json"}
    reduce(manifests, files, definitions, {"reduction": "test", "statistics": "test"})
    quality = folder / "perplexity.json"
    write_perplexity(manifests, tokens, quality, {"perplexity": "test", "statistics": "test"})
    return Entry("m", "100 % of_it & more", "train", None, None, None, files["outliers"], files["layers"], quality)


class Exported:
    """An export and what it was made from."""

    def __init__(self, folder: Path, manifests: Sequence[Path], tokens: Path, **changes: Any) -> None:
        self.definitions = changes.pop("definitions", DEFINITIONS)
        self.entry = replace(tables(manifests, tokens, folder, self.definitions), **changes)
        self.folder = folder / "export"
        export(self.entry, manifests, self.definitions, "words", self.folder, LINEAGE)

    @property
    def channels(self) -> dict[str, Any]:
        """The JSON, which must be strict, in the form that is documented."""
        found = json.loads((self.folder / "outlier_channels.json").read_text(), parse_constant=pytest.fail)
        schema = json.loads((REPOSITORY / "resources/schemas/outlier_channels.json").read_text())
        jsonschema.validate(found, schema)
        return found

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        return load_file(self.folder / f"{name}.safetensors")

    def metadata(self, name: str) -> dict[str, str]:
        with safe_open(self.folder / f"{name}.safetensors", "numpy") as opened:
            return opened.metadata()

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture(scope="module")
def exported(manifests: dict[str, Path], tokens: Path, tmp_path_factory) -> dict[str, Exported]:
    found = {}
    for kind, manifest in manifests.items():
        folder = tmp_path_factory.mktemp(kind)
        found[kind] = Exported(folder, [manifest], tokens)
    return found


def keep(seen: list[np.ndarray]) -> Callable[[Any, tuple], None]:
    return lambda _module, args: seen.append(args[0].reshape(LENGTH, -1).double().numpy())


@pytest.fixture(scope="module")
def inputs(checkpoints: dict[str, Path], ids: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Per model, what each matrix reads (S, T, C) in float64, by hooks on the matrices of an ordinary forward."""
    result = {}
    for kind, checkpoint in checkpoints.items():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        seen: dict[str, list[np.ndarray]] = {name: [] for names in consumers(kind).values() for name in names}
        for name, kept in seen.items():
            model.get_submodule(name).register_forward_pre_hook(keep(kept))
        with torch.inference_mode():
            for window in ids:
                model(torch.from_numpy(window).long()[None], use_cache=False)
        result[kind] = {name: np.stack(parts) for name, parts in seen.items()}
    return result


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
        assert "never zeros: down projections" in metadata["absent"]
        assert ("experts" in metadata) == (kind == "moe")
        expected = WINDOWS * (LENGTH - 1) if name == "act_scales_rest" else WINDOWS * LENGTH
        assert int(metadata["tokens"]) == expected
        assert (metadata["corpus"], metadata["dtype"]) == ("words", "float32")
        assert json.loads(metadata["provenance"])["lineage"] == LINEAGE


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_outlier_channels_equal_the_naive_float64_computation(kind, name, relative, exported, inputs) -> None:
    definition, readers = DEFINITIONS[name], consumers(kind)
    raw = {
        site: [inputs[kind][readers[f"{block}.{site}"][0]] for block in range(BLOCKS)]
        for site in ("attn_in", "out_proj_in", "mlp_in")
    }
    features = naive_features(raw, definition, relative)
    each = definition.model_copy(update={"scope": "sequence"})
    qualifying = naive_features(raw, each, relative)["channel"].value_counts()
    found = exported[kind].channels["definitions"][name + "_rms" * relative]
    assert found["channels"] == sorted(set(features["channel"]))
    assert set(PLANTED) & set(found["channels"])
    assert found["threshold_unit"] == ("rms" if relative else "absolute")
    expected = {}
    for block in range(BLOCKS):
        for site in definition.sites:
            x_STC = raw[site][block]
            if definition.rounding and not relative:
                x_STC = torch.from_numpy(x_STC).bfloat16().double().numpy()
            unit = np.sqrt((x_STC**2).mean((1, 2), keepdims=True)) if relative else 1
            for channel in found["channels"]:
                values = x_STC[:, :, channel]
                share = (np.abs(x_STC / unit)[:, :, channel] >= definition.threshold).mean()
                largest = values.flat[np.abs(values).argmax()]
                if share:
                    key = block, site, channel
                    expected[key] = largest, abs(largest), share, qualifying.get(channel, 0)
    keys = ("max_value", "max_abs", "position_share", "qualifying_sequences")
    assert expected == {
        (tensor["block"], tensor["site"], channel["channel"]): pytest.approx([channel[key] for key in keys])
        for tensor in found["tensors"]
        for channel in tensor["channels"]
    }
    for tensor in found["tensors"]:
        assert tensor["modules"] == readers[f"{tensor['block']}.{tensor['site']}"]


def test_outlier_channels_agree_with_the_table_of_channels(exported) -> None:
    found = exported["moe"].channels["definitions"]["llm_int8"]
    table = pd.read_parquet(exported["moe"].entry.outliers.with_name("channels.parquet"))
    table = table[(table["definition"] == "llm_int8") & table["is_outlier"]]
    expected = set(zip(table["block"], table["site"], table["channel"], table["max_value"], strict=True))
    assert expected == {
        (tensor["block"], tensor["site"], channel["channel"], channel["max_value"])
        for tensor in found["tensors"]
        for channel in tensor["channels"]
    }


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


def test_without_outlier_features_lists_are_empty_and_the_table_says_so(manifests, tokens, tmp_path) -> None:
    none = {"none": Definition(sites=("mlp_in",), threshold=8.0, min_layers=1.0, min_positions=1.0)}
    found = Exported(tmp_path, [manifests["dense"]], tokens, definitions=none)
    definition = found.channels["definitions"]["none"]
    assert (definition["channels"], definition["tensors"], definition["gap"]) == ([], [], None)
    assert "| none | 0 | 0 | - | - |" in found.text("table.md")
    assert "none & 0 & 0 & -- & -- \\\\" in found.text("table.tex")
    assert "Where no outlier feature was found there is no mean share." in found.text("table.md")


def test_a_definition_without_an_answer_is_null_and_says_why(tokens, tmp_path) -> None:
    checkpoint = save_checkpoint(tmp_path / "wide", DENSE | {"head_dim": 12})
    manifest = tmp_path / "wide.statistics.json"
    capture(checkpoint, tokens, manifest, capture_settings(), {"statistics": "test"})
    found = Exported(tmp_path, [manifest], tokens)
    gap = found.channels["definitions"]["llm_int8_paper"]
    assert (gap["channels"], gap["tensors"]) == (None, None)
    assert "48 channels" in gap["gap"]
    assert found.channels["definitions"]["llm_int8"]["channels"]
    assert "| llm_int8_paper | - | - | - | - |" in found.text("table.md")
    assert "llm_int8_paper: out_proj_in has 48 channels in block" in found.text("table.md")
    assert found.tensors("act_scales")["model.layers.0.self_attn.o_proj"].shape == (48,)


def test_a_model_without_perplexity_has_a_table_that_says_so(manifests, tokens, tmp_path) -> None:
    quality = tmp_path / "none.json"
    found = {"window": LENGTH, "windows_digest": None, "loss": None, "perplexity": None, "bits_per_byte": None}
    interval = dict.fromkeys(("perplexity", "bits_per_byte"), (None, None))
    quality.write_text(json.dumps(found | {"interval": interval, "provenance": {"lineage": {"perplexity": "test"}}}))
    export = Exported(tmp_path, [manifests["dense"]], tokens, perplexity=quality)
    assert "perplexity -; bits/byte -; kurtosis" in export.text("table.md")
    assert "Perplexity and bits per byte are missing" in export.text("table.md")
    assert r"perplexity --\quad bits/byte --\quad kurtosis" in export.text("table.tex")


def test_statistics_that_do_not_name_the_matrices_are_to_be_captured_again(manifests, tokens, tmp_path) -> None:
    content = json.loads(manifests["dense"].read_text())
    del content["facts"]["consumers"]
    old = tmp_path / "dense.json"
    old.write_text(json.dumps(content))
    old.with_suffix("").symlink_to(manifests["dense"].with_suffix(""))
    with pytest.raises(StaleFile, match=r"dense\.json: .*did not note which matrices .*; capture the model again"):
        Exported(tmp_path, [old], tokens)
    assert not (tmp_path / "export").exists()


def test_stale_tables_are_refused(exported: dict[str, Exported], manifests: dict[str, Path], tmp_path: Path) -> None:
    found, manifest = exported["dense"], manifests["dense"]
    for name in ("reduction m", "perplexity m", "statistics"):
        with pytest.raises(StaleFile, match="lineage test"):
            export(found.entry, [manifest], DEFINITIONS, "words", tmp_path, LINEAGE | {name: "other"})


def test_the_files_are_as_readable_as_any_other(exported: dict[str, Exported]) -> None:
    modes = {path.name: path.stat().st_mode for path in exported["dense"].folder.iterdir()}
    assert modes.keys() == set(paths.EXPORTS)
    assert len(set(modes.values())) == 1


# --- tables for papers ---------------------------------------------------------------------------------------------


HOSTILE = r'a_b\c {d} $e$ 50 % & #1 ~^ <x> | *y* `z` [link](u) "q" ≥ _w_'


def published(exported: dict[str, Exported], folder: Path, labels: Sequence[str]) -> tuple[str, str, pd.DataFrame]:
    """Return the table of an experiment as LaTeX and as Markdown, and the summary it is from."""
    entries = [replace(each.entry, label=label) for each, label in zip(exported.values(), labels, strict=True)]
    summary, origin = summarize(entries, "words", {"summary": "test"})
    write_summary(summary, origin, *(folder / f"summary.{suffix}" for suffix in ("parquet", "csv", "json")))
    outputs = folder / "table.tex", folder / "table.md"
    lineage = {"export_summary": "test", "summary": "test"}
    export_summary(folder / "summary.parquet", *outputs, DEFINITIONS, "words", lineage)
    return outputs[0].read_text(), outputs[1].read_text(), summary


def cells(markdown: str) -> list[list[str]]:
    """Return the text of every cell of the first table, as a reader of Markdown sees it."""
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    rows = re.findall(r"<tr>(.*?)</tr>", html.split("</table>")[0], re.DOTALL)
    return [[unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def test_the_table_of_an_experiment_has_a_row_a_model_with_the_numbers_of_the_summary(exported, tmp_path) -> None:
    _, markdown, summary = published(exported, tmp_path, ["one", "two"])
    head, *rows = cells(markdown)
    rest = ["layers (%)", "positions (%)", "perplexity", "bits/byte", "kurtosis"]
    assert head == ["model", "total params", "active params", "features", "distinct", *rest]
    expected = summary[summary["definition"] == "llm_int8"].to_dict("records")
    for row, record in zip(rows, expected, strict=True):
        assert row[0] == record["label"]
        assert row[3] == f"{record['outlier_count']}"
        assert row[5] == f"{record['mean_layer_pct']:.1f}"
        assert float(row[7]) == pytest.approx(record["perplexity"], rel=5e-3)
    assert "a pooled share, a maximum over sequences" in markdown
    assert "No interval for perplexity, bits_per_byte, loss (fewer than 8 sequences)." in markdown
    for words in ("llm_int8", "|x| ≥ 6", "25 %", "6 %", "corpus words", "5 sequences of 33 tokens", "float32"):
        assert words in unescape(MarkdownIt("commonmark").render(markdown.split("\n")[0]))


def test_a_label_of_any_characters_stays_one_cell_of_markdown(exported, tmp_path) -> None:
    _, markdown, _ = published(exported, tmp_path, [HOSTILE, "plain"])
    head, first, second = cells(markdown)
    assert first[0] == HOSTILE
    assert len(head) == len(first) == len(second) == 10


def test_latex_is_balanced_and_escaped(exported, tmp_path) -> None:
    latex, _, _ = published(exported, tmp_path, [HOSTILE, "plain"])
    for text in (latex, exported["dense"].text("table.tex")):
        body = re.sub(r"^%.*\n", "", text, flags=re.MULTILINE)
        begun, ended = (re.findall(rf"\\{word}{{([a-z*]+)}}", body) for word in ("begin", "end"))
        assert sorted(begun) == sorted(ended)
        bare = re.sub(r"\\[\\{}$&%#_]", "", body)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert not re.search(r"[%#~]", bare)
        assert not re.search(r"[_^]", re.sub(r"\$.*?\$", "", bare))
        rows = body.split(r"\toprule")[1].split(r"\bottomrule")[0]
        widths = {len(re.findall(r"(?<!\\)&", row)) for row in rows.split(r"\\")[:-1] if "multicolumn" not in row}
        assert len(widths) == 1


def compiled(folder: Path, table: str, options: str = "") -> str:
    """Return what LaTeX says to a document that holds a table of `folder`."""
    document = rf"\documentclass{options}{{article}}\usepackage{{booktabs}}\begin{{document}}\input{{{table}}}"
    (folder / "paper.tex").write_text(document + r"\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles_and_fits_the_page(exported, tmp_path) -> None:
    shutil.copy(exported["moe"].folder / "table.tex", tmp_path / "model.tex")
    assert "Overfull" not in compiled(tmp_path, "model")
    published(exported, tmp_path, ["SmolLM2-135M-Instruct", "Qwen3-Next-80B"])
    assert "Overfull" not in compiled(tmp_path, "table", "[twocolumn]")
    published(exported, tmp_path, [HOSTILE, "plain"])
    assert "Output written on paper.pdf" in compiled(tmp_path, "table", "[twocolumn]")


# --- the documentation and the command -----------------------------------------------------------------------------


SNIPPETS = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs/exports.md").read_text(), re.MULTILINE | re.DOTALL)


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
    assert len(SNIPPETS) == 5
    for name in ("outlier_channels.json", *(f"{name}.safetensors" for name in SCALES)):
        assert any(f"results/sotu/export/smollm2-135m/{name}" in snippet for snippet in SNIPPETS)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_documentation_runs(number: int, documented: Path, capsys) -> None:
    exec(compile(SNIPPETS[number], f"snippet {number}", "exec"), {"__name__": "snippet"})
    printed = capsys.readouterr().out
    assert "model.layers.0" in printed or (documented / "imatrix.gguf").is_file()


def test_smoothing_by_the_documentation_moves_the_planted_range_into_the_weights(documented: Path) -> None:
    variables: dict[str, Any] = {"__name__": "snippet"}
    exec(SNIPPETS[1], variables)
    assert not torch.equal(variables["before"], variables["after"])
    gain = variables["model"].model.layers[0].input_layernorm.weight
    assert 0 < gain[max(PLANTED, key=PLANTED.get)] < max(PLANTED.values()) / 1.5
    assert variables["spread"] > 1.5 * variables["smoothed"]


def test_the_imatrix_of_the_documentation_holds_sums_of_squares(documented: Path, inputs) -> None:
    import gguf

    exec(SNIPPETS[4], {"__name__": "snippet"})
    reader = gguf.GGUFReader(documented / "imatrix.gguf")
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(found) == 2 * 6 * BLOCKS
    x_STC = inputs["dense"]["model.layers.1.mlp.up_proj"]
    np.testing.assert_allclose(found["blk.1.ffn_up.weight.in_sum2"], [(x_STC**2).sum((0, 1))], rtol=1e-5)
    assert found["blk.1.ffn_up.weight.counts"].tolist() == [[WINDOWS * LENGTH]]
    assert found["blk.1.attn_q.weight.in_sum2"].shape == (1, HIDDEN)
    assert reader.fields["general.type"].contents() == "imatrix"


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
    assert files == set(paths.EXPORTS)
    label = "".join(f"\\{letter}" if letter == "<" else letter for letter in MARKUP)
    assert f"| {label} | " in paths.export_summary("words", "md").read_text()
    capsys.readouterr()
    commands.main(["export"])
    assert "up to date: results/words/export/moe/outlier_channels.json" in capsys.readouterr().out
