"""Origins: what two runs were made from and where that differs, in words."""

import pytest
from outlier_features.comparison.compare import compare
from recorded_runs import ORIGIN, row, run


def lineage(**changes):
    return {**ORIGIN, "lineage": ORIGIN["lineage"] | {name.replace("_", " "): value for name, value in changes.items()}}


def test_runs_of_one_lineage_say_so_and_what_else_can_have_moved_a_number():
    same = compare(run(row()), run(row())).origins
    assert same[-1] == "Both have the lineage aaa: the same code, settings and inputs."
    moved = compare(run(row()), run(row(kurtosis_max=51.0))).origins
    assert moved[-1].startswith("What moved then comes from what no lineage covers: ")


def test_artefacts_that_differ_are_named_and_the_cause_is_left_open():
    origin = lineage(summary="bbb", reduction_a="9", reduction_b="9", perplexity_b="9")
    lines = compare(run(row()), run(row(), origin=origin)).origins
    assert lines[-2] == "Lineages: aaa of this run, bbb of the other."
    assert "which of them cannot be told): reduction of a, b; perplexity of b." in lines[-1]


def test_another_list_of_models_alone_is_said_to_be_just_that():
    assert compare(run(row()), run(row(), origin=lineage(summary="bbb"))).origins[-1].startswith("No artefact of a mod")


def test_versions_that_differ_are_named():
    origin = ORIGIN | {"versions": {"python": "3.11.7", "torch": "2.14.0", "numpy": "2.4.6"}}
    (line,) = [line for line in compare(run(row()), run(row(), origin=origin)).origins if line.startswith("Versions")]
    assert line.endswith("torch 2.13.0 and 2.14.0, numpy none and 2.4.6.")


def test_a_summary_without_provenance_is_compared_and_named():
    lines = compare(run(row()), run(row(), origin={})).origins
    assert "The summary of the other run has no provenance, so what it was made from cannot be told." in lines


@pytest.mark.parametrize(("digest", "is_said"), [("f00d", True), ("beef", False), (None, False)])
def test_the_same_windows_are_said_to_be_the_same(digest, is_said):
    lines = compare(run(row("a"), row("b")), run(row("a"), row("b", windows_digest=digest))).origins
    assert ("Both were measured on the same windows, so no difference is one of text." in lines) == is_said
