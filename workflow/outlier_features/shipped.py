"""What ships beside the code: published tables, schemas, the default configuration, scripts, and the page's markup.

In a checkout these lie where the repository keeps them; in an installed package, in `shipped_files` inside it.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
_TOP = PACKAGE.parents[1]
CHECKOUT = _TOP if (PACKAGE.parent / "scripts" / "capture.py").is_file() else None
"""The repository that this code runs from; None where it is installed."""

_PLACES = {
    "resources": "resources",
    "scripts": f"{PACKAGE.parent.name}/scripts",
    "report": f"{PACKAGE.parent.name}/report",
    "config.yaml": "config.yaml",
}
"""Where a checkout keeps what the installed package has under a name of its own; pyproject.toml maps the same."""

PUBLISHED = ("arb8020_2025", "llm_int8_outliers", "massive_activations", "super_experts")
"""The published tables that figures show, by name; the first is compared with too."""


def path(name: str) -> Path:
    """Return where one of `resources`, `scripts`, `report` and `config.yaml` lies."""
    return PACKAGE / "shipped_files" / name if CHECKOUT is None else CHECKOUT / _PLACES[name]


def lend_library() -> None:
    """Let the processes that this one starts import this library, whichever other one is installed where they run."""
    kept = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), *([kept] if kept else [])])


def published(name: str) -> Path:
    """Return the file of a table of published figures, by its name without suffix."""
    return path("resources") / "published" / f"{name}.csv"
