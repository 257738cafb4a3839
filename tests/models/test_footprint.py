"""Footprint: the sizes of published models, from their configurations alone."""

import pytest
from outlier_features.cli.show_plan import CONVENTIONS
from outlier_features.models import footprint
from outlier_features.models.sizes import Footprint
from published_sizes import CONFIGURATIONS, PUBLISHED, ROUNDED_TO_BILLIONS, experiment


def test_every_model_of_the_sweep_has_a_published_size() -> None:
    config = experiment("moe_vs_dense")
    assert {config.models[name].hub for name in config.chosen.models} == set(PUBLISHED)


@pytest.mark.parametrize("hub", PUBLISHED)
def test_total_parameters_are_within_two_percent_of_the_published(hub: str, sizes: dict[str, Footprint]) -> None:
    assert sizes[hub].counts["total_params"] == pytest.approx(float(PUBLISHED[hub]["total_params"]), rel=0.02)


@pytest.mark.parametrize("hub", PUBLISHED)
def test_active_parameters_are_the_published_ones_as_the_publisher_counts(
    hub: str, sizes: dict[str, Footprint]
) -> None:
    column, _ = CONVENTIONS[PUBLISHED[hub]["convention"]]
    active, published = sizes[hub].counts[column], float(PUBLISHED[hub]["active_params"])
    if hub in ROUNDED_TO_BILLIONS:
        assert round(active / 1e9) == published / 1e9
        assert all(abs(sizes[hub].counts[other] / published - 1) > 0.02 for other, _ in CONVENTIONS.values())
    else:
        assert active == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("hub", "experts"),
    [
        ("allenai/OLMoE-1B-7B-0125", (64, 8, 0)),
        ("openai/gpt-oss-20b", (32, 4, 0)),
        ("openai/gpt-oss-120b", (128, 4, 0)),
        ("Qwen/Qwen3-30B-A3B", (128, 8, 0)),
        ("mistralai/Mixtral-8x7B-v0.1", (8, 2, 0)),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", (512, 10, 1)),
        ("zai-org/GLM-4.5-Air", (128, 8, 1)),
        ("Qwen/Qwen3-14B", (None, None, None)),
    ],
)
def test_experts_are_those_of_the_configuration(hub: str, experts: tuple, sizes: dict[str, Footprint]) -> None:
    counts = sizes[hub].counts
    assert (counts["experts"], counts["top_k"], counts["shared_experts"]) == experts


@pytest.mark.parametrize(
    ("hub", "gigabytes"),
    [
        ("openai/gpt-oss-20b", 13.8),
        ("openai/gpt-oss-120b", 65.2),
        ("Qwen/Qwen3-30B-A3B", 61.1),
        ("deepseek-ai/DeepSeek-V3", 673),
        ("EleutherAI/gpt-j-6b", 24.2),
    ],
)
def test_bytes_on_disk_follow_the_number_format(hub: str, gigabytes: float) -> None:
    stored = footprint.of_directory(CONFIGURATIONS / hub).stored_bytes
    assert stored == pytest.approx(gigabytes * 1e9, rel=0.01)
