"""Profiles: how the workflow is run, and that the one that was asked for is the one that is there.

Snakemake takes no notice of a workflow profile that it does not find: a run meant for a cluster would go to the machine
it was typed on.
"""

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from outlier_features.errors import ConfigError

FOLDER = "profiles"
NONE = "none"
"""What Snakemake takes for no profile."""


def check(arguments: Sequence[str], project: Path) -> None:
    """Check the profiles that the `arguments` of snakemake name; `project` is the directory of the Snakefile.

    Raises ConfigError if the workflow profile is not there, or if a profile of this project is given as `--profile`,
    which would put profiles/default on top of it.
    """
    given = _given(arguments)
    known = [f"{FOLDER}/{path.name}" for path in sorted((project / FOLDER).iterdir()) if path.is_dir()]
    # with --directory the process is elsewhere by now; the shell's PWD says where it was
    starts = [Path.cwd(), Path(os.environ.get("PWD", "")), project]
    name = given.workflow_profile
    if name != NONE and not any((start / folder / name).exists() for start in starts for folder in ("", FOLDER)):
        close = difflib.get_close_matches(f"{FOLDER}/{Path(name).name}", known, n=1)
        suggestion = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(
            f"--workflow-profile {name}: there is no such profile{suggestion}; nothing has been run. "
            f"Profiles of this project: {', '.join(known)}."
        )
    own = [(project / profile).resolve() for profile in known]
    for name in given.profile:
        if any((start / name).resolve() in own for start in starts):
            raise ConfigError(
                f"--profile {name}: profiles/default would go on top of it and allow the whole cluster one GPU; "
                f"give it as --workflow-profile {name}."
            )


def _given(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the profiles among arguments that snakemake itself has accepted, abbreviated or not."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--workflow-profile", default=NONE)
    parser.add_argument("--profile", nargs="*", default=[])
    return parser.parse_known_args(list(arguments))[0]
