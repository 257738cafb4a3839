"""Tests mirror the library: each module has a file of its own, or tests/README.md says which test holds it."""

import re

from projects import PROJECT

LIBRARY, TESTS = PROJECT / "workflow/outlier_features", PROJECT / "tests"
MODULES = {path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py") if path.name != "__init__.py"}
WINGS = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").is_file()}
FILES = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}


def file_of(module: str) -> str:
    """Return the file of tests that a module has, or would have."""
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name}".lstrip("/")


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading of tests/README.md, a cell without its quotes."""
    section = (TESTS / "README.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


def test_every_module_has_a_file_of_tests_or_a_row_that_says_which_test_holds_it() -> None:
    listed = [row[0] for row in table("Modules without a test file of their own")]
    assert sorted(listed) == sorted(module for module in MODULES if file_of(module) not in FILES)


def test_every_file_of_tests_under_a_wing_has_a_module_or_a_row_that_says_what_it_holds_together() -> None:
    listed = [row[0] for row in table("Tests that hold several modules together")]
    mirrored = {file_of(module) for module in MODULES}
    assert sorted(listed) == sorted(file for file in FILES - mirrored if file.partition("/")[0] in WINGS)


def test_every_row_names_tests_that_there_are() -> None:
    reasons = [row[1] for row in table("Modules without a test file of their own")]
    named = {name for reason in reasons for name in re.findall(r"[\w/]+\.py", reason)}
    assert named - FILES == set()


def test_every_helper_is_told_of() -> None:
    told = {row[0] for row in table("What tests share")}
    assert told == {path.name for path in (TESTS / "support").glob("*.py")}
