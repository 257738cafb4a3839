"""Planning: memory, bytes and time follow from the sizes of a model, and a real pass stays within them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from outlier_features.models import footprint
from outlier_features.models.checkpoints import seal
from outlier_features.models.sizes import Footprint
from outlier_features.planning.estimate import Pass, estimate
from projects import PROJECT
from small_models import write_windows
from transformers import AutoConfig, AutoModelForCausalLM

PASS = Pass(sequences=16, length=2048, dtype="bfloat16", sites=4, counted=3)


def test_a_device_holds_two_blocks_and_not_the_model(sizes: dict[str, Footprint]) -> None:
    for found in sizes.values():
        needed = estimate(found, PASS).device_bytes
        weights = 2 * (found.resident_params + 2 * found.block_params)
        assert needed > weights
        if found.counts["total_params"] > 1e10:
            assert needed < 2 * found.counts["total_params"]


def test_more_windows_longer_ones_and_more_precision_need_more(sizes: dict[str, Footprint]) -> None:
    found = sizes["Qwen/Qwen3-8B"]
    plain = estimate(found, PASS)
    for more in ({"sequences": 32}, {"length": 4096}, {"dtype": "float32"}):
        assert estimate(found, replace(PASS, **more)).device_bytes > plain.device_bytes
    assert estimate(found, replace(PASS, sequences=32)).statistics_bytes == 2 * plain.statistics_bytes


def test_the_slower_of_computing_and_reading_counts(sizes: dict[str, Footprint]) -> None:
    found = estimate(sizes["Qwen/Qwen3-8B"], PASS)
    assert found.seconds(flops=1e30, bandwidth=1e9) == pytest.approx(found.read_bytes / 1e9)
    assert found.seconds(flops=1e12, bandwidth=1e30) == pytest.approx(found.operations / 1e12)
    # two operations a parameter beside the embedding table, and attention on top
    least = 2 * PASS.tokens * sizes["Qwen/Qwen3-8B"].counts["active_params_without_embedding"]
    assert least < found.operations < 1.5 * least


MEASURE = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from small_models import capture_settings
from outlier_features.capture.run import capture
capture(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), capture_settings(), {"statistics": "a"})
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
def test_a_pass_needs_no_more_memory_than_planned(tmp_path: Path) -> None:
    large = AutoConfig.for_model(
        "qwen3", vocab_size=512, hidden_size=1024, intermediate_size=8192, num_hidden_layers=12
    )
    AutoModelForCausalLM.from_config(large).save_pretrained(tmp_path / "model")
    seal(tmp_path / "model", {"path": "test"}, {"checkpoint": "test"})
    checkpoint = tmp_path / "model"
    ids = np.random.default_rng(0).integers(512, size=(4, 128))
    tokens = write_windows(tmp_path / "windows.arrow", ids)
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, str(PROJECT / "tests/support"), checkpoint, tokens, tmp_path / "out.json"],
        env=os.environ | {"PYTHONPATH": str(PROJECT / "workflow")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    run = Pass(sequences=4, length=128, dtype="float32", sites=4, counted=3)
    planned = estimate(footprint.of_directory(checkpoint), run)
    measured_mb = float(ended.stdout.split()[-1]) * 1024 / 1e6
    assert measured_mb < planned.memory_mb < planned.read_bytes / 1e6 + 500
    assert planned.memory_mb < 3 * measured_mb


def test_planning_is_arithmetic_without_torch() -> None:
    code = (
        "import sys, outlier_features.planning.estimate, outlier_features.pipeline.job_resources\n"
        "print('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "workflow")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
