"""Experts that are switched off put out 0, and everything is as before afterwards."""

import numpy as np
import torch
from outlier_features.variants.interventions.experts import other_experts, switched_off
from torch import nn


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, 6, 3))
        self.down = nn.Parameter(torch.randn(4, 3, 6))
        self.bias = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: torch.Tensor, expert: int) -> torch.Tensor:
        return self.down[expert] @ torch.relu(self.up[expert] @ x) + self.bias[expert]


def test_only_the_named_experts_are_silent() -> None:
    stack, x = Stack(), torch.randn(3)
    before = [stack(x, expert) for expert in range(4)]
    with switched_off(stack, (1, 3)):
        during = [stack(x, expert) for expert in range(4)]
    assert [bool(y.any()) for y in during] == [True, False, True, False]
    assert torch.equal(during[0], before[0])
    assert all(torch.equal(stack(x, expert), before[expert]) for expert in range(4))


def test_others_are_of_the_same_blocks() -> None:
    drawn = other_experts({2: (0, 1), 5: (3,)}, {2: 8, 5: 4}, np.random.default_rng(0))
    assert {block: len(each) for block, each in drawn.items()} == {2: 2, 5: 1}
    assert not {0, 1} & set(drawn[2])
    assert 3 not in drawn[5]
    assert other_experts({0: (0, 1, 2)}, {0: 4}, np.random.default_rng(0)) == {0: (3,)}
