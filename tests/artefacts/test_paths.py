"""Paths: where results lie, for Snakemake and without it."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from outlier_features.artefacts import paths


def test_results_lie_in_their_folder_for_threads_too(tmp_path: Path) -> None:
    with paths.within(tmp_path), ThreadPoolExecutor() as pool:
        assert pool.submit(paths.results).result() == tmp_path
    assert paths.results() == Path("results")


@pytest.mark.parametrize(
    ("file", "whole", "part"),
    [
        ("moe.json", "moe", None),
        ("moe.2-of-4.json", None, ("moe", "2-of-4")),
        ("qwen3-1.7b@step10.json", "qwen3-1.7b@step10", None),
        ("qwen3-1.7b.12-of-16.json", None, ("qwen3-1.7b", "12-of-16")),
    ],
)
def test_the_manifest_of_a_part_is_not_that_of_a_model(
    file: str, whole: str | None, part: tuple[str, str] | None
) -> None:
    found = re.fullmatch(rf"(?P<model>{paths.WHOLE})\.json", file)
    assert (found and found["model"]) == whole
    parted = re.fullmatch(rf"(?P<model>{paths.MODEL})\.(?P<item>\d+-of-\d+)\.json", file)
    assert (parted and parted.groups()) == part


def test_fetch_takes_every_model_but_those_that_another_rule_makes() -> None:
    pattern = re.compile(rf"(?P<model>{paths.none_of(['trained', 'for.now'])})/source\.json")
    names = ("trained", "for.now", "trained2", "forxnow")
    assert [name for name in names if pattern.fullmatch(f"{name}/source.json")] == ["trained2", "forxnow"]
    assert re.fullmatch(paths.none_of([]), "any")
