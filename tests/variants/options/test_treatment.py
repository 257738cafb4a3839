"""Treatments: each option at one matrix input, by the words of DEFINITIONS."""

import numpy as np
import pytest
import torch
from operands import kinds
from outlier_features.config.variants import Variant
from outlier_features.variants.formats.catalogue import FORMATS
from outlier_features.variants.options import kept
from outlier_features.variants.options.hadamard import rotated
from outlier_features.variants.options.keeping import KeepOne
from outlier_features.variants.options.treatment import LARGEST_PIECE, Known, in_pieces
from outlier_features.variants.treatments import treatment

X = torch.from_numpy(kinds(24, 64)["planted"])
W = torch.from_numpy(kinds(16, 64)["heavy"])


def known(site: str = "attn_in") -> Known:
    return Known(site, X.abs().amax(0), lambda: W.abs().amax(0))


def both(found, x: torch.Tensor = X) -> tuple[torch.Tensor, torch.Tensor]:
    return found.input(x, x), found.weights(W, x)


def test_without_an_option_both_operands_are_rounded() -> None:
    found = treatment(Variant(format="vector_wise"), known())
    form = FORMATS["vector_wise"]
    assert all(map(torch.equal, both(found), (form.activations.round_trip(X, X), form.weights.round_trip(W, W))))
    assert (found.is_by_window, found.back(X) is X, found.kept(X)) == (False, True, 0)


def test_weights_only_leaves_inputs_and_their_bits() -> None:
    found = treatment(Variant(format="absmax", weights_only=True), known())
    assert found.input(X, X) is X
    assert (found.format.activation_bits, found.format.weight_bits) == (16, 8)
    found = treatment(Variant(format="w8a8_static", weights_only=True), known())
    assert found.input(X, X) is X


def test_llm_int8_keeps_the_channels_of_this_window() -> None:
    found = treatment(Variant(format="vector_wise", keep_above=6.0), known())
    assert found.is_by_window
    quiet = X.clamp(-5, 5)
    assert found.kept(quiet) == 0
    assert torch.equal(found.weights(W, quiet), FORMATS["vector_wise"].weights.round_trip(W, W))
    is_kept = (X.abs() > 6).any(0)
    assert 0 < int(is_kept.sum()) == found.kept(X) < 64
    x, w = both(found)
    assert torch.equal(x[:, is_kept], X[:, is_kept])
    assert torch.equal(w[:, is_kept], W[:, is_kept])
    rest = W[:, ~is_kept]
    assert torch.equal(w[:, ~is_kept], FORMATS["vector_wise"].weights.round_trip(rest, rest))


def test_keep_channels_keeps_the_largest_of_the_calibration_windows_in_every_window() -> None:
    found = treatment(Variant(format="int4", keep_channels=2), known())
    is_kept = kept.largest(X.abs().amax(0), 2)
    other = torch.randn(5, 64)
    assert torch.equal(found.input(other, other)[:, is_kept], other[:, is_kept])
    assert not torch.equal(found.input(other, other)[:, ~is_kept], other[:, ~is_kept])
    assert found.kept(other) == 2
    one = KeepOne(FORMATS["int4"], known(), 5)
    assert torch.equal(one.input(other, other)[:, 5], other[:, 5])


def test_smoothing_moves_size_from_inputs_into_matrices() -> None:
    found = treatment(Variant(format="absmax", smooth=0.5), known())
    scale = np.sqrt(X.abs().amax(0).double().numpy()) / np.sqrt(W.abs().amax(0).double().numpy())
    np.testing.assert_allclose(found.scale.numpy(), scale, rtol=1e-6)
    form = FORMATS["absmax"]
    small, large = X / found.scale, W * found.scale
    assert torch.equal(found.input(X, X), form.activations.round_trip(small, small))
    assert torch.equal(found.weights(W), form.weights.round_trip(large, large))
    assert torch.allclose(found.back(small), X, rtol=1e-5)
    elsewhere = treatment(Variant(format="absmax", smooth=0.5), known("down_in"))
    assert torch.equal(elsewhere.input(X, X), form.activations.round_trip(X, X))


@pytest.mark.parametrize("rotate", ["hadamard", 16])
def test_rotation_rounds_in_turned_coordinates(rotate: str | int) -> None:
    found = treatment(Variant(format="int4", rotate=rotate), known())
    h = rotated(torch.eye(64), None if rotate == "hadamard" else 16)
    form = FORMATS["int4"]
    x, w = both(found)
    assert torch.allclose(x, form.activations.round_trip(X @ h, X @ h), atol=1e-4)
    assert torch.allclose(w, form.weights.round_trip(W @ h, W @ h), atol=1e-4)
    assert torch.allclose(found.back(X @ h), X, atol=1e-4)
    rows = found.input(X[:3], X)
    assert torch.equal(rows, x[:3])


def test_a_static_range_is_learnt_from_what_will_be_rounded() -> None:
    found = treatment(Variant(format="w8a8_static", keep_channels=1), known())
    found.learn(X)
    is_kept = kept.largest(X.abs().amax(0), 1)
    rest = X[:, ~is_kept]
    assert found.activations.ends[1] <= float(rest.max())
    fresh = treatment(Variant(format="w8a8_static"), known())
    fresh.learn(X)
    assert fresh.activations.ends[1] > float(rest.max())


def test_experts_are_rounded_some_at_a_time_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = torch.randn(5, 8, 32).to(torch.bfloat16)
    weights = FORMATS["absmax"].weights

    def rounded(w: torch.Tensor) -> torch.Tensor:
        return weights.round_trip(w, w)

    whole = rounded(stack.float()).to(torch.bfloat16)
    assert stack.numel() < LARGEST_PIECE
    monkeypatch.setattr("outlier_features.variants.options.treatment.LARGEST_PIECE", 2 * 8 * 32)
    assert torch.equal(in_pieces(rounded, stack), whole)
