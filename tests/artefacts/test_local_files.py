"""Local files: what is made from a file follows its content, wherever and whenever it was written."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from lineages import AFTER_TOKENS, EVERYTHING, FILES, artefacts, moved, of, settle, shipped
from outlier_features.artefacts import lineage
from outlier_features.artefacts.lineage import Lineages
from outlier_features.config.config import Config


def local_values() -> dict[str, Any]:
    """Return a configuration whose models and texts are all local files."""
    values = shipped()
    values["models"] = {
        "trained": {"train": shipped()["models"]["tiny-moe"]["train"] | {"corpus": "text"}},
        "given": {"path": "weights"},
        "packed": {"package": "shipped-text==1.0", "file": "model.gguf"},
    }
    cut = {"sequences": 2, "length": 8}
    values["corpora"] = {
        "text": {"path": "text", "files": ["a.txt"], "training": ["b.txt"], **cut},
        "speech": {"package": "shipped-text==1.0", "files": ["*.txt"], **cut},
    }
    values["experiments"] = {
        "demo": {"models": list(values["models"]), "corpus": "text"},
        "spoken": {"models": ["given"], "corpus": "speech"},
    }
    return values


ALL = {"trained", "given", "packed"}
WRITTEN: dict[str, tuple[str, dict[str, set[str]]]] = {
    "the text measured on": ("text/a.txt", of(ALL, AFTER_TOKENS)),
    "the text trained on": ("text/b.txt", of({"trained"}, EVERYTHING)),
    "the weights of a checkpoint": ("weights/model.safetensors", of({"given"}, EVERYTHING)),
    "the configuration of a checkpoint": ("weights/config.json", of({"given"}, EVERYTHING)),
    "words about a checkpoint": ("weights/README.md", {}),
    "the model of a package": ("shipped_text/model.gguf", of({"packed"}, EVERYTHING)),
    "a text of another experiment": ("shipped_text/speech.txt", {}),
    "a published table": (
        "resources/published/massive_activations.csv",
        of(ALL, {"figure", "model_figure", "index"}),
    ),
}


@pytest.mark.parametrize(("name", "expected"), WRITTEN.values(), ids=WRITTEN)
def test_one_byte_of_a_local_file_moves_what_is_made_from_it(
    place: Path, name: str, expected: dict[str, set[str]]
) -> None:
    before = artefacts(Config.check(local_values()))
    content = bytearray((place / name).read_bytes())
    content[0] ^= 1
    (place / name).write_bytes(content)
    settle(place / name)  # of the same size and with the same time
    lineage._published.cache_clear()  # which a process reads once
    assert moved(before, artefacts(Config.check(local_values()))) == expected


def test_the_text_of_a_package_that_is_edited_moves_its_windows(place: Path) -> None:
    values = local_values() | {"experiment": "spoken"}
    before = artefacts(Config.check(values))
    (place / "shipped_text/speech.txt").write_bytes(b"spoken twice")
    assert moved(before, artefacts(Config.check(values))) == of({"given"}, AFTER_TOKENS)


def test_a_file_more_or_less_moves_what_is_made_from_them(place: Path) -> None:
    values = local_values()
    values["corpora"]["text"]["files"] = ["a*.txt"]
    before = artefacts(Config.check(values))
    (place / "text/a2.txt").write_bytes(b"more")
    assert moved(before, artefacts(Config.check(values))) == of(ALL, AFTER_TOKENS)


def test_touched_copied_and_moved_files_move_nothing(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = artefacts(Config.check(local_values()))
    for name in FILES:
        (place / name).touch()
    assert artefacts(Config.check(local_values())) == before
    copy = tmp_path_factory.mktemp("copy") / "place"
    shutil.copytree(place, copy, copy_function=shutil.copy)
    os.chdir(copy)
    assert artefacts(Config.check(local_values())) == before


def test_only_what_the_chosen_experiment_is_made_from_is_read(place: Path) -> None:
    (place / "text/a.txt").unlink()
    os.mkfifo(place / "text/a.txt")  # reading it would wait for ever
    artefacts(Config.check(local_values() | {"experiment": "spoken"}))
    assert len(list((place / "results/.digests").iterdir())) == 2


def test_an_original_that_is_gone_counts_as_what_its_checkpoint_says_that_it_was(place: Path) -> None:
    lineages = Lineages(Config.check(local_values()))
    before = lineages.checkpoint("given")
    source = place / "results/checkpoints/given/source.json"
    source.parent.mkdir(parents=True)
    source.write_text(json.dumps({"provenance": {"lineage": before}}))
    shutil.rmtree(place / "weights")
    assert Lineages(Config.check(local_values())).checkpoint("given") == before
    source.unlink()
    assert Lineages(Config.check(local_values())).checkpoint("given") != before
