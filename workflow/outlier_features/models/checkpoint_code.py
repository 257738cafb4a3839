"""Code of a checkpoint: what its files ask to be run, which never is."""

import json
from pathlib import Path

ASKING = ("config.json", "tokenizer_config.json")


def asked_for(directory: Path) -> dict[str, str]:
    """Return the files in `directory` whose `auto_map` asks for code of the checkpoint, and the classes they want."""
    return {name: code for name in ASKING if (code := _classes(directory / name))}


def _classes(path: Path) -> str:
    try:
        wanted = json.loads(path.read_text(encoding="utf-8")).get("auto_map")
    except (OSError, ValueError, AttributeError):
        return ""
    values = list(wanted.values()) if isinstance(wanted, dict) else [wanted]
    flat = [name for value in values for name in (value if isinstance(value, list) else [value])]
    return ", ".join(dict.fromkeys(str(name) for name in flat if name))
