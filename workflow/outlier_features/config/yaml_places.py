"""Places in YAML: its values, and the line and column where a key of them stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from outlier_features.errors import ConfigError


def read(path: Path) -> Any:
    """Return the values of a file. Raises ConfigError, with the line and the column of what is no YAML."""
    try:
        return yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{path}{_spoken(mark)}: not valid YAML: {words}") from error


def place(files: Sequence[Path], keys: Sequence[int | str]) -> str | None:
    """Return `file, line N, column M` of a key, in the last of some files that has it; None where none has.

    `keys` leads to it from the top: names of mappings and numbers of elements.
    """
    for path in reversed(files):
        try:
            mark = _mark(yaml.compose(_text(path)), keys)
        except (ConfigError, yaml.YAMLError):
            continue
        if mark is not None:
            return f"{path}{_spoken(mark)}"
    return None


def _text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); run from the top of the project.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error


def _mark(node: yaml.Node | None, keys: Sequence[int | str]) -> yaml.Mark | None:
    """Return where the last of some keys stands below a node."""
    mark = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == str(key)]
            if not found:
                return None
            name, node = found[-1]
            mark = name.start_mark
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            mark = node.start_mark
        else:
            return None
    return mark


def _spoken(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
