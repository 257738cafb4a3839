"""Kept channels: unchanged, and no scale knows them."""

import pytest
import torch
from operands import kinds
from outlier_features.format_names import FORMATS as NAMES
from outlier_features.variants.formats.catalogue import FORMATS
from outlier_features.variants.options import kept

X = torch.from_numpy(kinds()["planted"])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("none", "w8a8_static")])
def test_the_rest_is_rounded_as_if_the_kept_channels_had_any_value(name: str) -> None:
    quantiser = FORMATS[name].weights
    is_kept = torch.zeros(X.shape[1], dtype=torch.bool)
    is_kept[[5, 40, 41]] = True
    other = X.clone()
    other[:, is_kept] *= 1e4
    found, again = (kept.quantised_rest(quantiser, each, each, is_kept) for each in (X, other))
    assert torch.equal(found[:, is_kept], X[:, is_kept])
    assert torch.equal(again[:, is_kept], other[:, is_kept])
    assert torch.equal(found[:, ~is_kept], again[:, ~is_kept])
    if not quantiser.is_blocked:
        rest = X[:, ~is_kept]
        assert torch.equal(found[:, ~is_kept], quantiser.round_trip(rest, rest))


def test_nothing_kept_is_the_plain_format_and_everything_kept_changes_nothing() -> None:
    quantiser = FORMATS["absmax"].weights
    none = torch.zeros(X.shape[1], dtype=torch.bool)
    assert torch.equal(kept.quantised_rest(quantiser, X, X, none), quantiser.round_trip(X, X))
    assert torch.equal(kept.quantised_rest(quantiser, X, X, ~none), X)


def test_channels_above_and_largest() -> None:
    x = torch.tensor([[6.0, -6.1, 0.0], [1.0, 2.0, 6.5]])
    assert kept.above(x, 6.0).tolist() == [False, True, True]
    assert kept.largest(torch.tensor([1.0, 3.0, 3.0, 2.0]), 1).tolist() == [False, True, False, False]
    assert kept.largest(torch.tensor([1.0, 3.0, 3.0, 2.0]), 9).tolist() == [True] * 4
