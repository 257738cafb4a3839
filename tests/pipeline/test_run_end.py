"""The end of a run: the answer and what to try next, or which job failed, why, and where its log lies."""

import json
import os
import time
from pathlib import Path

import pytest
from outlier_features.artefacts import paths
from outlier_features.config.config import Config
from outlier_features.pipeline import run_end

PROJECT = Path(__file__).parents[2]


def write(path: Path, text: str, age: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_an_expected_error_names_model_and_log(tmp_path: Path) -> None:
    log = write(tmp_path / "capture/sotu/a.log", "a: reading\nerror: block 2: out of memory; lower length.\n")
    told = run_end.failed(tmp_path, time.time() - 60)
    assert told.splitlines()[:2] == [
        "capture of a on sotu failed: block 2: out of memory; lower length.",
        f"  log: {log}",
    ]
    assert told.endswith("run the same command again.")


def test_an_unexpected_error_is_the_last_line_of_its_traceback(tmp_path: Path) -> None:
    text = 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: 1\n\nDuring\nValueError: odd width\n'
    write(tmp_path / "fetch/model.log", text)
    assert run_end.failed(tmp_path, 0).startswith("fetch of model failed: ValueError: odd width\n")


def test_logs_of_earlier_runs_and_of_jobs_that_went_well_are_not_told(tmp_path: Path) -> None:
    write(tmp_path / "fetch/old.log", "error: gone\n", age=3600)
    write(tmp_path / "reduce/sotu/well.log", "FutureWarning: soon\n12 channels\n")
    assert run_end.failed(tmp_path, time.time() - 60) == ""


def test_of_many_failures_a_few_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / f"capture/sotu/m{number}.log", "error: no\n")
    told = run_end.failed(tmp_path, 0)
    assert told.count(" failed: ") == run_end.MOST
    assert f"and 3 more under {tmp_path}" in told


def test_a_finished_run_says_the_answer_of_each_model_and_what_to_try_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config.read(PROJECT / "config.yaml")
    assert run_end.succeeded(config) == ""
    for name in ("smollm2-135m", "tiny-moe"):
        write(paths.answer("sotu", name), json.dumps({"sentences": [f"One channel of {name}.", "More."]}))
    assert run_end.succeeded(config).split("\n") == [
        "",
        "SmolLM2-135M-Instruct: One channel of smollm2-135m.",
        "tiny MoE (toy): One channel of tiny-moe.",
        "next: outlier-features show, or outlier-features show --layers",
    ]
