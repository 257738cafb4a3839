"""The comparison of two runs in a terminal: what it lists, how wide it is, and that machines read all of it."""

import csv
import io
import json
import math

import pandas as pd
import pytest
from outlier_features.cli.show_comparison import show_comparison
from outlier_features.cli.show_summary import WIDTH
from outlier_features.comparison.compare import COLUMNS, Comparison
from outlier_features.errors import ConfigError

WARNINGS = ("Different corpus (model smollm2-135m): sotu in this run, fineweb-edu in the other. " + "Words. " * 12,)
ORIGINS = ("Lineages: aaa of this run, bbb of the other.",)


def row(quantity="mean_layer_pct", verdict="within", definition="arb8020", model="smollm2", **columns):
    values = {"model": model, "label": "SmolLM2-135M-Instruct", "definition": definition, "quantity": quantity}
    values |= {"value": 25.0, "value_low": 24.0, "value_high": 26.0}
    values |= {"against": 37.5, "against_low": 36.0, "against_high": 39.0}
    values |= {"difference": -12.5, "difference_low": -14.3, "difference_high": -10.7}
    return values | {"verdict": verdict, "conditions": None} | columns


ROWS = (
    row("outlier_count", "not comparable", value=1234.0, value_low=1200.0, value_high=1300.0),
    row("mean_layer_pct", "beyond"),
    row("mean_position_pct", "same"),
    row("mean_layer_pct", "no value", "llm_int8_paper_rms", against=math.nan, difference=math.nan),
    row("massive_count", "no interval", None, value_low=math.nan, against_low=math.nan, difference_low=math.nan),
    row("mean_layer_pct", "one side only", model="mine"),
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def shown(*rows, stream=None, **options):
    stream = stream or io.StringIO()
    comparison = Comparison(pd.DataFrame(rows, columns=list(COLUMNS)), WARNINGS, ORIGINS)
    show_comparison(comparison, against="old/summary.parquet", stream=stream, **options)
    return stream.getvalue()


def words(text):
    """Return the words of every line."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_what_moved_stands_under_its_definition_and_model_with_both_values_and_the_difference():
    lines = words(shown(*ROWS))
    start = lines.index("arb8020")
    assert lines[start : start + 4] == [
        "arb8020",
        "SmolLM2-135M-Instruct",
        "outlier features 1,234 (1,200-1,300) 38 (36-39) -12 (-14 to -11) not comparable",
        "layers affected (%) 25.0 (24.0-26.0) 37.5 (36.0-39.0) -12.5 (-14.3 to -10.7) beyond",
    ]
    assert "layers affected (%) 25.0 (24.0-26.0) - - no value" in lines
    assert lines[lines.index("under any definition") + 2] == "massive activations 25 38 -12 no interval"


def test_what_did_not_move_is_counted_and_not_listed():
    text = shown(*ROWS)
    counts = "1 beyond the interval, 1 without an interval, 1 not comparable, 1 without a value in one run."
    assert f"4 of 5 values differ: {counts}" in " ".join(words(text))
    assert "positions %" not in text


def test_warnings_come_before_any_number():
    text = shown(*ROWS)
    positions = [
        text.index(found) for found in ("against old/summary.parquet", "Different corpus", "Lineages", "differ:")
    ]
    assert positions == sorted(positions)
    assert positions[-1] < text.index("1,234")


def test_equal_runs_are_a_line_without_a_table():
    lines = words(shown(row(verdict="same"), row("perplexity", "same", None)))
    assert lines[-1] == "Nothing moved: all 2 values are the same."


def test_runs_with_nothing_in_common_are_a_line_without_a_table():
    assert words(shown(row(verdict="one side only")))[-1] == "Nothing was compared."
    assert words(shown())[-1] == "Nothing was compared."


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(0.04, "+0.04"), (-0.0006, "-0.0006"), (12.34, "+12.3"), (0.05, "+0.1"), (-3e-5, "-3e-05")],
)
def test_a_difference_too_small_for_its_decimals_is_shown_with_one_digit(difference, expected):
    text = shown(row(difference=difference, difference_low=-20.0, difference_high=20.0))
    assert f"{expected} (-20.0 to 20.0)" in text


def test_large_values_have_no_decimals():
    lines = words(shown(row("perplexity", value=13580.25, value_low=13200.0, value_high=14298.9)))
    assert "perplexity 13,580 (13,200-14,299) 38 (36-39) -12 (-14 to -11) within" in lines


@pytest.mark.parametrize("width", [80, 100, WIDTH])
def test_the_table_fits_a_terminal_and_keeps_every_number(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    text = shown(*ROWS, stream=Terminal())
    assert max(len(line) for line in text.splitlines()) <= width
    found = text.split()
    assert {"1,234", "(1,200-1,300)", "25.0", "(24.0-26.0)", "37.5", "(36.0-39.0)", "-12.5", "(-14.3"} <= set(found)
    assert "…" not in text


def test_csv_holds_every_row_and_column():
    found = list(csv.DictReader(io.StringIO(shown(*ROWS, format="csv"))))
    assert [each["verdict"] for each in found] == [each["verdict"] for each in ROWS]
    assert list(found[0]) == list(COLUMNS)
    assert (found[4]["definition"], found[3]["against"]) == ("", "")


def test_json_holds_the_sentences_and_every_row():
    found = json.loads(shown(*ROWS, format="json"))
    assert (found["against"], found["warnings"], found["origins"]) == ("old/summary.parquet", [*WARNINGS], [*ORIGINS])
    assert [each["verdict"] for each in found["rows"]] == [each["verdict"] for each in ROWS]
    assert (found["rows"][1]["difference"], found["rows"][3]["against"]) == (-12.5, None)


def test_an_unknown_format_is_refused():
    with pytest.raises(ConfigError, match="unknown format 'xml'; allowed: table, csv, json"):
        shown(format="xml")
