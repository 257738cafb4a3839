"""Style: what belongs together looks alike, and drawing leaves no setting behind."""

import matplotlib
from figures_of_rows import DENSE, MOE, channel_map, hit
from outlier_features.figures.style import definition_looks, style


def test_a_twin_looks_like_the_definition_it_belongs_to():
    looks = definition_looks(["arb8020", "llm_int8_rms", "llm_int8"])
    assert looks["llm_int8_rms"].color == looks["llm_int8"].color != looks["arb8020"].color
    assert looks["llm_int8_rms"].label == "llm_int8_rms"


def test_dense_and_moe_differ_in_colour_and_in_shape():
    assert DENSE.color != MOE.color
    assert DENSE.marker != MOE.marker


def test_drawing_changes_no_setting_of_matplotlib():
    before = dict(matplotlib.rcParams)
    channel_map([hit(3)])
    with style():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before
