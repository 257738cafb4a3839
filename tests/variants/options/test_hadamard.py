"""Hadamard matrices of the widths that models have, and what is said of a width without one."""

import functools

import numpy as np
import pytest
import torch
from outlier_features.errors import ConfigError
from outlier_features.variants.options.hadamard import parts_of, rotated, rotated_back


def whole(order: int) -> torch.Tensor:
    return functools.reduce(torch.kron, parts_of(order))


@pytest.mark.parametrize("order", [1, 2, 4, 12, 20, 28, 36, 64, 192, 576, 896, 1536, 2880, 3072, 14336])
def test_rows_are_orthonormal_signs(order: int) -> None:
    assert np.prod([len(part) for part in parts_of(order)]) == order
    for part in parts_of(order):
        h, size = part.double(), len(part)
        assert torch.allclose(h.abs(), torch.full_like(h, size**-0.5), atol=1e-7)
        assert float((h @ h.T - torch.eye(size, dtype=torch.float64)).abs().max()) < 1e-6


@pytest.mark.parametrize("order", [12, 64, 192, 576])
def test_an_input_is_turned_by_the_product_of_the_parts(order: int) -> None:
    x = torch.randn(3, 5, order)
    assert torch.allclose(rotated(x, None), x @ whole(order), atol=1e-5)


@pytest.mark.parametrize(("width", "block"), [(576, None), (96, 32), (24, 8)])
def test_what_is_rotated_comes_back_and_products_stay(width: int, block: int | None) -> None:
    x, w = torch.randn(7, width), torch.randn(2, 5, width)
    assert torch.allclose(rotated_back(rotated(x, block), block), x, atol=1e-5)
    product = rotated(x, block) @ rotated(w, block).mT
    assert torch.allclose(product, x @ w.mT, atol=1e-4)
    one = torch.zeros(1, width)
    one[0, 3] = 1
    spread = rotated(one, block)
    assert int((spread != 0).sum()) == (block or width)


def test_a_width_without_one_is_told_what_helps() -> None:
    with pytest.raises(ConfigError, match=r"no Hadamard matrix of 90 channels is known here; give rotate: 2"):
        rotated(torch.randn(2, 90), None)
    with pytest.raises(ConfigError, match=r"12 channels are no multiple of blocks of 8; give rotate: 4"):
        rotated(torch.randn(2, 12), 8)
    with pytest.raises(ConfigError, match="leave rotate out"):
        rotated(torch.randn(2, 7), None)
