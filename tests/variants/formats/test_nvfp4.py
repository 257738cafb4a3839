"""NVFP4 against torchao, whose tensor scale is the same."""

import pytest
import torch
from operands import kinds
from outlier_features.variants.formats.nvfp4 import Nvfp4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["normal", "planted", "heavy", "alike", "first row"])
def test_blocks_are_those_of_torchao_with_a_tensor_scale(kind: str) -> None:
    module = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor", exc_type=Exception)
    x = torch.from_numpy(kinds(8, 256)[kind])
    scale = module.per_tensor_amax_to_scale(x.abs().max())
    wanted = module.NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale).dequantize(torch.float32)
    found = Nvfp4().round_trip(x, x)
    off = (found - wanted).abs() > 1e-6 * wanted.abs()
    assert int(off.sum()) <= 2, f"{int(off.sum())} of {off.numel()}"


def test_a_block_too_small_for_its_scale_is_zero() -> None:
    x = torch.zeros(1, 32)
    x[0, 0], x[0, 16:] = 1.0, 1e-9
    found = Nvfp4().round_trip(x, x)
    assert torch.allclose(found[0, :1], torch.ones(1))
    assert not found[0, 16:].any()
