"""Devices: the one that is asked for is the one that is seen, and what is none is refused."""

import os

import pytest
import torch
from outlier_features.errors import ConfigError
from outlier_features.machine import devices
from outlier_features.machine.gpu_lock import VISIBLE


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "auto:1"])
def test_a_device_of_no_known_name_is_refused_with_the_known_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "7")
    with pytest.raises(ConfigError, match=f"--device {name}: choose auto, cpu, cuda or cuda:N"):
        devices.choose(name)
    assert os.environ[VISIBLE] == "7"


def test_the_cpu_hides_every_gpu_and_an_index_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, seen in (("auto", "7"), ("cuda", "7"), ("cuda:3", "3"), ("cpu", "")):
        monkeypatch.setenv(VISIBLE, "7")
        devices.choose(name)
        assert os.environ[VISIBLE] == seen


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device cuda:1: torch finds no such GPU here; choose auto or cpu"):
        devices.choose("cuda:1")
    assert devices.best_device() == devices.HOST


def test_a_cpu_has_threads_and_a_gpu_none() -> None:
    assert devices.threads(torch.device("cpu")) == torch.get_num_threads()
    assert devices.threads(torch.device("cuda")) is None
    assert devices.name(torch.device("cpu")) == "cpu"
