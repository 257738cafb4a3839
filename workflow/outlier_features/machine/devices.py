"""Devices: where a model runs, and with how many threads."""

import os

import torch

from outlier_features.errors import ConfigError
from outlier_features.machine.gpu_lock import VISIBLE

HOST = torch.device("cpu")


def choose(name: str) -> None:
    """Let this process see the device that was asked for: auto, cpu, cuda or cuda:N. Raises ConfigError."""
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"--device {name}: choose auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        os.environ[VISIBLE] = ""
    elif index:
        os.environ[VISIBLE] = index
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device {name}: torch finds no such GPU here; choose auto or cpu")


def best_device() -> torch.device:
    """Return the CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_every_core() -> None:
    """Let torch use every core this process may run on.

    Snakemake sets OMP_NUM_THREADS to the threads of a rule; `--cores 1` means one job at a time here, not one core.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def name(device: torch.device) -> str:
    """Return what to call a device in a file: the GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def threads(device: torch.device) -> int | None:
    """Return how many threads of a CPU share a sum out, which moves its last bits; None on a GPU, where none do."""
    return torch.get_num_threads() if device.type == "cpu" else None
