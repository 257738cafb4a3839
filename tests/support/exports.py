"""Exports of small models, and the matrices that they tell of."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from outlier_features.config.entries import Definition
from outlier_features.experiment.summary import Entry
from outlier_features.exports.export import export
from outlier_features.metrics.evaluate import TABLES, reduce
from outlier_features.metrics.perplexity import write_perplexity
from projects import PROJECT
from safetensors import safe_open
from safetensors.numpy import load_file
from small_models import BLOCKS

DEFINITIONS = {
    "arb8020": Definition(sites=("attn_in", "mlp_in"), scope="sequence", rounding="bfloat16"),
    "llm_int8": Definition(sites=("attn_in", "mlp_in")),
    "llm_int8_paper": Definition(sites=("attn_in", "out_proj_in", "mlp_in")),
}
LINEAGE = {"export": "test", "statistics": "test", "reduction m": "test", "perplexity m": "test"}
SCALES = ("act_scales", "act_scales_rest", "importance", "input_scales", "kv_scales")


def consumers(kind: str, blocks: int = BLOCKS) -> dict[str, list[str]]:
    """The matrices of the small Qwen3 models, by tensor; block 0 of the mixture is dense."""
    found = {}
    for block in range(blocks):
        name = f"model.layers.{block}"
        found[f"{block}.attn_in"] = [f"{name}.self_attn.{matrix}_proj" for matrix in "qkv"]
        found[f"{block}.out_proj_in"] = [f"{name}.self_attn.o_proj"]
        is_mixture = kind == "moe" and block
        mlp = ("experts", "gate") if is_mixture else ("gate_proj", "up_proj")
        found[f"{block}.mlp_in"] = [f"{name}.mlp.{matrix}" for matrix in mlp]
        found[f"{block}.down_in"] = [f"{name}.mlp.{'experts' if is_mixture else 'down_proj'}"]
    return found


def tables(manifests: Sequence[Path], tokens: Path, folder: Path, definitions: dict[str, Definition]) -> Entry:
    """Reduce statistics to the tables of the model `m` in `folder`."""
    files = {name: folder / f"{name}.parquet" for name in TABLES} | {"answer": folder / "answer.json"}
    reduce(manifests, files, definitions, {"reduction": "test", "statistics": "test"})
    quality = folder / "perplexity.json"
    write_perplexity(manifests, tokens, quality, {"perplexity": "test", "statistics": "test"})
    return Entry("m", "100 % of_it & more", "train", None, None, None, files["outliers"], files["layers"], quality)


class Exported:
    """An export and what it was made from."""

    def __init__(self, folder: Path, manifests: Sequence[Path], tokens: Path, **changes: Any) -> None:
        self.definitions = changes.pop("definitions", DEFINITIONS)
        self.entry = replace(tables(manifests, tokens, folder, self.definitions), **changes)
        self.folder = folder / "export"
        export(self.entry, manifests, self.definitions, "words", self.folder, LINEAGE)

    @property
    def channels(self) -> dict[str, Any]:
        """The JSON, which must be strict, in the form that is documented."""
        found = json.loads((self.folder / "outlier_channels.json").read_text(), parse_constant=pytest.fail)
        schema = json.loads((PROJECT / "resources/schemas/outlier_channels.json").read_text())
        jsonschema.validate(found, schema)
        return found

    @property
    def calibration(self) -> dict[str, Any]:
        """What experts saw and whether there is an imatrix, in the form that is documented."""
        found = json.loads((self.folder / "calibration.json").read_text(), parse_constant=pytest.fail)
        jsonschema.validate(found, json.loads((PROJECT / "resources/schemas/calibration.json").read_text()))
        return found

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        return load_file(self.folder / f"{name}.safetensors")

    def metadata(self, name: str) -> dict[str, str]:
        with safe_open(self.folder / f"{name}.safetensors", "numpy") as opened:
            return opened.metadata()

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()
