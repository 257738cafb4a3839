"""Figures are files: stable, small, with their provenance, and never half written."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from figures_of_rows import PUBLISHED, channel_map, hit, of_experiment, of_model, row
from outlier_features.errors import ConfigError
from outlier_features.figures.draw import save
from PIL import Image
from projects import PROJECT


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_same_tables_give_the_same_bytes(tmp_path, suffix):
    for folder in ("one", "other"):
        figure = channel_map([hit(3, is_outlier=True), hit(9, site="mlp_in")])
        save(figure, tmp_path / folder / f"map.{suffix}", {"lineage": "abc"})
    assert (tmp_path / "one" / f"map.{suffix}").read_bytes() == (tmp_path / "other" / f"map.{suffix}").read_bytes()


def test_saved_files_carry_their_provenance(tmp_path):
    provenance = {"model": "Modèle", "lineage": {"plot": "abc"}}
    figure = channel_map([hit(3)])
    for suffix in ("png", "svg"):
        save(figure, tmp_path / f"map.{suffix}", provenance)
    assert json.loads(Image.open(tmp_path / "map.png").text["Description"]) == provenance
    svg = (tmp_path / "map.svg").read_text()
    description = svg.partition("<dc:description>")[2].partition("</dc:description>")[0]
    assert json.loads(description.replace("&quot;", '"')) == provenance
    assert "<dc:date>" not in svg


def test_png_has_the_dots_an_inch_that_names_are_placed_at(tmp_path, two):
    save(two, tmp_path / "figure.png", {})
    assert Image.open(tmp_path / "figure.png").size == tuple(int(144 * side) for side in two.get_size_inches())


def test_failed_save_keeps_the_old_file_and_leaves_nothing_else(tmp_path, two, monkeypatch):
    path = tmp_path / "figure.svg"
    path.write_bytes(b"old")

    def fail(unfinished, **_):
        unfinished.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(two, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(two, path, {})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"figure.svg": b"old"}


def test_files_of_a_figure_are_small_and_the_letters_of_an_svg_are_text(tmp_path, joined):
    for suffix in ("png", "svg"):
        save(joined, tmp_path / f"figure.{suffix}", {})
    assert Image.open(tmp_path / "figure.png").mode == "P"
    assert (tmp_path / "figure.png").stat().st_size < 300_000
    assert (tmp_path / "figure.svg").stat().st_size < 150_000
    assert ">Qwen3-0.6B</text>" in (tmp_path / "figure.svg").read_text()


def test_other_suffix_is_refused(tmp_path, two):
    with pytest.raises(ConfigError, match=r"figure\.pdf: a figure is written as \.png or \.svg"):
        save(two, tmp_path / "figure.pdf", {})


def test_unknown_figure_names_the_known_ones_of_its_scope():
    summary = pd.DataFrame([row("A")])
    with pytest.raises(
        ConfigError, match="unknown figure 'channel_map' for one experiment; known: residual_stream, moe_v"
    ):
        of_experiment("channel_map", summary, PUBLISHED)
    with pytest.raises(ConfigError, match="unknown figure 'moe_vs_dense' for one model; known: channel_map"):
        of_model("moe_vs_dense", pd.DataFrame(), pd.DataFrame(), 8, 2)


def test_figures_import_neither_torch_nor_the_configuration():
    code = (
        "import sys, outlier_features.figures.draw as d; print({'torch', 'yaml', 'pydantic'} & set(sys.modules) or [])"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
