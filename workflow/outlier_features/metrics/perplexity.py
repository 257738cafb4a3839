"""Perplexity and bits per byte, from the per-token losses of the capture pass."""

# Shapes: S sequence, T position, B bootstrap draw.

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outlier_features.artefacts import atomic, provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.metrics import intervals
from outlier_features.metrics.intervals import Estimate
from outlier_features.statistics.shards import Statistics
from outlier_features.text.windows import TokenWindows, read_windows

NOTE_ON_OVERLAP = (
    "every window is cut to `window` tokens, and its mean loss weighs as many predictions as it has tokens; tokens in "
    "two windows count twice; bits per byte divide the sum of the losses by the bytes of the predicted tokens"
)
"""Stands beside the perplexity of the 2025 windows."""


def write_perplexity(manifests: Sequence[Path], tokens: Path, output: Path, lineage: Lineage) -> None:
    """Write the perplexity of a model on its windows, captured in one or several parts, to `output` as JSON."""
    statistics = Statistics(manifests, lineage.get("statistics"))
    windows = read_windows(tokens, lineage.get("tokens"))
    found = perplexity(statistics.losses(), windows, statistics.facts["windows"])
    origin = provenance.record(lineage, statistics=statistics.provenance)
    atomic.write_json(output, {**found, "provenance": origin})


def perplexity(loss_ST: np.ndarray, windows: TokenWindows, chosen: list[int]) -> dict[str, Any]:
    """Return exp of the mean loss per predicted token, bits per byte, and how the text was cut.

    `loss_ST` is (S, T - 1) in nats, for the windows `chosen`; what is beyond the end of a window is not looked at. No
    token is predicted twice: where windows overlap, a later one counts only for what is new in it. The windows of 2025
    do as that sweep did instead, which NOTE_ON_OVERLAP says. `interval` holds both ends of the 95 % interval over
    sequences of each, null where there is none, and `interval_note` says why.
    A loss that is not finite is left out, with its bytes, and counted under `nonfinite_losses`. What has no finite
    value is None, and `reason` says why.
    """
    as_in_2025 = windows.cut.get("windows") == "arb8020"
    length_S = windows.lengths[chosen]
    if as_in_2025:
        length_S = np.minimum(length_S, windows.cut["window"])
    position_T = np.arange(1, loss_ST.shape[1] + 1)
    predicted_ST = (position_T >= windows.scored_from_S[chosen][:, None]) & (position_T < length_S[:, None])
    scored_ST = predicted_ST & np.isfinite(loss_ST)
    nats_S = np.where(scored_ST, loss_ST.astype(np.float64), 0).sum(1)
    bytes_ST = windows.bytes_ST[chosen, 1 : loss_ST.shape[1] + 1]
    tokens_S, bytes_S = scored_ST.sum(1), np.where(scored_ST, bytes_ST, 0).sum(1)
    weight_S = np.where(tokens_S > 0, length_S, 0) if as_in_2025 else tokens_S
    loss_S = nats_S / np.maximum(tokens_S, 1) * weight_S if as_in_2025 else nats_S
    columns = {"loss": loss_S, "weight": weight_S, "nats": nats_S, "bytes": bytes_S}
    per_sequence = {name: values.tolist() for name, values in columns.items()}
    found = _estimated(per_sequence)
    left_out = int((predicted_ST & ~scored_ST).sum())
    return {
        **{name: _or_none(each.value) for name, each in found.items()},
        **_reason({name: each.value for name, each in found.items()}, int(tokens_S.sum()), left_out),
        "tokens": int(tokens_S.sum()),
        "nonfinite_losses": left_out,
        "bytes": int(bytes_S.sum()),
        "sequences": len(nats_S),
        **windows.cut,
        "windows_digest": digest(windows, chosen),
        **({"note": NOTE_ON_OVERLAP} if as_in_2025 else {}),
        "interval": {name: [_or_none(each.low), _or_none(each.high)] for name, each in found.items()},
        "interval_note": intervals.note(found),
        "per_sequence": per_sequence,
    }


def _estimated(per_sequence: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Return perplexity, bits per byte and loss; the interval of the perplexity is that of the loss, on its scale."""
    loss_S, weight_S, nats_S, bytes_S = (
        np.asarray(per_sequence[name], float) for name in ("loss", "weight", "nats", "bytes")
    )
    loss = intervals.ratio(loss_S, weight_S)
    with np.errstate(over="ignore"):
        value, low, high = (float(np.exp(each)) for each in (loss.value, loss.low, loss.high))
    perplexity = Estimate(value, low, high, loss.gap)
    return {"perplexity": perplexity, "bits_per_byte": intervals.ratio(nats_S / np.log(2), bytes_S), "loss": loss}


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _reason(values: Mapping[str, float], tokens: int, left_out: int) -> dict[str, str]:
    """Say why some of the values are not finite, nothing where all of them are."""
    missing = [name for name, value in values.items() if not np.isfinite(value)]
    if not missing:
        return {}
    if not tokens:
        return {"reason": f"no loss is finite ({left_out} are not)" if left_out else "no token is predicted"}
    words = {
        "perplexity": f"exp of the mean loss of {values['loss']:.6g} nats is larger than a number can be",
        "bits_per_byte": "the predicted tokens add no byte to the text",
    }
    return {"reason": "; ".join(words[name] for name in missing if name in words)}


def digest(windows: TokenWindows, chosen: list[int]) -> str:
    """Return 16 hexadecimal digits that are the same for the same token ids in the same windows, and for no others."""
    ids = [windows.ids(window).tolist() for window in chosen]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
