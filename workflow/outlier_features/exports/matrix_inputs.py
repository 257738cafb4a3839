"""Matrix inputs: per channel, how large what each matrix reads becomes, under the matrix's full name, as safetensors.

Maxima serve as the `act_scales` of SmoothQuant (Xiao et al. 2023), mean squares as an importance matrix (llama.cpp).
"""

# Shapes: S sequence, C channel.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from outlier_features.artefacts import atomic, strict_json
from outlier_features.artefacts.provenance import Provenance
from outlier_features.errors import StaleFile
from outlier_features.statistics.shards import BlockTable, SiteTable, Statistics

CONTENT = {
    "act_scales": "largest |x| of each input channel of each matrix, over every position",
    "act_scales_rest": "largest |x| of each input channel of each matrix, without position 0 of each sequence",
    "importance": "mean of x^2 of each input channel of each matrix, over every position",
}
"""The files, by name without suffix, and what their tensors are: float32 (C,), one for each matrix."""

ABSENT = (
    "matrices that read a tensor which is not captured have no entry, never zeros: inner projections of a low-rank "
    "attention, the output head"
)
EXPERTS = (
    "fused experts are one name; its entry is over all tokens of the block, not over those routed to each "
    "expert, whose inputs are not kept apart"
)


class MatrixInputs:
    """Collects the input of every matrix, block by block."""

    def __init__(self, statistics: Statistics, source: Path) -> None:
        """Take the names of the matrices from the facts of `statistics`, which `source` holds.

        Raises StaleFile where an older capture did not note them.
        """
        if "consumers" not in statistics.facts:
            raise StaleFile(
                f"{source}: from a capture that did not note which matrices read each tensor (no `consumers` among its "
                "facts); capture the model again."
            )
        self._statistics = statistics
        self._consumers: Mapping[str, Sequence[str]] = statistics.facts["consumers"]
        self._found: dict[str, dict[str, np.ndarray]] = {name: {} for name in CONTENT}

    def of(self, block: int, site: str) -> list[str]:
        """Return the full names of the matrices that read a tensor; `residual` has none."""
        return list(self._consumers.get(f"{block}.{site}", ()))

    def add(self, block: int, table: BlockTable) -> None:
        """Take in one block."""
        for site in table.sites:
            names = self.of(block, site)
            if names:
                for content, values_C in _inputs(table.site(site)).items():
                    self._found[content] |= dict.fromkeys(names, values_C)

    def write(self, folder: Path, about: Mapping[str, Any], origin: Provenance) -> None:
        """Write the three files to `folder`, each with what it is and where it comes from in its metadata."""
        facts = self._statistics.facts
        sequences, tokens = self._statistics.sequences, int(self._statistics.lengths.sum())
        common = {key: str(value) for key, value in about.items()}
        common |= {"absent": ABSENT, "provenance": strict_json.dumps(origin)}
        common |= {"experts": EXPERTS} if facts["kind"] == "moe" else {}
        for name, tensors in self._found.items():
            positions = tokens - sequences if name == "act_scales_rest" else tokens
            metadata = common | {"content": CONTENT[name], "tokens": str(positions)}
            with atomic.file(folder / f"{name}.safetensors") as unfinished:
                unfinished.write_bytes(save(tensors, metadata))  # save_file would let no one else read it


def _inputs(site: SiteTable) -> dict[str, np.ndarray]:
    """Return the three quantities of one tensor, each float32 (C,)."""
    first_RC = site.first.reshape(-1, site.width)
    rest_C = np.maximum(site.matrix("max"), -site.matrix("min")).max(0)
    square_C = site.matrix("sum_2").sum(0) + (first_RC.astype(np.float64) ** 2).sum(0)
    return {
        "act_scales": np.maximum(np.abs(first_RC).max(0), rest_C),
        "act_scales_rest": rest_C,
        "importance": (square_C / (site.first.shape[1] * site.statistics.lengths.sum())).astype(np.float32),
    }
