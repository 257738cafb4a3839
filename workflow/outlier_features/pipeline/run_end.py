"""What a run of the workflow says at its end: the answer and where it lies, or which job failed and why."""

import json
import re
from pathlib import Path

from outlier_features.artefacts import paths
from outlier_features.config.config import Config

MOST = 5
"""Failed jobs that are told of."""
WHY = re.compile(r"^(error: .*|\w*(?:Error|Exception|Interrupt)\b.*)$", re.MULTILINE)
"""An expected error as `logs` prints it, or the last line of a traceback."""


def succeeded(config: Config) -> str:
    """Return the answer for each model in a sentence, the path of the page, and what to try next; empty without any."""
    corpus = config.chosen.corpus
    found = {name: paths.answer(corpus, name) for name in config.chosen.models}
    leads = [f"{config.label(name)}: {lead}" for name, path in found.items() if (lead := _lead(path))]
    if not leads:
        return ""
    page = [f"page: {paths.index()}"] if paths.index().is_file() else []
    return "\n".join(["", *leads, *page, "next: outlier-features show, or outlier-features show --layers"])


def failed(logs: Path, since: float) -> str:
    """Return which jobs failed and why, by the logs written since that time (seconds since 1970), with their paths."""
    files = sorted(path for path in logs.rglob("*.log") if path.stat().st_mtime >= since)
    told = [f"{_job(path, logs)} failed: {why}\n  log: {path}" for path in files if (why := _why(path))]
    rest = [f"and {len(told) - MOST} more under {logs}"] if len(told) > MOST else []
    again = ["What is finished is kept: mend this, then run the same command again."] if told else []
    return "\n".join([*told[:MOST], *rest, *again])


def _lead(path: Path) -> str | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["sentences"][0]
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _job(path: Path, logs: Path) -> str:
    """Return the rule of a log and what it was for: `capture of qwen3-8b on fineweb-edu`."""
    rule, *middle = path.relative_to(logs).with_suffix("").parts
    if len(middle) >= 2:
        return f"{rule} of {middle[-1]} on {middle[0]}"
    return f"{rule} of {middle[0]}" if middle else rule


def _why(path: Path) -> str | None:
    """Return the last error that a log holds."""
    found = WHY.findall(path.read_text(encoding="utf-8", errors="replace"))
    return found[-1].removeprefix("error: ") if found else None
