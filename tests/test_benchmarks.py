"""The benchmark against other ways: its parts by hand, and the whole command at a tiny size."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from projects import PROJECT

BENCHMARKS = PROJECT / "benchmarks"
ARB8020 = SimpleNamespace(threshold=6.0, min_layers=0.25, min_positions=0.06)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import engines

    return engines


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import page

    return page


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import report

    return report


@pytest.fixture
def contestants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import contestants

    return contestants


@pytest.fixture
def imatrix(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import imatrix

    return imatrix


def test_differences_of_two_imatrices_are_those_of_sums_and_counts(imatrix: ModuleType) -> None:
    theirs = {"a.in_sum2": np.array([1.0, 2.0]), "a.counts": np.array([3.0]), "b.counts": np.array([1.0])}
    ours = {"a.in_sum2": np.array([1.0, 4.0]), "a.counts": np.array([4.0]), "c.in_sum2": np.array([1.0])}
    assert imatrix.differences(theirs, ours) == ["1", "1", "0", "1", "2.5e-01", "5.0e-01"]


def run(wall: float, gigabytes: float, losses: tuple[float, ...] = (2.0, 3.0), outliers: int | None = None) -> dict:
    """Return a run in which time and every number of bytes are known; one GB was resident before."""
    sizes = ("peak", "anonymous", "disk_read", "call_read", "written")
    usage = {f"{name}_bytes": int(gigabytes * 1e9) for name in sizes} | {"start_bytes": 10**9}
    usage |= {"wall_seconds": wall, "cpu_seconds": 2 * wall}
    return {"usage": usage, "losses": list(losses), "fetched_bytes": int(gigabytes * 1e9), "outlier_count": outliers}


def compared(engines: ModuleType, **runs: dict) -> object:
    """Return a model over which each contestant ran once."""
    model = engines.Model("dense", 1, 2, Path("checkpoint"))
    for name, values in runs.items():
        model.runs[name] = [engines.Run(**values)]
    return model


def test_contestants_that_agree_pass(engines: ModuleType) -> None:
    engines.check_agreement(compared(engines, ours=run(1, 1, outliers=4), a=run(1, 1), d=run(1, 1, outliers=4)))


@pytest.mark.parametrize("losses", [(2.0, 3.0001), (2.0, float("nan"))])
def test_another_loss_is_refused_with_its_window(engines: ModuleType, losses: tuple[float, ...]) -> None:
    model = compared(engines, ours=run(1, 1), b=run(1, 1, losses))
    with pytest.raises(SystemExit, match=r"dense: b has loss .* in window 1 and ours 3\.0"):
        engines.check_agreement(model)


def test_another_number_of_outlier_features_is_refused(engines: ModuleType) -> None:
    with pytest.raises(SystemExit, match="different numbers of outlier features"):
        engines.check_agreement(compared(engines, ours=run(1, 1, outliers=4), d=run(1, 1, outliers=5)))


def test_the_loop_of_2025_counts_what_array_operations_count(contestants: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [3 * torch.randn(50, 30, generator=generator).bfloat16() for _ in range(8)]
    tensors[0][0, 7] = 5.99  # 6 once rounded to bfloat16
    loop = contestants.features_by_loop(tensors, ARB8020)
    assert sorted(loop) == contestants.features_at_once(tensors, ARB8020)
    assert 0 < len(loop) <= 30


@pytest.mark.parametrize(("layers", "positions", "count"), [(2, 3, 1), (1, 3, 0), (2, 2, 0)])
def test_a_feature_needs_a_quarter_of_the_tensors_and_six_percent_of_the_positions(
    contestants: ModuleType, layers: int, positions: int, count: int
) -> None:
    tensors = [torch.zeros(50, 4, dtype=torch.bfloat16) for _ in range(8)]
    for x_TC in tensors[:layers]:
        x_TC[:positions, 2] = -6.0
    assert len(contestants.features_by_loop(tensors, ARB8020)) == count
    assert len(contestants.features_at_once(tensors, ARB8020)) == count


def test_the_table_gives_medians_and_every_column(report: ModuleType) -> None:
    runs = {"ours": [run(3, 1.5), run(1, 1.25), run(2, 9)], "d": [run(20, 9)]}
    head, _, ours, slow, missing = report.table({"runs": runs, "not_run": {"c": "no nnsight"}}).splitlines()
    assert all(f" {column} |" in head for column in report.COLUMNS)
    assert "| 2.0 (1-3) | 4.0 | 1.50 | 0.50 |" in ours
    assert "20.0" in slow
    assert "not run: no nnsight" in missing


def test_targets_are_met_or_missed_by_their_shares(report: ModuleType) -> None:
    runs = {"ours": [run(2, 1.5)], "a": [run(3, 4)], "b": [run(3, 9)], "d": [run(8, 4)]}
    model = {"kind": "dense", "runs": runs}
    judged = {name: (measured, verdict) for name, _, measured, verdict in report.targets(model, windows=8)}
    assert judged["memory at most 1/4 of (a)'s, peak"] == ("0.38", "**missed**")
    assert judged["memory at most 1/4 of (a)'s, less imports"] == ("0.17", "met")
    assert judged["bytes read at most 1/4 of (b)'s, 8 windows or more, weights fetched"] == ("0.17", "met")
    assert judged["not slower than (a), page cache cold, wall"] == ("0.67", "met")
    assert judged["at least 5 times faster than (d), wall"] == ("4.0 times as fast", "**missed**")
    assert not any("weights fetched" in row[0] for row in report.targets(model, windows=2))


def test_a_round_that_was_cut_short_is_left_out(report: ModuleType) -> None:
    dense = {"runs": {"ours": [run(1, 1)] * 3, "a": [run(1, 1)] * 2}, "not_run": {"c": "no nnsight"}}
    found = report.whole_rounds(dense)
    assert found["rounds"] == 2
    assert [len(runs) for runs in found["runs"].values()] == [2, 2]


def test_a_section_is_replaced_and_the_rest_of_the_page_stays(page: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text("# Benchmarks\n")
    for text in ("old", "new"):
        page.write(path, "engines", text)
    begin, end = "<!-- engines: begin, written by benchmarks/engines.py -->", "<!-- engines: end -->"
    assert path.read_text() == f"# Benchmarks\n\n{begin}\nnew\n{end}\n"
    path.write_text(path.read_text() + "\nafter\n")
    page.write(path, "engines", "newest")
    assert path.read_text() == f"# Benchmarks\n\n{begin}\nnewest\n{end}\n\nafter\n"


def printed(script: str, *arguments: str) -> str:
    """Return what a benchmark prints."""
    command = [sys.executable, f"benchmarks/{script}", *arguments]
    environment = os.environ | {"PYTHONPATH": "workflow"}
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_reduction_is_compared_with_a_copy_and_with_torch(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    sizes = ["--channels", "64,96", "--positions", "128", "--seconds", "0.01", "--device", "cpu"]
    contestants = ["--contestants", "ours,hits,medians,eager"]
    text = printed("reduction.py", *sizes, *contestants, "--output", str(page)).partition("## ")[2]
    assert text.strip() in page.read_text()
    rows = [line.strip("|").split("|") for line in text.splitlines() if "%" in line]
    assert [[cell.strip() for cell in row[:2]] for row in rows] == [["64", "128"], ["96", "128"]]
    assert all(len(row) == 7 for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it costs on a CPU")
def test_the_cost_of_observing_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    sizes = ["--windows", "2", "--length", "32", "--rounds", "1", "--blocks", "1"]
    text = printed("overhead.py", "tiny", *sizes, "--output", str(page)).partition("## ")[2]
    assert text.strip() in page.read_text()
    assert "| tiny, 1 blocks | 2 x 32 | bfloat16 |" in text


@pytest.mark.slow
def test_the_command_compares_contestants_and_writes_the_page(report: ModuleType, tmp_path: Path) -> None:
    page, runs = tmp_path / "benchmarks.md", tmp_path / "runs.json"
    sizes = ["--dense", "0.001", "--moe", "0.001", "--windows", "2", "--length", "32", "--rounds", "1"]
    output = ["--output", str(page), "--runs", str(runs)]
    text = printed("engines.py", *sizes, "--contestants", "ours,a,b,c,d", *output)
    assert text.strip() in page.read_text()
    assert all(f" {column} |" in text for column in report.COLUMNS)
    assert text.count("not run: no --nnsight was given") == 2
    for model in json.loads(runs.read_text())["models"]:
        ours, ordinary, offloaded, saved = (model["runs"][name][0] for name in ("ours", "a", "b", "d"))
        assert ours["losses"] == pytest.approx(ordinary["losses"], rel=1e-6)
        assert offloaded["losses"] == pytest.approx(ordinary["losses"], rel=1e-6)
        assert ours["outlier_count"] == saved["outlier_count"] > 0
        assert ours["fetched_bytes"] == ordinary["fetched_bytes"] < offloaded["fetched_bytes"]


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import dag

    return dag


def jobs(models: int) -> int:
    """Return how many jobs a project of so many models on two corpora has."""
    on_a_corpus, once = (
        ("tokenize", "capture", "reduce", "perplexity"),
        ("fetch", "plot_model", "plot_timings", "export"),
    )
    experiment = ("infer", "plot", "export_summary", "index", "all")
    return models * (2 * len(on_a_corpus) + len(once)) + 2 * len(("summarize", "reproduce")) + len(experiment)


def test_a_plan_of_two_models_has_every_job_of_both_corpora_and_what_it_took(dag: ModuleType, tmp_path: Path) -> None:
    dag.write_project(tmp_path / "project", PROJECT, dag.hub_models(2))
    found = dag.plan(tmp_path / "project")
    assert found.jobs == jobs(2)
    assert found.cpu_seconds > 0
    assert 2e7 < found.peak_bytes < 1e9


def test_the_table_of_plans_has_medians(dag: ModuleType) -> None:
    plans = iter([dag.Plan(7, 3.0, 2.0, 90e6), dag.Plan(7, 1.0, 4.0, 80e6), dag.Plan(7, 2.0, 3.0, 100e6)])
    assert dag.row(5, "none yet", dag.measure(3, lambda: next(plans))) == "| 5 | none yet | 7 | 2.0 | 3.0 | 90 |"


@pytest.mark.slow
def test_a_project_of_copied_results_plans_nothing(dag: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/dag.py", "--models", "3", "--runs", "1", "--finished"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"| 3 | none yet | {jobs(3)} |" in done.stdout
    assert "| 3 | nothing stale | 0 |" in done.stdout


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import inference

    return inference


def test_the_simulations_of_the_inference_know_a_jump_from_a_slope(inference: ModuleType) -> None:
    rng = np.random.default_rng(0)
    assert inference.is_jump(inference.jump("middle", 0.01, 20.0, 20, rng))
    assert not inference.is_jump(inference.around("slope", 2.0, 20, rng))


def test_the_simulations_of_the_inference_print_a_row_a_scenario(inference: ModuleType) -> None:
    rows = list(inference.levels(1, lambda jobs: (0.05 for _ in jobs)))
    assert rows[0] == "| No jump: | N = 12 | N = 20 | N = 30 |"
    assert len(rows) == 2 + len(inference.no_jumps())
    assert rows[2] == "| constant, noise 5 | 5.0 | 5.0 | 5.0 |"
