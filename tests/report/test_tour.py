"""The tour: words and commands as they are printed in a terminal."""

from outlier_features.report import tour


def test_every_word_begins_a_line_and_its_explanation_stands_in_one_column() -> None:
    lines = tour.explanation().splitlines()
    assert [line[:20].rstrip() for line in lines if line[0] != " "] == list(tour.WORDS)
    column = len("massive activation") + 2
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert max(map(len, lines)) <= tour.WIDTH


def test_commands_stand_under_their_headings() -> None:
    groups = {"Look": [("show", "Print it."), ("plan", "Say " + "what " * 30)], "Make": []}
    first, show, plan, more, *rest = tour.grouped(groups).split("\n")
    assert (first, show) == ("Look:", "  show        Print it.")
    assert plan.startswith("  plan        Say what what")
    assert more.startswith(" " * 14 + "what")
    assert rest[-3:] == ["", "Make:", ""]
