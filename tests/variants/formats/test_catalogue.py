"""Every format against float64 NumPy by the words of DEFINITIONS: activations, matrices, and stacks of matrices."""

import fake_quantisation
import numpy as np
import pytest
import torch
from operands import assert_rounded, kinds
from outlier_features.format_names import FORMATS as NAMES
from outlier_features.format_names import WEIGHT_ONLY
from outlier_features.variants.formats.catalogue import FORMATS

KINDS = kinds()
OF_ACTIVATIONS = [name for name in NAMES if name not in ("none", "w8a8_static", *WEIGHT_ONLY)]
OF_MATRICES = [name for name in NAMES if name != "none"]


def test_the_names_that_a_configuration_may_use_are_those_that_there_are() -> None:
    assert tuple(FORMATS) == NAMES
    assert {name for name, each in FORMATS.items() if each.activations is None} == {"none", *WEIGHT_ONLY}
    assert FORMATS["none"].weights is None


OPERANDS = [("activations", name) for name in OF_ACTIVATIONS] + [("weights", name) for name in OF_MATRICES]
WORDED = {"activations": fake_quantisation.ROUND_TRIPS, "weights": fake_quantisation.MATRICES}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("operand", "name"), OPERANDS)
def test_an_operand_comes_back_as_definitions_say(operand: str, name: str, kind: str) -> None:
    x = KINDS[kind]
    exact = WORDED[operand][name](x.astype(np.float64))
    tensor = torch.from_numpy(x)
    assert_rounded(getattr(FORMATS[name], operand).round_trip(tensor, tensor), exact, x)


@pytest.mark.parametrize("name", OF_MATRICES)
def test_each_expert_is_a_matrix_of_its_own(name: str) -> None:
    stack = torch.stack([torch.from_numpy(KINDS[kind]) for kind in ("normal", "planted", "zeros", "heavy")])
    weights = FORMATS[name].weights
    found = weights.round_trip(stack, stack)
    assert torch.equal(found, torch.stack([weights.round_trip(each, each) for each in stack]))


@pytest.mark.parametrize("name", OF_ACTIVATIONS)
def test_pieces_of_a_window_come_back_as_in_the_whole(name: str) -> None:
    x = torch.from_numpy(KINDS["first row"])
    quantiser = FORMATS[name].activations
    pieces = [quantiser.round_trip(piece, x) for piece in x.split(2)]
    assert torch.equal(torch.cat(pieces), quantiser.round_trip(x, x))


@pytest.mark.parametrize("name", OF_MATRICES)
def test_a_number_that_is_none_stays_seen_and_stops_nothing(name: str) -> None:
    w = torch.from_numpy(KINDS["normal"]).clone()
    w[1, 7] = float("nan")
    assert FORMATS[name].weights.round_trip(w, w)[1, 7].isnan()


def test_bits_have_their_share_of_scales() -> None:
    bits = {name: (each.activation_bits, each.weight_bits) for name, each in FORMATS.items()}
    assert bits["none"] == (16, 16)
    assert bits["int8_weight_g128"] == (16, 8.125)
    assert bits["int4_weight_g128"] == (16, 4.125)
    assert bits["mxfp4"] == (4.25, 4.25)
    assert bits["mxfp8"] == (8.25, 8.25)
    assert bits["nvfp4"] == (4.5, 4.5)
    assert all(bits[name] == (8, 8) for name in ("absmax", "row_wise", "vector_wise", "w8a8_static", "fp8_token"))


@pytest.mark.parametrize("size", [1e-42, 1e-38, 1e-36, 1e38, 2.5e38])
@pytest.mark.parametrize("name", [name for name in NAMES if FORMATS[name].activations is not None])
def test_at_the_ends_of_float32_nothing_becomes_more_wrong_than_zero(name: str, size: float) -> None:
    x = torch.from_numpy(KINDS["normal"]).clamp(-1, 1) * size
    quantiser = FORMATS[name].activations
    if FORMATS[name].needs_calibration:
        quantiser = quantiser.begin()
        quantiser.learn(x)
    found = quantiser.round_trip(x, x)
    assert found.isfinite().all()
    assert float((found - x).abs().max()) <= float(x.abs().max())
    assert torch.equal(found[x == 0], x[x == 0])


def test_a_range_wider_than_float32_comes_back_as_it_is() -> None:
    x = torch.tensor([[-3e38, 0.0, 3e38]])
    for name in ("zeropoint", "zeropoint_vector"):
        assert torch.equal(FORMATS[name].activations.round_trip(x, x), x)
