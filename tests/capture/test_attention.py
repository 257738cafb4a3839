"""Sampled attention: probabilities by the definition in float64 NumPy, with every option a function is called with."""

# Shapes: H query head, G key-value head, T position, D channel of a head.

import numpy as np
import pytest
import torch
from outlier_features.capture import attention
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

H, G, T, D = 6, 2, 90, 8


def handed(**options: object) -> attention.Handed:
    generator = torch.Generator().manual_seed(1)
    queries, keys = (2 * torch.randn(heads, T, D, generator=generator) for heads in (H, G))
    mask = options.pop("mask", None)
    return attention.Handed(nn.Module(), queries, keys, torch.zeros(G, T, D), mask, options)


def expected(found: attention.Handed, *, window: int = T, softcap: float | None = None, sinks: object = None) -> list:
    """Return the three quantities by the definition."""
    queries, keys = found.queries_HTD.double().numpy(), found.keys_GTD.double().numpy()
    scale = found.options.get("scaling") or D**-0.5
    values = []
    for head in range(H):
        for t in np.unique(np.linspace(T / 8, T - 1, 64).astype(int)):
            scores = keys[head // (H // G)] @ queries[head, t] * scale
            scores = np.tanh(scores / softcap) * softcap if softcap else scores
            scores = np.where((np.arange(T) <= t) & (np.arange(T) > t - window), scores, -np.inf)
            weights = np.exp(scores)
            p = weights / (weights.sum() + (np.exp(float(sinks[head])) if sinks is not None else 0))
            values.append((p.max(), -(p[p > 0] * np.log(p[p > 0])).sum(), p[0]))
    return list(np.mean(values, 0))


def causal(window: int = T) -> torch.Tensor:
    distance = torch.arange(T)[:, None] - torch.arange(T)
    return ((distance >= 0) & (distance < window))[None, None]


@pytest.mark.parametrize(
    ("options", "truth"),
    [
        ({}, {}),
        ({"scaling": 0.1}, {}),
        ({"softcap": 2.0}, {"softcap": 2.0}),
        ({"mask": causal()}, {}),
        ({"mask": causal(11)}, {"window": 11}),
        ({"mask": torch.zeros(1, 1, T, T).masked_fill(~causal(11), torch.finfo(torch.float32).min)}, {"window": 11}),
        ({"sliding_window": 7}, {"window": 7}),
        ({"s_aux": torch.arange(H) / 2}, {"sinks": torch.arange(H) / 2}),
    ],
    ids=["plain", "scaling", "softcap", "boolean mask", "window mask", "added mask", "window", "sinks"],
)
def test_sampled_attention_is_that_of_float64(options: dict, truth: dict) -> None:
    found = handed(**options)
    np.testing.assert_allclose(attention.sampled(found), expected(found, **truth), rtol=2e-5, atol=1e-7)


def test_sampled_positions_are_spaced_over_what_follows_an_eighth() -> None:
    found = attention.positions(512, torch.device("cpu"))
    assert (len(found), found[0].item(), found[-1].item()) == (64, 64, 511)
    assert attention.positions(1, torch.device("cpu")).tolist() == [0]
    assert attention.positions(8, torch.device("cpu")).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_channels_of_a_head_lie_side_by_side() -> None:
    heads = torch.arange(G * 3 * D).reshape(G, 3, D)
    assert attention.rows(heads)[1].tolist() == [*heads[0, 1].tolist(), *heads[1, 1].tolist()]


def test_the_interface_is_as_it_was_after_an_error() -> None:
    before = ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", print)
    with pytest.raises(KeyError), attention.watched(print):
        ALL_ATTENTION_FUNCTIONS.get_interface("no such function", print)
    assert ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", print) is before


def test_a_mask_may_be_handed_by_its_name() -> None:
    seen: list[attention.Handed] = []
    x = torch.zeros(1, H, T, D)
    with attention.watched(seen.append):
        attend = ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", print)
        attend(nn.Module(), x, x, x, attention_mask=causal(7))  # AFMoE
        attend(nn.Module(), x, x, x, causal(7))
    assert all(torch.equal(handed.mask, causal(7)) for handed in seen)
    assert len(seen) == 2
