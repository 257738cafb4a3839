"""Scatter: parts cover every window once, and what they measure is what one pass measures, to the bit."""

from itertools import chain

import pytest
from outlier_features.artefacts import paths
from outlier_features.config.parts import parts, windows
from outlier_features.errors import ConfigError


@pytest.mark.parametrize("total", [1, 2, 5, 16])
def test_parts_cover_every_window_once_and_in_order(total: int) -> None:
    for scatter in range(1, total + 1):
        shares = [windows(part, total) for part in parts(scatter)]
        assert list(chain(*shares)) == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert min(map(len, shares)) >= 1


@pytest.mark.parametrize("part", ["1-of-6", "0-of-4", "5-of-4"])
def test_a_part_that_is_none_is_refused(part: str) -> None:
    with pytest.raises(ConfigError, match=f"part {part} of 5 windows: .*1 to 5"):
        windows(part, 5)


def test_parts_are_named_as_snakemake_names_scatter_items_and_the_whole_has_no_name() -> None:
    assert parts(1) == [None]
    assert parts(3) == ["1-of-3", "2-of-3", "3-of-3"]
    assert [path.name for path in paths.manifests("text", "m-0.6b", 2)] == ["m-0.6b.1-of-2.json", "m-0.6b.2-of-2.json"]
    assert paths.manifests("text", "m-0.6b", 1) == [paths.manifest("text", "m-0.6b")]
