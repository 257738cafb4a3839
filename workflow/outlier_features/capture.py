"""Capture: one pass of a model over its windows, observed at every site and written block by block."""

# Shapes: S sequence (window), T position, C channel, V vocabulary.

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from outlier_features import atomic, checkpoints, devices, engine, kernels, parameters, provenance, shards, sites
from outlier_features.corpora import TokenWindows, read_windows
from outlier_features.disk import require_room
from outlier_features.errors import ArchitectureError, ConfigError, NonFiniteActivations
from outlier_features.grid import grid
from outlier_features.lineage import Lineage
from outlier_features.planning import Pass, estimate
from outlier_features.sites import SiteName
from outlier_features.statistics import Grids, Histogram, Reached, SiteStatistics
from outlier_features.weights import Weights

LOSS_ROWS = 128
"""Rows of logits that are turned into losses at once, to keep their float32 copy small."""


@dataclass(frozen=True)
class Settings:
    """What a capture keeps."""

    sites: tuple[SiteName, ...]
    counted: tuple[SiteName, ...]
    """The sites whose hits are counted."""
    coverages: tuple[tuple[SiteName, ...], ...]
    """The sets of sites over which a position counts as hit when any of their tensors is."""
    grids: Grids
    dtype: torch.dtype
    count_nonfinite: bool = False
    """Count NaN and infinity and go on, where the default is to stop."""

    @classmethod
    def of(
        cls,
        entry: Any,
        counted: Sequence[SiteName],
        coverages: Sequence[tuple[SiteName, ...]],
        dtype: str,
    ) -> "Settings":
        """Return the settings of a `capture` entry of the configuration."""
        return cls(
            sites=entry.sites,
            counted=tuple(counted),
            coverages=tuple(coverages),
            grids=Grids(grid(entry.thresholds), grid(entry.rms_thresholds)),
            dtype=getattr(torch, dtype),
            count_nonfinite=entry.nonfinite == "count",
        )


def capture(
    checkpoint: Path,
    tokens: Path,
    manifest: Path,
    settings: Settings,
    lineage: Lineage,
    *,
    windows: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> None:
    """Run the model in `checkpoint` over the windows in `tokens`; write its shards and the `manifest` beside them.

    The shards go to the directory of the manifest's name without suffix; the manifest is written last. An older result
    stays until the new one is whole.
    `windows` picks some of the windows, all by default; `device` is a CUDA device where there is one, else the CPU.
    Raises NonFiniteActivations naming block, site and window.
    """
    device = device or devices.best_device()
    source = checkpoints.read_source(checkpoint, lineage.get("checkpoint"))
    packed = read_windows(tokens, lineage.get("tokens"))
    chosen = sorted(range(len(packed.ids_ST)) if windows is None else windows)
    _require_room(checkpoint, manifest, settings, len(chosen), packed)
    weights = Weights(checkpoint, settings.dtype, device)
    _check_vocabulary(weights, packed, tokens)
    if weights.left_out:
        parts = ", ".join(name.rstrip(".") for name in weights.left_out)
        print(f"{checkpoint.name} sees images too: its text part is measured, without {parts}")
    origin = provenance.record(
        lineage,
        model=checkpoint.name,
        source=source,
        dtype=str(settings.dtype).removeprefix("torch."),
        device=devices.name(device),
        attention=weights.model.config._attn_implementation,
        experts_implementation=getattr(weights.model.config, "_experts_implementation", None),
        left_out=list(weights.left_out),
    )
    with atomic.directory(manifest.with_suffix("")) as unfinished:
        window_ids = [packed.ids(window) for window in chosen]
        observer = _Observer(weights, chosen, window_ids, settings, unfinished, origin)
        ids = [torch.from_numpy(row).long() for row in window_ids]
        with observer:
            losses = engine.run(weights, ids, lambda index, logits: token_losses(logits, ids[index]), observer)
        observer.write_coverage()
        rows = [{"window": window, "loss": loss.cpu().numpy()} for window, loss in zip(chosen, losses, strict=True)]
        shards.write(unfinished / shards.LOSSES, shards.LOSS_SCHEMA, rows, origin)
        facts = _facts(weights, packed, chosen, settings)
        shards.write_manifest(manifest.with_name(f".{manifest.name}.new"), unfinished, facts, origin)
    manifest.with_name(f".{manifest.name}.new").replace(manifest)


def _require_room(checkpoint: Path, manifest: Path, settings: Settings, windows: int, packed: TokenWindows) -> None:
    """Raise SourceError before anything is read if the disk has no room for the statistics."""
    dtype = str(settings.dtype).removeprefix("torch.")
    run = Pass(windows, packed.ids_ST.shape[1], dtype, len(settings.sites), len(settings.counted))
    size = estimate(checkpoints.read_footprint(checkpoint), run).statistics_bytes
    require_room(manifest.parent, size, f"the statistics of {checkpoint.name}")


def token_losses(logits_TV: torch.Tensor, ids_T: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood in nats of each token after the first (T - 1,), computed in float32."""
    pairs = zip(logits_TV[:-1].split(LOSS_ROWS), ids_T[1:].to(logits_TV.device).split(LOSS_ROWS), strict=True)
    return torch.cat([nn.functional.cross_entropy(logits.float(), ids, reduction="none") for logits, ids in pairs])


class _Observer:
    """Reduces what the probes see while the engine runs, and writes a shard whenever a block is done."""

    def __init__(
        self,
        weights: Weights,
        windows: Sequence[int],
        ids: Sequence[np.ndarray],
        settings: Settings,
        directory: Path,
        origin: provenance.Provenance,
    ) -> None:
        self._weights, self._windows, self._settings = weights, windows, settings
        self._ids, self._directory, self._origin = ids, directory, origin
        self._block = self._window = 0
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        self._reached: dict[tuple[SiteName, int], Reached] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> None:
        """Attach the probes, and show progress."""
        steps = len(self._weights.blocks) * len(self._windows)
        self._progress = self._hooks.enter_context(tqdm(total=steps, desc="capture", unit="window", smoothing=0.1))
        for block in self._weights.blocks:
            self._hooks.enter_context(sites.observed(sites.probes(block, self._settings.sites), self._record))
            bank = sites.expert_bank(block)
            if bank is not None:
                self._hooks.enter_context(sites.routed(bank, self._record_routing))

    def __exit__(self, *_: object) -> None:
        """Take the probes away."""
        self._hooks.close()

    def enter(self, block: int, window: int) -> None:
        """Note which block and window the next tensors belong to."""
        self._block, self._window = block, window

    def passed(self, block: int, window: int) -> None:
        """Count a finished step."""
        self._progress.update()

    def leave(self, block: int) -> None:
        """Write the shard of a finished block."""
        wanted = [(site, index) for site in self._settings.sites for index in range(len(self._windows))]
        missing = sorted({site for site, index in wanted if (site, index) not in self._rows})
        if missing:
            raise ArchitectureError(
                f"block {block}: no activation was seen at {', '.join(missing)}; declare the site for this "
                "architecture in outlier_features/sites.py or leave it out of capture.sites."
            )
        rows = [self._rows[key] for key in sorted(self._rows)]
        shards.write(self._directory / shards.block_name(block), shards.BLOCK_SCHEMA, rows, self._origin)
        self._rows.clear()
        self._progress.set_postfix_str(f"block {block + 1}/{len(self._weights.blocks)} written")

    def write_coverage(self) -> None:
        """Write at how many positions each channel was hit in any tensor, for every set of sites asked for."""
        channels = self._weights.model.config.get_text_config().hidden_size
        rows = []
        for coverage in self._settings.coverages:
            for index, window in enumerate(self._windows):
                reached = [self._reached[site, index] for site in coverage]
                if all(part.absolute_TC.shape[1] == channels for part in reached):
                    rows.append({"sites": "+".join(sorted(coverage)), "window": window} | self._covered(reached))
        shards.write(self._directory / shards.COVERAGE, shards.COVERAGE_SCHEMA, rows, self._origin)

    def _covered(self, parts: Sequence[Reached]) -> dict[str, Any]:
        grids = self._settings.grids
        absolute = torch.stack([part.absolute_TC for part in parts]).amax(0)
        relative = torch.stack([part.relative_TC for part in parts]).amax(0)
        return _cells("hit", Histogram.of_levels(absolute, len(grids.absolute) + 1)) | _cells(
            "rms_hit", Histogram.of_levels(relative, len(grids.relative) + 1)
        )

    def _record(self, site: SiteName, x_TC: torch.Tensor) -> None:
        ids_T = self._ids[self._window]
        if x_TC.shape[0] != len(ids_T):
            raise ArchitectureError(f"block {self._block}: {site} has {x_TC.shape[0]} rows for {len(ids_T)} tokens.")
        statistics = kernels.reduce_site(x_TC, self._settings.grids, self._reached_at(site, x_TC))
        self._check_finite(site, statistics)
        row = self._row(site) | _site_columns(statistics)
        if site == "residual":
            medians = asdict(kernels.reduce_medians(x_TC, statistics))
            row |= {name.removesuffix("_N").removesuffix("_T"): _host(value) for name, value in medians.items()}
            row["massive_token"] = ids_T[row["massive_position"]]
        self._rows[site, self._window] = row

    def _record_routing(self, choices_Tk: torch.Tensor) -> None:
        bank = sites.expert_bank(self._weights.blocks[self._block])
        assert bank is not None
        row = self._row("router")
        row["expert_count"], row["top_k"] = sites.expert_count(bank), choices_Tk.shape[-1]
        row["expert_choices"] = _host(choices_Tk.reshape(-1).short())
        self._rows["router", self._window] = row

    def _row(self, site: str) -> dict[str, Any]:
        return {"block": self._block, "site": site, "window": self._windows[self._window]}

    def _reached_at(self, site: SiteName, x_TC: torch.Tensor) -> Reached | None:
        if site not in self._settings.counted:
            return None
        key = (site, self._window)
        if key not in self._reached:
            self._reached[key] = Reached.nothing(x_TC.shape[0], x_TC.shape[1], x_TC.device)
        elif self._reached[key].absolute_TC.shape != x_TC.shape:
            raise ConfigError(
                f"block {self._block}: {site} has another width than in the blocks before; drop the site."
            )
        return self._reached[key]

    def _check_finite(self, site: SiteName, statistics: SiteStatistics) -> None:
        if statistics.nan_count + statistics.inf_count and not self._settings.count_nonfinite:
            raise NonFiniteActivations(
                f"block {self._block}, {site}, window {self._windows[self._window]}: {statistics.nan_count} NaN and "
                f"{statistics.inf_count} infinite values in a {str(self._settings.dtype).removeprefix('torch.')} pass; "
                "choose bfloat16 or float32 as dtype of the model, or set capture.nonfinite to count to leave them out."
            )


def _site_columns(statistics: SiteStatistics) -> dict[str, Any]:
    plain = {name: value for name, value in vars(statistics).items() if name not in ("hits", "rms_hits")}
    columns = {name.removesuffix("_C").removesuffix("_T"): _host(value) for name, value in plain.items()}
    for prefix, histogram in (("hit", statistics.hits), ("rms_hit", statistics.rms_hits)):
        if histogram is not None:
            columns |= _cells(prefix, histogram)
    return columns


def _cells(prefix: str, histogram: Histogram) -> dict[str, Any]:
    return {f"{prefix}_{name.removesuffix('_N')}": _host(value) for name, value in vars(histogram).items()}


def _host(value: Any) -> Any:
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value


def _facts(weights: Weights, packed: TokenWindows, windows: Sequence[int], settings: Settings) -> Mapping[str, Any]:
    """Return what readers of the shards need to know about the model and the pass."""
    return {
        **parameters.count(weights.model).facts(),
        "architecture": type(weights.model).__name__,
        "blocks": len(weights.blocks),
        "channels": weights.model.config.get_text_config().hidden_size,
        "dtype": str(settings.dtype).removeprefix("torch."),
        "windows": list(windows),
        "positions": packed.ids_ST.shape[1],
        "positions_per_window": packed.lengths[list(windows)].tolist(),
        "sites": list(settings.sites),
        "grids": asdict(settings.grids),
    }


def _check_vocabulary(weights: Weights, packed: TokenWindows, tokens: Path) -> None:
    size = weights.model.get_input_embeddings().weight.shape[0]
    largest = int(packed.ids_ST.max())
    if largest >= size:
        raise ConfigError(
            f"{tokens}: holds token {largest}, but the embedding of {weights.directory.name} has {size} rows; "
            "tokenizer and model do not belong together."
        )
