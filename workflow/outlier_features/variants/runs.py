"""Runs: the variants of one pass, in order: the plain model, formats and their noise, interventions and controls."""

# Shapes: C channel, E expert.

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from outlier_features.config.variants import Intervention, Variant
from outlier_features.errors import ConfigError
from outlier_features.variants.interventions import channels as channel_sets
from outlier_features.variants.interventions import experts as expert_sets
from outlier_features.variants.interventions.channels import Change, EqualSize, Replace

PLAIN, FORMAT, NOISE, REAL, RANDOM, EQUAL_SIZE = "plain", "format", "noise", "real", "random", "equal_size"


@dataclass(frozen=True)
class Run:
    """One way the model runs in a pass."""

    name: str
    kind: str
    entry: Variant | Intervention | None = None
    set_to: str = ""
    draw: int | None = None
    change: Change | None = field(default=None, compare=False)
    """What is done to activations."""
    channels: tuple[int, ...] = ()
    experts: Mapping[int, tuple[int, ...]] = field(default_factory=dict, compare=False)
    """Those that are switched off, by block."""

    @property
    def key(self) -> str:
        """A name that no other run of the pass has."""
        parts = [self.name, self.kind, self.set_to, "" if self.draw is None else str(self.draw)]
        return "/".join(part for part in parts if part)

    @property
    def blocks(self) -> tuple[int, ...] | None:
        """The blocks it changes; None for all."""
        if self.experts:
            return tuple(self.experts)
        return None if self.entry is None else self.entry.blocks

    @property
    def first(self) -> int:
        """The first block it changes."""
        return 0 if self.blocks is None else min(self.blocks)

    @property
    def is_quantised(self) -> bool:
        """Whether it rounds."""
        return self.kind in (FORMAT, NOISE)

    @property
    def shows_effects(self) -> bool:
        """Whether attention and routing of it are looked at."""
        return not self.is_quantised

    def changes(self, block: int) -> bool:
        """Return whether it changes a block."""
        return self.kind != PLAIN and (self.blocks is None or block in self.blocks)


@dataclass(frozen=True)
class Shape:
    """What of a model decides which runs it can have."""

    name: str
    channels: int
    experts: Mapping[int, int]
    """How many routed experts each block has that has any."""
    blocks: int
    has_routers: bool


@dataclass(frozen=True)
class Found:
    """What a capture found that interventions name."""

    channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The channels of each intervention that names a definition, or the largest."""
    super_experts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


def runs(
    variants: Mapping[str, Variant], interventions: Mapping[str, Intervention], shape: Shape, found: Found, noise: bool
) -> list[Run]:
    """Return every run of a pass, the plain model first. Raises ConfigError for what a model cannot have."""
    result = [Run("", PLAIN)]
    for name, entry in variants.items():
        _require_blocks(f"variants.{name}", entry.blocks, shape)
        result.append(Run(name, FORMAT, entry))
        if noise:
            result.append(Run(name, NOISE, entry))
    for name, intervention in interventions.items():
        where = f"interventions.{name}"
        _require_blocks(where, intervention.blocks, shape)
        if intervention.experts is not None:
            result += _of_experts(name, intervention, shape, found)
        else:
            result += _of_channels(name, intervention, shape, found)
    return result


def _of_channels(name: str, entry: Intervention, shape: Shape, found: Found) -> Iterator[Run]:
    where = f"interventions.{name}"
    if not shape.has_routers and {"router", "experts"} & set(entry.at):
        raise ConfigError(f"{where}.at: {shape.name} is dense and has no router; give attn_in, mlp_in")
    own = entry.channels if isinstance(entry.channels, tuple) else found.channels[name]
    if any(channel >= shape.channels for channel in own):
        raise ConfigError(
            f"{where}.channels: {max(own)} is no channel of {shape.name}, which has 0 to {shape.channels - 1}"
        )
    if entry.controls.random and 2 * len(own) > shape.channels:
        raise ConfigError(
            f"{where}.controls.random: {shape.name} has {shape.channels} channels, so {len(own)} others cannot be "
            "drawn; leave random out"
        )
    for set_to in entry.set_to:
        yield Run(name, REAL, entry, set_to, change=Replace(own, set_to), channels=own)
        if not own:
            continue  # nothing is replaced, so nothing is to be compared
        for draw in range(entry.controls.random):
            others = channel_sets.other_channels(own, shape.channels, generator(entry.seed, name, RANDOM, draw))
            yield Run(name, RANDOM, entry, set_to, draw, Replace(others, set_to), others)
        for draw in range(entry.controls.equal_size):
            axes = channel_sets.directions(len(own), shape.channels, generator(entry.seed, name, EQUAL_SIZE, draw))
            yield Run(name, EQUAL_SIZE, entry, set_to, draw, EqualSize(own, set_to, axes), own)


def _of_experts(name: str, entry: Intervention, shape: Shape, found: Found) -> Iterator[Run]:
    where = f"interventions.{name}.experts"
    if not shape.experts:
        raise ConfigError(f"{where}: {shape.name} is dense and has no experts; leave it out for this model")
    own = found.super_experts if entry.experts == "super" else dict(entry.experts or {})
    for block, experts in own.items():
        if block not in shape.experts:
            raise ConfigError(f"{where}: block {block} of {shape.name} has no routed experts")
        if any(expert >= shape.experts[block] for expert in experts):
            raise ConfigError(f"{where}: block {block} of {shape.name} has experts 0 to {shape.experts[block] - 1}")
    yield Run(name, REAL, entry, "zero", experts=own)
    for draw in range(entry.controls.random):
        others = expert_sets.other_experts(own, shape.experts, generator(entry.seed, name, RANDOM, draw))
        yield Run(name, RANDOM, entry, "zero", draw, experts=others)


def generator(seed: int, *what: Any) -> np.random.Generator:
    """Return a generator of random numbers that depends on these words alone, whatever else runs."""
    digest = hashlib.sha256("/".join(map(str, (seed, *what))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _require_blocks(where: str, blocks: Sequence[int] | None, shape: Shape) -> None:
    if blocks is not None and (not blocks or max(blocks) >= shape.blocks):
        raise ConfigError(f"{where}.blocks: {list(blocks)}; {shape.name} has blocks 0 to {shape.blocks - 1}")
