"""Pickled weights: the `.bin` files of older checkpoints, rewritten as safetensors.

They are read with `weights_only=True`, which builds tensors and nothing else: no code of a checkpoint ever runs.
"""

import re
from pathlib import Path
from typing import Any

from outlier_features.artefacts import atomic
from outlier_features.errors import SourceError

INDEX = "pytorch_model.bin.index.json"


def rewrite(directory: Path, where: str) -> None:
    """Replace the `.bin` files of a checkpoint by safetensors files of the same tensors, one by one.

    Raises SourceError naming the model, as `where`, and the file that holds anything but tensors or cannot be read.
    """
    weight_map: dict[str, str] = {}
    for path in sorted(directory.rglob("*.bin")):
        target = path.with_name(path.name.replace("pytorch_model", "model")).with_suffix(".safetensors")
        tensors = _tensors(path, where)
        _save(tensors, target)
        weight_map |= dict.fromkeys(tensors, target.relative_to(directory).as_posix())
        del tensors
        path.unlink()
    (directory / INDEX).unlink(missing_ok=True)
    atomic.write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _tensors(path: Path, where: str) -> dict[str, Any]:
    import torch  # seconds to import; checkpoints without .bin do without

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle, or half of one, fail in any way
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        wrong = f"asks for {code[1]}, and code is never run" if code else "is cut or damaged, or no pickle of tensors"
        raise SourceError(f"{where}: {path.name} {wrong}; name a revision with safetensors.") from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise SourceError(f"{where}: {path.name} holds something else than named tensors; name another revision.")
    return content


def _save(tensors: dict[str, Any], target: Path) -> None:
    from safetensors.torch import save_file

    # a clone each: tied weights share their memory, which the format does not allow
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, target, {"format": "pt"})
