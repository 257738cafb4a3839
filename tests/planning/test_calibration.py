"""Calibration: seconds follow from the rates by arithmetic, and the rates of this machine from real work."""

from pathlib import Path

import numpy as np
import pytest
import torch
from outlier_features.models.sizes import Footprint
from outlier_features.planning import calibration
from outlier_features.planning.calibration import CALL, REST, VALUE, Rates, seconds
from outlier_features.planning.estimate import Pass, estimate
from safetensors.numpy import save_file

RUN = Pass(sequences=4, length=128, dtype="float32", sites=4, counted=3)


def test_the_slower_of_computing_and_reading_counts_and_values_only_on_a_cpu(sizes: dict[str, Footprint]) -> None:
    found = sizes["Qwen/Qwen3-0.6B"]
    plan = estimate(found, RUN)
    calls, values = found.blocks * 4 * CALL, found.blocks * 4 * 128 * found.channels * 4 * VALUE
    quick_disk = Rates(flops=plan.operations / 10, bandwidth=1e30)
    assert seconds(plan, found, RUN, quick_disk, torch.device("cpu")) == pytest.approx(10 + calls + values + REST)
    assert seconds(plan, found, RUN, quick_disk, torch.device("cuda")) == pytest.approx(10 + calls + REST)
    quick_device = Rates(flops=1e30, bandwidth=plan.read_bytes / 1000)
    assert seconds(plan, found, RUN, quick_device, torch.device("cpu")) == pytest.approx(1000 + REST)


def test_a_rate_counts_every_product_and_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000))
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(calibration, "COMPUTING", 3.0)
    monkeypatch.setattr(calibration, "READING", 9.0)
    save_file({"small": np.zeros(10, np.uint8)}, tmp_path / "a.safetensors")
    save_file({"large": np.zeros(10_000, np.uint8)}, tmp_path / "b.safetensors")
    found = calibration.rates(tmp_path, torch.device("cpu"), "bfloat16", channels=8, tokens=3)
    assert found.flops == 2 * 3 * 8 * 32 * 2 / 3  # two products after the first, in three ticks
    assert found.bandwidth == (tmp_path / "b.safetensors").stat().st_size / 3  # one piece, and that there is no other
