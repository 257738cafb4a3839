"""Checkpoint names: what a checkpoint calls a module that transformers has renamed.

Mixtral's `block_sparse_moe.gate` is `mlp.gate` in the model. Who loads the checkpoint by other means knows the former.
"""

import re
from collections.abc import Iterable


def in_checkpoint(module: str, keys: Iterable[str], block: str) -> str:
    """Return the name of a module inside its block as the keys of the checkpoint that fill its parameters have it.

    `block` is the full name of the block in the model, whose last two parts a key has too, whatever comes before. A
    fused bank is what its parts have in common. The name stays as it is where keys do not tell another.
    """
    inside = re.compile(rf"(?:^|.*\.){re.escape('.'.join(block.split('.')[-2:]))}\.(.+)\.[^.]+")
    owners = [found[1].split(".") for key in keys if (found := inside.fullmatch(key))]
    if not owners:
        return module
    common = 0
    while all(len(owner) > common and owner[common] == owners[0][common] for owner in owners):
        common += 1
    return ".".join(owners[0][:common]) if common >= len(module.split(".")) else module
