"""Paper tables hold the numbers of the summary, and any label stays one cell."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from exports import DEFINITIONS, Exported
from markdown_it import MarkdownIt
from outlier_features.experiment.summary import summarize, write_summary
from outlier_features.exports.export import export_summary
from small_models import LENGTH


def test_a_model_without_perplexity_has_a_table_that_says_so(manifests, tokens, tmp_path) -> None:
    quality = tmp_path / "none.json"
    found = {"window": LENGTH, "windows_digest": None, "loss": None, "perplexity": None, "bits_per_byte": None}
    interval = dict.fromkeys(("perplexity", "bits_per_byte"), (None, None))
    quality.write_text(json.dumps(found | {"interval": interval, "provenance": {"lineage": {"perplexity": "test"}}}))
    export = Exported(tmp_path, [manifests["dense"]], tokens, perplexity=quality)
    assert "perplexity -; bits/byte -; kurtosis" in export.text("table.md")
    assert "Perplexity and bits per byte are missing" in export.text("table.md")
    assert r"perplexity --\quad bits/byte --\quad kurtosis" in export.text("table.tex")


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
