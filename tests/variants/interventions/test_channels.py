"""Replacements of channels and their controls: exact values, equal sizes, draws of a seed."""

import numpy as np
import pytest
import torch
from outlier_features.variants.interventions.channels import EqualSize, Replace, directions, other_channels

X = torch.randn(2, 7, 16)
MEAN = torch.arange(16.0)


@pytest.mark.parametrize("set_to", ["zero", "mean"])
def test_replaced_channels_have_the_value_and_the_others_stay(set_to: str) -> None:
    before = X.clone()
    found = Replace((3, 5), set_to)(X, MEAN)
    wanted = torch.tensor([3.0, 5.0]) if set_to == "mean" else torch.zeros(2)
    assert torch.equal(found[..., [3, 5]], wanted.expand(2, 7, 2))
    others = [c for c in range(16) if c not in (3, 5)]
    assert torch.equal(found[..., others], X[..., others])
    assert torch.equal(X, before)
    assert torch.equal(Replace((), set_to)(X, MEAN), X)


@pytest.mark.parametrize("set_to", ["zero", "mean"])
def test_a_change_of_equal_size_has_the_norm_of_the_replacement_at_every_position(set_to: str) -> None:
    axes = directions(2, 16, np.random.default_rng(0))
    replaced = Replace((3, 5), set_to)(X, MEAN) - X
    changed = EqualSize((3, 5), set_to, axes)(X, MEAN) - X
    assert torch.allclose(changed.norm(dim=-1), replaced.norm(dim=-1), rtol=1e-5)
    assert not torch.allclose(changed, replaced, atol=0.1)
    assert EqualSize((3,), set_to, axes[:, :1])(X.bfloat16(), MEAN).dtype == torch.bfloat16


def test_directions_are_orthonormal_and_of_no_preferred_side() -> None:
    axes = torch.stack([directions(3, 8, np.random.default_rng(seed)) for seed in range(400)])
    assert torch.allclose(axes.mT @ axes, torch.eye(3).expand(400, 3, 3), atol=1e-5)
    assert float(axes.mean(0).abs().max()) < 4 / np.sqrt(8 * 400)
    assert float((axes.square().mean(0) - 1 / 8).abs().max()) < 0.05


def test_other_channels_are_as_many_and_none_of_the_set() -> None:
    drawn = [other_channels((3, 5), 16, np.random.default_rng(seed)) for seed in range(200)]
    assert all(len(set(each)) == 2 and not {3, 5} & set(each) for each in drawn)
    assert {channel for each in drawn for channel in each} == set(range(16)) - {3, 5}
    assert drawn[7] == other_channels((3, 5), 16, np.random.default_rng(7))
