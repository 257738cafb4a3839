"""Estimate: what measuring a model takes, before it is paid for: memory, bytes, time. Arithmetic only, no torch.

Every figure follows from the sizes of the model, the windows and the precision by the way the engine works: it holds
two decoder blocks (the next is read while one computes), the tensors outside the blocks, and the hidden state of every
window; one window at a time runs through a block. Memory errs on the upper side.
"""

# Shapes: S sequence (window), T position, C channel, V vocabulary, H attention head.

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outlier_features.config.config import Config
from outlier_features.config.entries import Corpus, Model
from outlier_features.models.sizes import BYTES, Footprint
from outlier_features.site_names import INNER, SiteName

FLOPS, BANDWIDTH = 1e13, 1e9
"""Operations a second and bytes read a second that are assumed where nothing is said: a small GPU, a plain SSD."""
PROCESS, DRIVER = 0.9e9, 0.6e9
"""Bytes of a process with its libraries, and of a CUDA context."""
LOSS_ROWS = 128
"""Rows of logits the losses are computed of at once, in float32."""
CONVERSIONS = 2
"""How often fused experts are held besides, while they are stacked from single experts or dequantised."""
FLOAT32_COPIES = 4
"""Copies of one window's activations, in float32, that the reductions make."""
CELL, POSITION = 40, 14
"""Bytes that statistics keep per window, tensor and channel, and per window, tensor and position."""
SPREAD = 1_000
"""Bytes that counts of magnitudes take per window and tensor, compressed."""
EXPERT_CELL = 20
"""Bytes that statistics keep per expert and channel, once a capture."""
COUNTS = 320
"""Bytes a GPU keeps per window, counted site and channel until a block is done: a count for every threshold."""


@dataclass(frozen=True)
class Pass:
    """One forward pass of the sweep: how many windows of which length, in which precision, read at how many sites."""

    sequences: int
    length: int
    dtype: str
    sites: int
    counted: int
    """Sites whose hits are counted; each keeps two bytes a position and channel."""
    inner: int = 0
    """Of the sites, those inside an MLP."""

    @classmethod
    def of(cls, config: Config, corpus: Corpus, model: Model) -> "Pass":
        """Return the pass of a model over a corpus of the configuration."""
        kept = config.capture.sites, config.counted_sites
        return cls.over(corpus.sequences, corpus.length, model.dtype, *kept)

    @classmethod
    def over(
        cls, sequences: int, length: int, dtype: str, sites: Sequence[SiteName], counted: Sequence[SiteName]
    ) -> "Pass":
        """Return a pass that keeps these sites, and counts hits at some of them."""
        return cls(sequences, length, dtype, len(sites), len(counted), sum(site in INNER for site in sites))

    @property
    def tokens(self) -> int:
        """Tokens that are run."""
        return self.sequences * self.length


@dataclass(frozen=True)
class Estimate:
    """What one pass of one model takes; bytes and seconds."""

    device_bytes: float
    """On the device; a run on the CPU needs them beside `host_bytes`."""
    hidden_bytes: float
    """Of these: hidden states of the windows that wait, which can be offloaded."""
    host_bytes: float
    read_bytes: float
    statistics_bytes: float
    operations: float

    def seconds(self, flops: float = FLOPS, bandwidth: float = BANDWIDTH) -> float:
        """Return how long the pass takes where `flops` operations and `bandwidth` bytes a second are sustained.

        Reading runs ahead of computing, so the slower of the two counts, and the first block waits for its bytes.
        """
        return max(self.operations / flops, self.read_bytes / bandwidth)

    @property
    def memory_mb(self) -> int:
        """Megabytes a job asks for: all of it on the host, as on a machine without a device."""
        return math.ceil((self.host_bytes + self.device_bytes) / 1e6)

    @property
    def minutes(self) -> int:
        """Minutes a job asks for: three times the estimate, and ten to start."""
        return math.ceil(10 + 3 * self.seconds() / 60)

    @property
    def disk_mb(self) -> int:
        """Megabytes a job writes."""
        return math.ceil(self.statistics_bytes / 1e6) + 1


def estimate(footprint: Footprint, run: Pass) -> Estimate:
    """Return what one pass takes on the engine."""
    width, tokens = BYTES[run.dtype], run.tokens
    weights = footprint.resident_params + 2 * footprint.block_params + CONVERSIONS * footprint.bank_params
    hidden = 2 * tokens * footprint.channels * width
    hits = 2 * tokens * footprint.channels * run.counted
    experts, top_k = (footprint.counts[name] or 0 for name in ("experts", "top_k"))
    # of a mixture the hidden layer of one expert: three matrices lead into it and out of it
    inner = footprint.bank_params / (3 * footprint.channels * experts) if experts else footprint.inner_channels / 3
    cells = footprint.channels * (run.sites - run.inner) + inner * run.inner
    of_experts = experts * (footprint.channels + inner) * EXPERT_CELL if run.inner else 0
    rows = run.sequences * (cells * CELL + footprint.channels * run.counted * COUNTS) + of_experts
    positions = run.length * (run.sites + (max(top_k, 1) - 1) * min(run.inner, 1))
    of_windows = run.sequences * (cells * CELL + run.sites * SPREAD + positions * POSITION)
    return Estimate(
        device_bytes=weights * width + hidden + hits + 2 * rows + _of_one_window(footprint, run),
        hidden_bytes=hidden,
        host_bytes=PROCESS + DRIVER + 2 * rows,
        read_bytes=footprint.stored_bytes,
        statistics_bytes=footprint.blocks * (of_windows + of_experts),
        operations=_operations(footprint, run),
    )


def _of_one_window(footprint: Footprint, run: Pass) -> float:
    """Return the bytes of what a window has only while it is in a block, or at the head."""
    width = BYTES[run.dtype]
    scores = footprint.heads * run.length**2 * (width + 4) if footprint.is_attention_materialised else 0
    inner = run.length * (footprint.inner_channels + FLOAT32_COPIES * 2 * footprint.channels) * width
    logits = run.length * footprint.vocabulary * width + 2 * LOSS_ROWS * footprint.vocabulary * 4
    return max(scores + inner, logits)


def _operations(footprint: Footprint, run: Pass) -> float:
    """Return multiplications and additions: two a parameter and token, and the scores of attention."""
    attention = 4 * footprint.blocks * footprint.heads * footprint.head_channels * run.length
    return run.tokens * (2 * footprint.counts["active_params_without_embedding"] + attention)


@dataclass(frozen=True)
class Varied:
    """What the variants and interventions of one model take, all in one pass."""

    names: tuple[str, ...]
    runs: int
    """How often the model runs, the plain model and every draw of controls included."""
    estimate: Estimate

    def row(self, flops: float, bandwidth: float) -> dict[str, Any]:
        """Return it as plain values."""
        found = self.estimate
        return {
            "variants": list(self.names),
            "variant_runs": self.runs,
            "variants_read_bytes": round(found.read_bytes),
            "variants_device_bytes": round(found.device_bytes),
            "variants_hidden_bytes": round(found.hidden_bytes),
            "variants_seconds": found.seconds(flops, bandwidth),
        }


@dataclass(frozen=True)
class Plan:
    """What one model of an experiment takes, and what of it is there already."""

    model: str
    label: str
    hub: str | None
    footprint: Footprint
    estimate: Estimate
    download_bytes: float
    is_download_known: bool
    """Whether the hub told the sizes of the files; else they follow from the configuration."""
    cached: tuple[str, ...]
    """The stages whose results are up to date."""
    varied: Varied | None = None
    """The pass with variants; None without any."""

    def row(self, flops: float, bandwidth: float) -> dict[str, Any]:
        """Return the plan as plain values."""
        found = self.estimate
        return {
            "model": self.model,
            "label": self.label,
            "hub": self.hub,
            "architecture": self.footprint.architecture,
            **self.footprint.counts,
            "download_bytes": round(self.download_bytes),
            "is_download_known": self.is_download_known,
            "read_bytes": round(found.read_bytes),
            "device_bytes": round(found.device_bytes),
            "host_bytes": round(found.host_bytes),
            "statistics_bytes": round(found.statistics_bytes),
            "seconds": found.seconds(flops, bandwidth),
            "cached": list(self.cached),
            **({} if self.varied is None else self.varied.row(flops, bandwidth)),
        }
