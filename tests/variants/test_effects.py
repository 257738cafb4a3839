"""Attention and routing of a variant beside the plain model's, by hand."""

import math

import pytest
import torch
from outlier_features.capture.routing import Choice
from outlier_features.variants.effects import EffectsOfBlock


def choice(experts: list[list[int]], logits: list[list[float]] | None = None) -> Choice:
    return Choice(torch.tensor(experts), None, None, None if logits is None else torch.tensor(logits))


def test_jaccard_divergence_and_load() -> None:
    found = EffectsOfBlock(4)
    found.see_routing(0, 7, choice([[0, 1], [2, 3]], [[0.0, 0, 0, 0], [1, 0, 0, 0]]))
    found.see_routing(2, 7, choice([[1, 2], [3, 2]], [[math.log(3), 0, 0, 0], [1, 0, 0, 0]]))
    plain, other = (found.found[run, 7].row() for run in (0, 2))
    assert (plain["jaccard"], plain["routing_kl"], plain["load"]) == (2.0, 0.0, [1, 1, 1, 1])
    assert other["jaccard"] == pytest.approx(1 / 3 + 1)
    # uniform against 1/2, 1/6, 1/6, 1/6
    assert other["routing_kl"] == pytest.approx(0.25 * (math.log(0.5) + 3 * math.log(1.5)))
    assert other["load"] == [0, 1, 2, 1]
    assert other["tokens"] == 2


def test_without_logits_there_is_no_divergence() -> None:
    found = EffectsOfBlock(4)
    for run in (0, 1):
        found.see_routing(run, 0, choice([[0, 1]]))
    assert "routing_kl" not in found.found[1, 0].row()
    assert found.found[1, 0].row()["jaccard"] == 1.0
