"""MX formats against torchao, and at the ends of float32."""

import pytest
import torch
from operands import kinds
from outlier_features.variants.formats.catalogue import FORMATS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "element"), [("mxfp8", torch.float8_e4m3fn), ("mxfp4", "fp4")])
@pytest.mark.parametrize("kind", ["normal", "planted", "heavy", "zero row", "alike", "small"])
def test_blocks_are_those_of_torchao_with_the_floor_of_ocp(name: str, element: object, kind: str) -> None:
    mx_tensor = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor", exc_type=Exception)
    if element == "fp4":
        element = torch.float4_e2m1fn_x2
    x = torch.from_numpy(kinds(8, 256)[kind])
    mode = mx_tensor.ScaleCalculationMode.FLOOR
    wanted = mx_tensor.MXTensor.to_mx(x, element, 32, mode).dequantize(torch.float32)
    assert torch.equal(FORMATS[name].activations.round_trip(x, x), wanted)


@pytest.mark.parametrize("name", ["mxfp8", "mxfp4"])
def test_the_largest_of_a_block_keeps_its_exponent_at_both_ends_of_float32(name: str) -> None:
    for exponent in (-126, -20, 0, 100, 127):
        x = torch.full((1, 32), 2.0**exponent)
        assert torch.equal(FORMATS[name].activations.round_trip(x, x), x)
    tiny = torch.full((1, 32), 2.0**-149)
    assert FORMATS[name].activations.round_trip(tiny, tiny).isfinite().all()
