"""History: finished summaries stay findable, though the next run of an experiment overwrites its files.

Each is kept once, by its lineage, as `history/{experiment}.{lineage}.parquet` beside the other results.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from outlier_features.artefacts import atomic, paths
from outlier_features.artefacts.records import recorded
from outlier_features.errors import ConfigError

LAST = "last"


def keep(summary: Path, experiment: str) -> Path:
    """Keep a copy of the summary of an experiment; the same one is kept once, and is the newest again."""
    lineage = recorded(summary, "summary")
    path = paths.history() / f"{experiment}.{lineage}.parquet"
    with atomic.file(path) as unfinished:
        shutil.copyfile(summary, unfinished)
    return path


def find(name: str, summary: Path, experiment: str) -> Path:
    """Return the summary that `name` means: `last`, a kept one by its name or the start of it, a file or a folder.

    `last` is the newest kept one of the experiment that is not the present `summary`. Raises ConfigError.
    """
    kept = sorted(paths.history().glob("*.parquet"), key=lambda path: path.stat().st_mtime, reverse=True)
    if name == LAST:
        present = recorded(summary, "summary")
        own = (path for path in kept if path.name.startswith(f"{experiment}.") and _lineage(path) != present)
        return _the_first(own, f"no earlier summary of {experiment} is kept in {paths.history()}", kept)
    given = Path(name)
    if given.is_file():
        return given
    if given.is_dir():
        found = given.glob("**/summary.parquet")
        return _the_first(sorted(found), f"{given} holds no summary.parquet", kept)
    return _the_first(
        (path for path in kept if path.name.startswith(name)), f"no file, folder or kept run {name!r}", kept
    )


def _the_first(found: Iterable[Path], why: str, kept: Iterable[Path]) -> Path:
    path = next(iter(found), None)
    if path is None:
        names = ", ".join(path.stem for path in kept) or "none"
        raise ConfigError(f"--against: {why}; kept runs: {names}.")
    return path


def _lineage(path: Path) -> str:
    return path.stem.rpartition(".")[2]
