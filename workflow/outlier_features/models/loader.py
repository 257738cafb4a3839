"""Loader: the one of transformers, stopped just before it reads tensors, and kept on the calling thread of a GPU.

By then transformers has built the model on the meta device and knows how every key of the checkpoint is renamed, fused
and cast.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as transformers_logging

from outlier_features.artefacts import remedies
from outlier_features.errors import SourceError
from outlier_features.models import architectures

_loader_log = logging.getLogger("transformers.modeling_utils")


class _Stopped(Exception):
    """Carries what from_pretrained had prepared when it was about to read the tensors."""


def stopped_before_loading(
    directory: Path, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, list[str], LoadStateDictConfig]:
    """Return the model on the meta device, its files, and how transformers loads them, as if nothing was quantised."""

    def stop(model: PreTrainedModel, _state: Any, files: list[str], loading: LoadStateDictConfig, *_: Any) -> None:
        raise _Stopped(model, files, loading)

    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the tensors that the loader gets are dequantised
    with patch.object(PreTrainedModel, "_load_pretrained_model", staticmethod(stop)), _quiet():
        try:
            architectures.automatic(config).from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                device_map={"": device},
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except _Stopped as stopped:
            model, files, loading = stopped.args
        except (OSError, ValueError, KeyError) as error:
            raise SourceError(
                f"{directory}: not a checkpoint that transformers can open ({_first_line(error)}); "
                f"{remedies.of_checkpoint(directory)}."
            ) from error
    transformers_logging.disable_progress_bar()
    return model.eval(), files, loading


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def in_order_of(device: torch.device) -> Iterator[None]:
    """Let transformers copy tensors on the calling thread where a device computes in streams.

    A thread's current stream is its own. The loader's threads would copy on the default stream what the calling thread
    stacks and frees on another one, and nothing would make either wait. On a CPU its threads share the casts out.
    """
    if device.type == "cpu":
        yield
        return
    # the loader looks for HF_DEACTIVATE_ASYNC_LOAD; setting that for a while is not safe beside threads that read it
    with patch("transformers.core_model_loading.is_env_variable_true", return_value=True):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    level = _loader_log.level
    _loader_log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _loader_log.setLevel(level)
