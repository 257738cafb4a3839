"""Devices: where a model runs, and with how many threads."""

import os

import torch


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
