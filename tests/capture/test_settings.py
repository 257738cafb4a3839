"""Settings: what a capture keeps, from an entry of the configuration, and what helps against what is not finite."""

from pathlib import Path

import pytest
import torch
from outlier_features.capture.settings import Settings
from outlier_features.config.entries import Capture
from outlier_features.thresholds import exact, rounded

ENTRY = Capture(sites=("attn_in", "mlp_in"), thresholds=(3, 6), rms_thresholds=(4,), nonfinite="count")


def test_settings_are_those_of_the_entry_with_each_threshold_twice_in_the_grid() -> None:
    found = Settings.of(ENTRY, ["mlp_in"], [("mlp_in",)], "bfloat16", "eager")
    assert (found.sites, found.counted, found.coverages) == (("attn_in", "mlp_in"), ("mlp_in",), (("mlp_in",),))
    assert set(found.grids.absolute) == {function(value) for value in (3, 6) for function in (exact, rounded)}
    assert set(found.grids.relative) == {exact(4), rounded(4)}
    assert found.is_full
    fewer = Settings.of(ENTRY.model_copy(update={"statistics": "criteria"}), ["mlp_in"], [("mlp_in",)], "bfloat16")
    assert (fewer.sites, fewer.is_full) == (("mlp_in",), False)
    assert (found.dtype, found.count_nonfinite, found.experts_implementation) == (torch.bfloat16, True, "eager")


@pytest.mark.parametrize(
    ("dtype", "wider"),
    [("float16", "set dtype to bfloat16 or float32, or "), ("bfloat16", "set dtype to float32, or "), ("float32", "")],
)
def test_a_wider_precision_is_offered_where_there_is_one(
    dtype: str, wider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no measurement is, so keys of the configuration are named
    said = Settings.of(ENTRY, [], [], dtype).against_nonfinite
    assert said == f"in a {dtype} pass; {wider}set capture.nonfinite to count to leave them out."
