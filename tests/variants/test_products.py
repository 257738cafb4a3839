"""Products with parameters, known by memory, calls and strides; what takes the place of their operands."""

import pytest
import torch
from outlier_features.errors import ArchitectureError
from outlier_features.variants.products import Product, Products
from torch.nn import functional

W = torch.randn(6, 6)
"""Square: shapes do not tell its axes apart."""
STACK = torch.randn(3, 6, 6)
X = torch.randn(5, 6)
CALLS = {
    "linear": (lambda p: functional.linear(X, p["w"]), "w", -1),
    "matmul of the transposed": (lambda p: X @ p["w"].T, "w", -1),
    "matmul": (lambda p: X @ p["w"], "w", -2),
    "addmm": (lambda p: torch.addmm(torch.zeros(6), X, p["w"]), "w", -2),
    "from the left": (lambda p: (p["w"] @ X.T).T, "w", -1),
    "one expert": (lambda p: functional.linear(X, p["stack"][1]), "stack", -1),
    "one expert transposed": (lambda p: X @ p["stack"][1], "stack", -2),
    "batched": (lambda p: torch.bmm(X.expand(3, 5, 6), p["stack"]).sum(0), "stack", -2),
    "gathered rows": (
        lambda p: torch.bmm(p["stack"][torch.tensor([0, 2, 1, 1, 0])], X[:, :, None])[..., 0],
        "stack",
        -1,
    ),
    "gathered and transposed": (
        lambda p: torch.bmm(X[:, None], p["stack"][torch.tensor([0, 2, 1, 1, 0])])[:, 0],
        "stack",
        -2,
    ),
    "a view": (lambda p: functional.linear(X, p["w"].view(6, 6)), "w", -1),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_product_is_seen_with_the_axis_it_sums_over_and_gets_another_operand(case: str) -> None:
    call, name, axis = CALLS[case]
    parameters = {"w": W, "stack": STACK}
    seen: list[Product] = []

    def double(product: Product) -> torch.Tensor:
        seen.append(product)
        return 2 * product.x_RC

    with Products(parameters, double):
        found = call(parameters)
    assert torch.allclose(found, 2 * call(parameters), atol=1e-5)
    assert [(product.parameter, product.axis) for product in seen] == [(name, axis)]
    assert sorted(map(tuple, seen[0].x_RC.reshape(-1, 6).unique(dim=0).tolist())) == sorted(
        map(tuple, X.unique(dim=0).tolist())
    )


def test_products_of_other_tensors_are_left_alone() -> None:
    with Products({"w": W}, lambda product: product.x_RC * 0):
        assert torch.equal(X @ STACK[0], torch.matmul(X, STACK[0]))
        assert torch.equal(W * 2, W + W)


def test_a_product_that_cannot_be_read_is_refused() -> None:
    with Products({"w": W}, lambda product: product.x_RC), pytest.raises(ArchitectureError, match="einsum"):
        torch.einsum("rc,oc->ro", X, W)
