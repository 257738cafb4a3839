"""Evaluate: a pass with variants becomes its tables of quantisation, SQNR and interventions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from outlier_features.artefacts import provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.tables import write_table
from outlier_features.text.windows import read_windows
from outlier_features.variants.intervention_table import interventions
from outlier_features.variants.quantization import quantization
from outlier_features.variants.results import Results
from outlier_features.variants.sqnr_table import sqnr


def evaluate(manifests: Sequence[Path], tokens: Path, outputs: Mapping[str, Path], lineage: Lineage) -> None:
    """Write the tables `quantization`, `sqnr` and `interventions`; no model is needed."""
    results = Results(manifests, lineage.get("variants"))
    text = read_windows(tokens, lineage.get("tokens"))
    losses, tokens_S = results.losses(text)
    plain = {"loss": float(losses[0].sum() / tokens_S.sum()), "tokens": int(tokens_S.sum())}
    origin = provenance.record(lineage, variants=results.provenance, plain=plain, windows=len(results.windows))
    write_table(outputs["quantization"], quantization(results, text), origin)
    write_table(outputs["sqnr"], sqnr(results), origin)
    write_table(outputs["interventions"], interventions(results, text), origin)
