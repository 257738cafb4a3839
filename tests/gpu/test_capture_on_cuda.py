"""On a device: the same statistics as on a CPU, within the stated bounds, and the same bits twice."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BLOCKS, capture_settings
from outlier_features.capture import engine
from outlier_features.capture.offload import Offload
from outlier_features.capture.run import capture
from outlier_features.models.weights import Weights
from outlier_features.statistics.shards import BlockTable, Statistics
from silent import Silent

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

REAL = ("first", "max", "min", "sum", "sum_2", "sum_4", "position_max_abs", "position_rms")
"""Columns of a site with a list of real numbers for each window."""


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_a_capture_gives_what_a_cpu_gives_and_the_same_bytes_twice(
    kind, checkpoints, tokens, manifests, tmp_path
) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        capture(
            checkpoints[kind], tokens, path, capture_settings(), {"statistics": "test"}, device=torch.device("cuda")
        )
    digests = [json.loads(Path(path).read_text())["shards"] for path in paths]
    assert digests[0] == digests[1]
    found, expected = Statistics(paths[:1]), Statistics([manifests[kind]])
    np.testing.assert_allclose(found.losses(), expected.losses(), rtol=1e-3, atol=1e-3)
    for block in range(BLOCKS):
        compare(*(statistics.block(block) for statistics in (found, expected)))


def compare(found: BlockTable, expected: BlockTable) -> None:
    """Compare what is real in the rows of a block; each list to a thousandth of its largest value."""
    assert found.sites == expected.sites
    for site in expected.sites:
        columns = ("expert_max_abs",) if site == "router" else REAL
        for column in columns:
            reference = expected.site(site).matrix(column)
            largest = np.nanmax(np.abs(reference)) if reference.size else 0
            np.testing.assert_allclose(
                found.site(site).matrix(column), reference, rtol=0, atol=1e-3 * largest, err_msg=f"{site} {column}"
            )


@pytest.mark.parametrize("host_bytes", [float("inf"), 0], ids=["host", "disk"])
def test_hidden_states_that_are_put_away_come_back_with_the_same_bits(checkpoints, ids, host_bytes: float) -> None:
    device = torch.device("cuda")
    windows = [torch.from_numpy(row).long() for row in ids]
    logits = []
    for offload in (Offload(), Offload(0, host_bytes)):
        weights = Weights(checkpoints["dense"], torch.bfloat16, device)
        logits.append(engine.run(weights, windows, lambda _, found: found.cpu(), Silent(), offload=offload))
    assert all(torch.equal(*pair) for pair in zip(*logits, strict=True))
