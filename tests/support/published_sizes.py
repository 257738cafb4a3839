"""Configurations of the published sweep, and the sizes that its publishers name."""

import csv
import json
from pathlib import Path

from outlier_features.config.config import Config
from outlier_features.models import footprint
from outlier_features.models.sizes import Footprint
from projects import PROJECT

CONFIGURATIONS = PROJECT / "tests/fixtures/configs"
ROUNDED_TO_BILLIONS = {"Qwen/Qwen3-Next-80B-A3B-Instruct"}
"""Published as 3B active: no way to count comes within 2 %, the publisher's own comes to 3.25B."""

with (PROJECT / "resources/published/model_sizes.csv").open(encoding="utf-8") as opened:
    PUBLISHED = {row["hub"]: row for row in csv.DictReader(opened)}


def experiment(name: str) -> Config:
    values = Config.read(PROJECT / "config.yaml").model_dump()
    return Config.check(values | {"experiment": name})


def write_sizes(folder: Path) -> None:
    """Write the sizes of every model that has published ones; building the models on no device takes a while."""
    folder.mkdir()
    found = {hub: footprint.of_directory(CONFIGURATIONS / hub).plain() for hub in PUBLISHED}
    (folder / "sizes.json").write_text(json.dumps(found))


def read_sizes(folder: Path) -> dict[str, Footprint]:
    """Return the sizes that were written there, by hub name."""
    found = json.loads((folder / "sizes.json").read_text())
    return {hub: Footprint(**values) for hub, values in found.items()}
