"""Python packages that ship a model or a text: found by their files, never imported."""

from importlib import metadata, util
from pathlib import Path

from outlier_features.errors import SourceError


def directory(requirement: str) -> Path:
    """Return the directory of the installed package `name==version`. Raises SourceError if it is not that one."""
    name, _, version = requirement.partition("==")
    remedy = f"install it: pip install --no-deps {requirement}"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        raise SourceError(f"package {name} is not installed; {remedy}") from None
    if version and found != version:
        raise SourceError(f"package {name} is installed as {found}, but config.yaml asks for {version}; {remedy}")
    module = util.find_spec(name.replace("-", "_"))
    if module is None or module.origin is None:
        raise SourceError(f"package {name} has no directory of its name with files; name a package that has one.")
    return Path(module.origin).parent


def file(requirement: str, name: str) -> Path:
    """Return a file of the installed package `name==version`. Raises SourceError if it has none of that name."""
    folder = directory(requirement)
    if not (folder / name).is_file():
        suffix = Path(name).suffix
        there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}"))
        raise SourceError(f"package {requirement} has no file {name}; it has {', '.join(there) or 'none'}.")
    return folder / name
