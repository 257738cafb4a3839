"""What figures are drawn from: published tables by the names of their files, and whether a model has experts."""

from dataclasses import replace

import portraits_of_models as portraits
from outlier_features import shipped
from outlier_features.figures.tables import read_published


def test_published_tables_stand_under_the_names_of_their_files() -> None:
    found = read_published(shipped.published(name) for name in shipped.PUBLISHED)
    assert list(found) == list(shipped.PUBLISHED)
    assert found["arb8020_2025"]["model"][0] == "OLMoE-1B-7B"


def test_a_model_whose_routers_were_seen_has_experts() -> None:
    dense = portraits.model()
    assert not dense.has_experts
    assert replace(dense, layers=portraits.with_routers(portraits.router(1, [0.5, 0.5]))).has_experts
