"""Agreement of windows and positions: against what a plain computation of the same model says."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import DEFINITIONS, LENGTH, WINDOWS
from outlier_features.metrics import criteria, evidence, outlier_features, shares
from outlier_features.metrics.convergence import convergence, selections
from outlier_features.metrics.positions import positions
from outlier_features.statistics.shards import Statistics


def test_selections_are_all_there_are_or_as_many_different_draws() -> None:
    every = selections(5, 2)
    assert sorted(map(tuple, every)) == sorted(
        tuple(int(i in pair) for i in range(5)) for pair in itertools.combinations(range(5), 2)
    )
    some = selections(16, 8)
    assert some.shape == (100, 16)
    assert (some.sum(1) == 8).all()
    assert (some <= 1).all()


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("relative", [False, True])
def test_the_set_of_channels_of_a_selection_is_that_of_a_capture_of_it(name, relative, manifests) -> None:
    criterion = criteria.Criterion("x", DEFINITIONS[name], relative)
    (found,) = evidence.gather(Statistics([manifests["moe"]]), [criterion])
    for counts in selections(WINDOWS, 3):
        members = np.flatnonzero(counts)
        alone = [shares.shares_over(found, [s]).qualifies for s in members]
        expected = shares.shares_over(found, members).qualifies if criterion.pooled else np.any(alone, axis=0)
        assert (shares.outlier_sets(found, counts[None])[0] == expected).all()


def test_the_similarity_grows_to_one_and_is_the_jaccard_index(manifests: dict[str, Path]) -> None:
    criterion = criteria.Criterion("x", DEFINITIONS["llm_int8"], relative=False)
    (found,) = evidence.gather(Statistics([manifests["moe"]]), [criterion])
    table = convergence([found, criteria.Gap(criterion, "no answer")])
    assert table["windows"].tolist() == list(range(1, WINDOWS + 1))
    assert table["jaccard"].iloc[-1] == 1
    full = set(outlier_features.features(found)["channel"])
    singles = []
    for member in range(WINDOWS):
        own = set(np.flatnonzero(shares.shares_over(found, [member]).qualifies))
        singles.append(len(own & full) / len(own | full))
    assert table["jaccard"].iloc[0] == pytest.approx(np.mean(singles))
    assert table["subsets"].iloc[0] == WINDOWS


def test_windows_that_are_not_shared_agree_as_far_as_their_sets_do(manifests: dict[str, Path]) -> None:
    criterion = criteria.Criterion("x", DEFINITIONS["arb8020"].model_copy(update={"threshold": 8.0}), relative=False)
    (found,) = evidence.gather(Statistics([manifests["moe"]]), [criterion])
    apart = convergence([found]).set_index("windows")["jaccard_apart"]
    each = [set(np.flatnonzero(shares.shares_over(found, [member]).qualifies)) for member in range(WINDOWS)]
    pairs = {(a, b): len(each[a] & each[b]) / len(each[a] | each[b]) for a in range(WINDOWS) for b in range(WINDOWS)}
    order = np.random.default_rng(0).random((100, WINDOWS)).argsort(axis=1)[:, :2]
    assert apart[1] == pytest.approx(np.mean([pairs[tuple(pair)] for pair in order.tolist()]))
    assert apart.loc[WINDOWS // 2 + 1 :].isna().all()


def test_the_agreement_of_unshared_windows_does_not_end_at_one_by_itself() -> None:
    """Sequences whose channels are unlike agree with all windows in the end, and with no other window."""
    qualifies_SC = np.eye(8, dtype=bool)
    hits_NSC = np.repeat(qualifies_SC[None].astype(int), 2, axis=0) * 5
    definition = DEFINITIONS["arb8020"]
    found = evidence.Evidence(
        criterion=criteria.Criterion("x", definition, relative=False),
        length_S=np.full(8, 5),
        grid=(6.0,),
        tensors=[(0, "attn_in"), (0, "mlp_in")],
        hits_NSC=hits_NSC,
        covered_SC=hits_NSC[0],
        levels_SCG=np.zeros((8, 8, 2), int),
        high_NSC=hits_NSC * 2.0,
        low_NSC=hits_NSC * 0.0,
        scale_NS=np.ones((2, 8)),
    )
    table = convergence([found]).set_index("windows")
    assert table["jaccard"].tolist() == pytest.approx([n / 8 for n in range(1, 9)])
    assert table["jaccard_apart"].loc[:4].tolist() == [0, 0, 0, 0]


def test_without_any_outlier_channel_there_is_no_similarity(manifests: dict[str, Path]) -> None:
    definition = DEFINITIONS["llm_int8"].model_copy(update={"threshold": 20.0})
    (found,) = evidence.gather(Statistics([manifests["dense"]]), [criteria.Criterion("x", definition, relative=False)])
    assert convergence([found])["jaccard"].isna().all()


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_positions_are_those_of_the_activations(kind, manifests, activations) -> None:
    marked = {3, 17}
    table = positions(Statistics([manifests[kind]]), 6.0, marked).set_index(["site", "position"])
    for site, x in activations[kind].items():
        peak = np.abs(x).max(-1)
        expected = pd.DataFrame(
            {
                "hit_share": (peak >= 6).mean((0, 1)),
                "outlier_share": ((peak >= 6) & np.isin(np.abs(x).argmax(-1), list(marked))).mean((0, 1)),
                "max_abs": peak.max((0, 1)),
                "mean_max_abs": peak.mean((0, 1)),
                "rms": np.sqrt((x**2).mean((0, 1, 3))),
            }
        )
        own = table.loc[site]
        assert len(own) == LENGTH
        np.testing.assert_allclose(own[list(expected)].to_numpy(), expected.to_numpy(), rtol=1e-5)
