"""An export of each small model, shared by the tests of what is in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import Exported, consumers
from small_models import LENGTH
from transformers import AutoModelForCausalLM


@pytest.fixture(scope="session")
def exported(manifests: dict[str, Path], tokens: Path, tmp_path_factory) -> dict[str, Exported]:
    found = {}
    for kind, manifest in manifests.items():
        folder = tmp_path_factory.mktemp(kind)
        found[kind] = Exported(folder, [manifest], tokens)
    return found


def keep(seen: list[np.ndarray]) -> Callable[[Any, tuple], None]:
    return lambda _module, args: seen.append(args[0].reshape(LENGTH, -1).double().numpy())


@pytest.fixture(scope="session")
def inputs(checkpoints: dict[str, Path], ids: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Per model, what each matrix reads (S, T, C) in float64, by hooks on the matrices of an ordinary forward."""
    result = {}
    for kind, checkpoint in checkpoints.items():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        seen: dict[str, list[np.ndarray]] = {name: [] for names in consumers(kind).values() for name in names}
        for name, kept in seen.items():
            model.get_submodule(name).register_forward_pre_hook(keep(kept))
        with torch.inference_mode():
            for window in ids:
                model(torch.from_numpy(window).long()[None], use_cache=False)
        result[kind] = {name: np.stack(parts) for name, parts in seen.items()}
    return result
