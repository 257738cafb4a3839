"""The summary in a terminal: what the table says, that machines read back what went in, and what is refused."""

import csv
import io
import json
import math
from collections import Counter

import pandas as pd
import pytest
from outlier_features.cli.show_summary import WIDTH, show
from outlier_features.errors import ConfigError
from outlier_features.experiment.selection import Selection
from outlier_features.units import human

SHARES = ("mean_layer_pct", "mean_position_pct", "perplexity")


def row(label, kind="dense", definition="arb8020", **columns):
    """Return one row of a summary."""
    values = {"model": label.lower(), "label": label, "kind": kind, "definition": definition, "note": None}
    values |= {"total_params": 134_500_000, "active_params": 134_500_000, "threshold": 6.0, "sequences": 16}
    values |= {"outlier_count": 49.0, "distinct_channels": 30.0, "stable_channels": 7.0}
    for name, (value, low, high) in zip(SHARES, [(32.1, 28, 36.5), (50, 45, 55.25), (18.2, 17.9, 18.5)], strict=True):
        values |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return values | columns


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def shown(rows, selection=None, **options):
    stream = io.StringIO()
    show(pd.DataFrame(rows), selection, stream=stream, **options)
    return stream.getvalue()


def shown_in(width, rows, monkeypatch):
    """Return the lines of the table in a terminal of a width, without colours."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    show(pd.DataFrame(rows), stream=stream)
    return stream.getvalue().partition("features: ")[0].splitlines()


def line(text, start):
    """Return the words of the first line that begins with `start`."""
    return next(" ".join(found.split()) for found in text.splitlines() if found.strip().startswith(start))


def test_table_gives_counts_shares_and_intervals_in_readable_units():
    text = shown([row("SmolLM2-135M-Instruct")])
    assert line(text, "SmolLM2") == (
        "SmolLM2-135M-Instruct dense 134.5M 134.5M 49 30 (7) 32.1 (28.0-36.5) 50.0 (45.0-55.2) 18.2 (17.9-18.5)"
    )


def test_table_names_definition_threshold_and_sequences():
    text = shown([row("A"), row("A", definition="arb8020_rms")])
    assert line(text, "definition arb8020,") == "definition arb8020, |x| ≥ 6, 16 sequences"
    assert line(text, "definition arb8020_rms,") == "definition arb8020_rms, |x| ≥ 6 x RMS, 16 sequences"


def test_table_fits_in_its_width_with_long_names_and_large_numbers():
    rows = [row("A-model-with-quite-a-long-name-7x70B-Instruct", perplexity=12345.6, outlier_count=98765.0)]
    assert max(len(found) for found in shown(rows).splitlines()) <= WIDTH


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_has_two_lines_a_model_and_every_number_of_the_wide_one(width, monkeypatch):
    rows = [row("SmolLM2-135M-Instruct", "moe", active_params=2_367_000)]
    lines = shown_in(width, rows, monkeypatch)
    start = next(i for i, found in enumerate(lines) if "SmolLM2" in found)
    assert lines[start].split() == ["SmolLM2-135M-Instruct", "134.5M", "49", "32.1", "50.0", "18.2"]
    assert lines[start + 1].split() == ["moe", "2.367M", "30", "(7)", "(28.0-36.5)", "(45.0-55.2)", "(17.9-18.5)"]
    assert max(len(found) for found in lines) <= width


def test_a_terminal_too_narrow_for_its_numbers_folds_them_and_drops_none(monkeypatch):
    narrow, wide = ("".join(shown_in(width, [row("SmolLM2")], monkeypatch)) for width in (50, 120))
    assert "…" not in narrow
    assert Counter(filter(str.isdigit, narrow)) == Counter(filter(str.isdigit, wide))


def test_unknown_values_are_dashes_and_the_reason_is_a_footnote():
    unknown = dict.fromkeys(("outlier_count", "distinct_channels", "stable_channels", *SHARES[:2]), math.nan)
    intervals = {f"{name}_{end}": math.nan for name in SHARES for end in ("low", "high")}
    text = shown([row("A"), row("B", note="512 wide [not 256]", **unknown, **intervals), row("C")])
    assert line(text, "B [1]") == "B [1] dense 134.5M 134.5M - - - - 18.2"
    assert line(text, "[1]") == "[1] 512 wide [not 256]"
    assert "[2]" not in text


def test_definition_keeps_its_own_rows_only():
    rows = [row("A", outlier_count=1.0), row("A", definition="llm_int8", outlier_count=2.0)]
    assert json.loads(shown(rows, Selection("llm_int8"), format="json"))[0]["outlier_count"] == 2
    assert "arb8020" not in shown(rows, Selection("llm_int8"))


def test_csv_and_json_hold_every_column_and_value():
    rows = [row("A", perplexity=18.123456789012), row("Modèle", perplexity=math.nan)]
    from_csv = list(csv.DictReader(io.StringIO(shown(rows, format="csv"))))
    from_json = json.loads(shown(rows, format="json"))
    assert [list(found) for found in (*from_csv, *from_json)] == [list(rows[0])] * 4
    assert [found["label"] for found in from_csv] == [found["label"] for found in from_json] == ["A", "Modèle"]
    assert [found["perplexity"] for found in from_csv] == ["18.123456789012", ""]
    assert [found["perplexity"] for found in from_json] == [18.123456789012, None]


def test_plot_places_a_letter_for_each_model_and_capitals_for_mixtures_of_experts():
    rows = [
        row("Low", mean_layer_pct=10.0, active_params=1e7),
        row("High", "moe", mean_layer_pct=90.0, active_params=1e9),
    ]
    lines = shown(rows, plot=True).splitlines()
    inside = [found for found in lines if found.endswith("│")]
    ((high_y, high_x),) = ((y, found.index("B")) for y, found in enumerate(inside) if "B" in found)
    ((low_y, low_x),) = ((y, found.index("a")) for y, found in enumerate(inside) if "a" in found)
    assert high_y < low_y
    assert low_x < high_x
    assert "Capital letters are mixtures of experts: a Low, B High." in lines
    assert any(found.split() == ["10M", "100M", "1B"] for found in lines)


def test_plot_says_which_models_it_cannot_show():
    rows = [row("Here"), row("Same place"), row("Nothing", mean_layer_pct=math.nan)]
    text = shown(rows, plot=True)
    assert "Hidden behind another letter: a Here." in text
    assert "Not in the plot, without layers affected: Nothing." in text


def test_plot_without_any_value_is_words():
    text = shown([row("Nothing", mean_layer_pct=math.nan)], plot=True)
    assert "Not in the plot, without layers affected: Nothing." in text
    assert "│" not in text


def test_empty_summary_says_so():
    stream = io.StringIO()
    show(pd.DataFrame(columns=list(row("A"))), stream=stream)
    assert stream.getvalue().strip() == "The summary has no rows."


def test_a_selection_that_leaves_no_row_says_which():
    text = shown([row("A")], Selection(kind="moe"))
    assert text.strip() == "The summary has no rows of kind moe."


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (134_500_000, "134.5M"),
        (30_500_000_000, "30.5B"),
        (999_999_999, "1B"),
        (3_100, "3.1K"),
        (12, "12"),
        (1e12, "1T"),
    ],
)
def test_parameters_are_written_as_people_say_them(count, words):
    assert human(count) == words


def test_what_is_rounded_up_to_a_unit_is_written_in_it_whatever_the_digits():
    assert (human(999_600_000, digits=3), human(999_600_000)) == ("1B", "999.6M")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "unknown format 'xml'; allowed: table, csv, json"),
        ({"format": "csv", "plot": True}, "a plot cannot be part of csv"),
    ],
)
def test_what_is_not_there_is_refused_with_the_allowed_values(options, message):
    stream = io.StringIO()
    with pytest.raises(ConfigError, match=message):
        show(pd.DataFrame([row("A")]), stream=stream, **options)
    assert stream.getvalue() == ""
