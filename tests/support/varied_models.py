"""Passes with variants over tiny checkpoints, read back as losses and rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from outlier_features.artefacts import provenance
from outlier_features.config.variants import Intervention, Variant, Vary
from outlier_features.models import checkpoints
from outlier_features.text import windows
from outlier_features.variants.runs import Found
from outlier_features.variants.vary import Asked, Model, vary

LENGTH = 12
NONE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Varied:
    """What a pass wrote."""

    manifest: Path
    facts: dict[str, Any]
    losses: dict[str, np.ndarray]
    """By the key of a run: (S, T - 1)."""
    sqnr: list[dict[str, Any]]
    effects: list[dict[str, Any]]

    def rows(self, **wanted: Any) -> list[dict[str, Any]]:
        return [row for row in self.sqnr if all(row[name] == value for name, value in wanted.items())]


def key(run: Mapping[str, Any]) -> str:
    parts = (run["name"], run["kind"], run.get("set_to", ""), "" if run["draw"] is None else str(run["draw"]))
    return "/".join(part for part in parts if part)


def write_ids(path: Path, ids: np.ndarray, artefact: str = "tokens") -> Path:
    rows = [
        {"window": index, "token_ids": row.tolist(), "token_bytes": [2] * len(row), "scored_from": 1}
        for index, row in enumerate(ids)
    ]
    cut = {"window": len(ids[0]), "stride": len(ids[0]), "bos": False}
    windows.write_windows(path, rows, provenance.record({artefact: "test"}, cut=cut))
    return path


def ids_of(count: int, vocabulary: int, seed: int = 0, length: int = LENGTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, vocabulary, (count, length))


def varied(
    checkpoint: Path,
    folder: Path,
    variants: Mapping[str, Any] = NONE,
    interventions: Mapping[str, Any] = NONE,
    *,
    ids: np.ndarray,
    calibration: np.ndarray | None = None,
    chosen: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    found: Found | None = None,
    experts_implementation: str | None = None,
    settings: Vary | None = None,
    name: str = "model",
) -> Varied:
    """Run a pass and read what it wrote; without `calibration` it calibrates on the measured windows."""
    if not (checkpoint / "source.json").exists():
        checkpoints.seal(checkpoint, {"path": str(checkpoint)}, {"checkpoint": "test"})
    folder.mkdir(parents=True, exist_ok=True)
    tokens = write_ids(folder / "tokens.arrow", ids)
    text = None if calibration is None else write_ids(folder / "calibration.arrow", calibration, "calibration")
    manifest = folder / f"{name}.json"
    asked = Asked(
        {key: Variant.model_validate({"windows": 2} | value) for key, value in variants.items()},
        {key: Intervention.model_validate({"windows": 2} | value) for key, value in interventions.items()},
        settings or Vary(sqnr_windows=2),
        found or Found(),
    )
    lineage = {"checkpoint": "test", "tokens": "test", "calibration": "test", "variants": "test"}
    model = Model(dtype, experts_implementation, torch.device("cpu"))
    vary(checkpoint, tokens, text, manifest, asked, model, lineage, windows=chosen)
    return read(manifest)


def read(manifest: Path) -> Varied:
    import json

    facts = json.loads(manifest.read_text())["facts"]
    folder = manifest.with_suffix("")

    def table(pattern: str) -> list[dict[str, Any]]:
        return [row for path in sorted(folder.glob(pattern)) for row in pa.ipc.open_file(path).read_all().to_pylist()]

    losses: dict[str, list[list[float]]] = {}
    for row in table("losses.arrow"):
        losses.setdefault(key(facts["runs"][row["run"]]), []).append(row["loss"])
    return Varied(
        manifest,
        facts,
        {name: np.array(rows, np.float32) for name, rows in losses.items()},
        table("sqnr-*.arrow"),
        table("effects-*.arrow"),
    )
