"""Shares: of the tensors and positions that a channel reaches, from hits counted by hand."""

import numpy as np
import pytest
from outlier_features.config.entries import Definition
from outlier_features.metrics.criteria import Criterion
from outlier_features.metrics.evidence import Evidence
from outlier_features.metrics.shares import outlier_sets, pooled_shares, qualifies_in_each, shares_over


def evidence(scope: str) -> Evidence:
    """Two sequences of 10 and 20 tokens, four tensors, three channels: one everywhere, one in one tensor, one never."""
    hits_NSC = np.zeros((4, 2, 3), int)
    hits_NSC[:, 0, 0], hits_NSC[:2, 1, 0], hits_NSC[3, 1, 1] = 3, 1, 20
    covered_SC = np.array([[4, 0, 0], [2, 20, 0]])
    definition = Definition(sites=("attn_in",), scope=scope, min_layers=0.5, min_positions=0.2)
    rest = dict.fromkeys(("levels_SCG", "high_NSC", "low_NSC", "scale_NS"), np.zeros(0))
    criterion = Criterion("test", definition, relative=False)
    return Evidence(criterion, np.array([10, 20]), (6.0,), [], hits_NSC, covered_SC, **rest)


def test_over_some_sequences_hits_are_taken_together() -> None:
    found = shares_over(evidence("pooled"), [0, 1])
    assert found.layer.tolist() == [1.0, 0.25, 0.0]
    assert found.position == pytest.approx([6 / 30, 20 / 30, 0])
    assert found.position_mean == pytest.approx([(4 * 3 + 2) / 4 / 30, 20 / 4 / 30, 0])
    assert found.qualifies.tolist() == [True, False, False]  # 6 of 30 positions are just enough


def test_in_each_sequence_its_own_length_counts() -> None:
    assert qualifies_in_each(evidence("pooled")).tolist() == [[True, False, False], [False, False, False]]


def test_a_selection_of_sequences_weighs_each_as_often_as_it_is_drawn() -> None:
    ((candidates, shares),) = pooled_shares(evidence("pooled"), np.array([[2, 1]]))
    assert candidates.tolist() == [0]
    assert shares.position == pytest.approx([(2 * 4 + 2) / (2 * 10 + 20)])


@pytest.mark.parametrize(("scope", "second"), [("pooled", False), ("sequence", False)])
def test_a_set_is_of_the_sequences_that_were_drawn(scope: str, second: bool) -> None:
    found = outlier_sets(evidence(scope), np.array([[2, 0], [0, 2]]))
    assert found.tolist() == [[True, False, False], [second, False, False]]


def test_pooled_over_many_short_hits_a_channel_may_fail_that_one_sequence_has_alone() -> None:
    counts_BS = np.array([[1, 2]])
    assert outlier_sets(evidence("pooled"), counts_BS).tolist() == [[False, False, False]]  # 8 of 50 positions
    assert outlier_sets(evidence("sequence"), counts_BS).tolist() == [[True, False, False]]
