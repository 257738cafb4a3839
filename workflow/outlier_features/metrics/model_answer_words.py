"""The answer for one model in sentences: terminal, page and JSON say these, written once."""

from collections.abc import Mapping, Sequence
from typing import Any

from outlier_features.metrics import criteria
from outlier_features.units import ranges

Entry = Mapping[str, Any]

UNSEEN = "inputs of down projections are not captured, where int8 often loses most"


def sentences(told: Entry) -> list[str]:
    """Return the answer in sentences; `told` is what `model_answer.answer` gathers."""
    found = [
        _lead(told),
        _left_out(told["left_out"]),
        _massive(told["massive"]),
        _largest(told["largest"]),
        _experts(told["experts"]),
        _damage(told["damage"]) or _int8(told["int8"]),
    ]
    return [sentence for sentence in found if sentence]


def magnitude(value: float) -> str:
    """Return a magnitude in three digits: 84.1, 9,824."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def signed(value: float) -> str:
    """Return a value in three digits, with its sign."""
    return ("+" if value > 0 else "-") + magnitude(abs(value))


def share(value: float) -> str:
    """Return a share in percent: never 0 % for a little, never 100 % for less than all."""
    percent = 100 * value
    if 0 < percent < 0.1:
        return "under 0.1 %"
    return "over 99.9 %" if 99.9 < percent < 100 else f"{percent:.3g} %"


def where(entry: Entry) -> str:
    """Say at which positions a channel hits."""
    if entry["hits"] == entry["hits_at_first"]:
        return "0 only"
    return share(entry["position_share"])


def side(entry: Entry) -> str:
    """Say which signs the hits of a channel have."""
    if not entry["one_sided"]:
        return "both"
    return "always +" if entry["max_value"] > 0 else "always -"


def tensors(entry: Entry) -> str:
    """Say which tensors a channel hits: attn_in 0-3, 7; mlp_in 2."""
    return "; ".join(f"{site} {ranges(blocks)}" for site, blocks in entry["blocks"].items())


HEADINGS = ("channel", "tensors", "sites and blocks", "positions", "largest", "where", "sign")


def row(entry: Entry) -> tuple[str, ...]:
    """Return what a table says of one channel, under HEADINGS."""
    at = entry["max_at"]
    return (
        str(entry["channel"]),
        f"{entry['tensors']} of {entry['of_tensors']}",
        tensors(entry),
        where(entry),
        signed(entry["max_value"]),
        f"{at['site']} of block {at['block']}{', position 0' if at['is_first'] else ''}",
        side(entry),
    )


def _lead(told: Entry) -> str:
    """Say how many channels are outlier features, by which rule, and which comes nearest where none is."""
    criterion, count = told["criterion"], told["outlier_channels"]
    if told["gap"]:
        return f"By {criterion['name']} there is no answer: {told['gap']}."
    asked = (criterion[name] for name in ("threshold", "min_layers", "min_positions"))
    rule = f"{criterion['name']}: {criteria.rule(*asked, relative=criterion['unit'] == 'rms')}"
    if not count:
        nearest = "These come nearest." if told["channels"] else "No activation reaches the threshold."
        return f"No channel is an outlier feature ({rule}). {nearest}"
    listed = ", ".join(str(entry["channel"]) for entry in told["channels"])
    if count == 1:
        return f"One channel is an outlier feature: {listed} ({rule})."
    shown = listed if count <= len(told["channels"]) else f"{listed} reach farthest"
    return f"{count} channels are outlier features: {shown} ({rule})."


def _left_out(found: Entry | None) -> str:
    if found is None:
        return ""
    return (
        f"Not all activations are finite: {found['nan']:,} NaN and {found['inf']:,} infinite ones ({tensors(found)}) "
        "were left out of everything told here."
    )


def _massive(found: Entry | None) -> str:
    if found is None:
        return ""
    if not found["count"]:
        return "No massive activation in the residual stream (|x| > 100 and 1,000 x the median)."
    top = found["top"][0]
    channels = [str(channel) for channel in found["channels"]]
    named = f"channel{'s' * (len(channels) > 1)} {', '.join(channels[:5])}{' and others' if len(channels) > 5 else ''}"
    return (
        f"Massive activations in the residual stream: {found['count']:,} values in "
        f"block{'s' * (len(found['blocks']) > 1)} {ranges(found['blocks'])}, "
        f"{_place_of_massive(found)}, the largest of each block in {named}; largest {signed(top['value'])} "
        f"(channel {top['channel']}, block {top['block']}, position {top['position']})."
    )


def _place_of_massive(found: Entry) -> str:
    if found["count"] == found["count_at_first"]:
        return "all at position 0"
    return f"{share(found['count_at_first'] / found['count'])} of them at position 0"


def _largest(found: Sequence[Entry]) -> str:
    parts = []
    for entry in found:
        everywhere, rest = entry["all"], entry["rest"]
        beyond = "" if rest == everywhere else f", without position 0 {magnitude(rest['max_abs'])}"
        parts.append(f"{entry['site']} {magnitude(everywhere['max_abs'])} (block {everywhere['block']}{beyond})")
    return f"Largest |x|: {', '.join(parts)}." if parts else ""


def _experts(found: Entry | None) -> str:
    if found is None:
        return ""
    verb = "was" if found["unused"] == 1 else "were"
    unused = f" {found['unused']} of {found['experts']} experts {verb} sent no token." if found["unused"] else ""
    if not found["super"]:
        return f"No expert stands out by its output.{unused}"
    listed = ", ".join(
        f"expert {entry['expert']} of block {entry['block']} ({magnitude(entry['max_abs'])})"
        for entry in found["super"][:5]
    )
    more = f" and {found['super_count'] - 5} more" if found["super_count"] > 5 else ""
    return f"Experts with the largest outputs (super experts): {listed}{more}.{unused}"


def _int8(found: Entry) -> str:
    if not found["tensor"]:
        return ""
    words = {"tensor": "one scale a window", "token": "one scale a token"}
    parts = [f"with {words[name]} at {_listed(worst)}" for name, worst in found.items() if worst]
    return f"Of the matrix inputs that were captured, int8 loses most {' and '.join(parts)} (estimated; {UNSEEN})."


def _damage(found: Entry | None) -> str:
    """Say where int8 loses most, as predicted from how large values are spread."""
    if found is None:
        return ""
    words = {"absmax": "with one scale a window (absmax)", "row_wise": "with one scale a token (row_wise)"}
    parts = [f"{word} at {_listed(found[name])}" for name, word in words.items() if found[name][0]["db"] is not None]
    if not parts:
        return "Of the matrix inputs that were captured, int8 loses nothing at any (predicted)."
    return f"Of the matrix inputs that were captured, int8 loses most {' and '.join(parts)} (predicted)."


def _listed(worst: Sequence[Entry]) -> str:
    return ", ".join(
        f"{entry['site']} of block {entry['block']} ({entry['db']:.0f} dB)"
        for entry in worst
        if entry["db"] is not None
    )
