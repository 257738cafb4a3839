"""Code hashes: what code means, wherever it lies and however it is imported."""

import ast
from collections.abc import Callable, Iterator
from graphlib import CycleError
from pathlib import Path

import outlier_features
import pytest
from outlier_features.artefacts import code_hash

PACKAGE = Path(outlier_features.__file__).parent
CACHED = [getattr(code_hash, name) for name in dir(code_hash) if hasattr(getattr(code_hash, name), "cache_clear")]
GRID = "def near(x): return x + 1\ndef far(x): return x + 2\n"
SCRIPT = "from outlier_features.grid import near\ny = near(3)"
IN_A_WING = "from outlier_features.wing import places\ny = places.near(3)"
BY_A_DOOR = "from outlier_features.door import near\ny = near(3)"

Hashed = Callable[[dict[str, str]], str]


def forget() -> None:
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hashed]:
    """Give the hash of script.py in a library that holds these files, by name."""

    def hashed(files: dict[str, str]) -> str:
        forget()
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / PACKAGE.name
        monkeypatch.setattr(code_hash, "PACKAGE", folder)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        return code_hash.of_script(folder / "script.py")

    yield hashed
    forget()


@pytest.mark.parametrize(
    ("files", "script"),
    [
        ({"grid.py": GRID}, "from outlier_features import grid\ny = grid.near(3)"),
        ({"grid.py": GRID}, "from outlier_features import grid as g\ny = g.near(3)"),
        ({"grid.py": GRID}, "import outlier_features.grid\ny = outlier_features.grid.near(3)"),
        ({"grid.py": GRID}, "from outlier_features.grid import near as closer\n# why\ny = closer(3)"),
        ({"places.py": GRID}, "from outlier_features.places import near\ny = near(3)"),
        ({"wing/places.py": GRID}, "from outlier_features.wing.places import near\ny = near(3)"),
        ({"wing/places.py": GRID, "wing/__init__.py": '"""A wing."""'}, IN_A_WING),
        ({"grid.py": GRID, "door.py": "from outlier_features.grid import near\nX = near"}, BY_A_DOOR),
        ({"grid.py": '"""Words."""\n' + GRID.replace(": ", ":\n    ")}, SCRIPT),
    ],
)
def test_neither_the_place_nor_the_name_nor_the_form_of_an_import_is_part_of_a_hash(
    hashed: Hashed, files: dict[str, str], script: str
) -> None:
    assert hashed({**files, "script.py": script}) == hashed({"grid.py": GRID, "script.py": SCRIPT})


@pytest.mark.parametrize(
    "files",
    [
        {"grid.py": GRID.replace("x + 2", "x + 3")},  # the module is the unit, not the function
        {"grid.py": "import math\n" + GRID},
        {"script.py": "from outlier_features.grid import far\ny = far(3)"},
        {"script.py": "y = near(3)"},
        {"script.py": "from outlier_features.grid import far, near\ny = near(3)"},
        {"script.py": "import math\nfrom outlier_features.grid import near\ny = near(3)"},
        {"script.py": "from outlier_features.grid import near\ndef f(near): return near(3)"},
    ],
)
def test_another_meaning_is_another_hash(hashed: Hashed, files: dict[str, str]) -> None:
    before = {"grid.py": GRID, "script.py": SCRIPT}
    assert hashed({**before, **files}) != hashed(before)


def test_an_edit_is_seen_through_modules_between(hashed: Hashed) -> None:
    files = {
        "script.py": "from outlier_features import middle\nmiddle.run()",
        "middle.py": "def run():\n    from outlier_features.end import stop\n    return stop()",
        "end.py": "def stop(): return 1",
    }
    assert hashed(files) != hashed({**files, "end.py": "def stop(): return 2"})
    assert hashed(files) == hashed({**files, "end.py": "def stop():\n    '''Return one.'''\n    return 1"})


def test_a_function_of_a_module_is_not_taken_for_one_of_its_name_that_another_function_imports(hashed: Hashed) -> None:
    files = {
        "script.py": "from outlier_features.middle import stop\nstop()",
        "middle.py": "def stop(): return 1\ndef run():\n    from outlier_features.end import stop\n    return stop",
        "end.py": "def stop(): return 3",
    }
    assert hashed(files) != hashed({**files, "middle.py": files["middle.py"].replace("return 1", "return 2")})


@pytest.mark.parametrize("edited", ["one", "other"])
def test_functions_that_give_one_name_to_two_modules_depend_on_both(hashed: Hashed, edited: str) -> None:
    one, other = (
        f"def {name}():\n    from outlier_features.{name} import run\n    return run()\n" for name in ("one", "other")
    )
    files = {"script.py": one + other, "one.py": "def run(): return 1", "other.py": "def run(): return 2"}
    assert hashed(files) != hashed({**files, f"{edited}.py": "def run(): return 3"})


@pytest.mark.parametrize("defined", ["near = print(near)", "def near(x): return x", "class near: pass"])
def test_a_name_that_is_defined_anew_where_it_was_imported_is_of_that_module(hashed: Hashed, defined: str) -> None:
    door = "from outlier_features.grid import near\n"
    files = {"script.py": BY_A_DOOR, "door.py": door, "grid.py": GRID}
    assert hashed(files) != hashed({**files, "door.py": f"{door}{defined}\n"})


SWAPPED = {
    "functions that import one name from two modules": (
        "def cpu():\n    from outlier_features.{} import run\n    return run()\n"
        "def gpu():\n    from outlier_features.{} import run\n    return run()",
        ("one", "other"),
    ),
    "a function that imports what hides a name of the module": (
        "from outlier_features.one import run\n"
        "def cpu():\n    {}\n    return run()\ndef gpu():\n    {}\n    return run()",
        ("from outlier_features.other import run", "pass"),
    ),
    "branches": (
        "if X:\n    from outlier_features.{} import run\nelse:\n    from outlier_features.{} import run\nrun()",
        (
            "one",
            "other",
        ),
    ),
    "defaults": (
        "from outlier_features.grid import near as {}, far as {}\ndef f(a=a, b=b): return a(3) - b(2)",
        ("a", "b"),
    ),
    "what an inner function hides": (
        "from outlier_features.grid import near as {}, far as {}\n"
        "def f():\n    def g(a, b): return a\n    return a(3) - b(2)",
        ("a", "b"),
    ),
    "what a comprehension runs over": (
        "from outlier_features.grid import near as {}, far as {}\nX = [[a for a in a(3)], [b for b in b(2)]]",
        ("a", "b"),
    ),
    "an inner function and what it hides": (
        "from outlier_features.grid import near, near as plain\n"
        "def f():\n    def near(x): return x\n    return {}(3), {}(3)",
        ("near", "plain"),
    ),
    "a global name that is bound anew": (
        "from outlier_features.grid import near, near as plain\n"
        "def f():\n    global near\n    near = print\ndef g(): return {}(3), {}(3)",
        ("near", "plain"),
    ),
    "an attribute of a class and what it hides": (
        "from outlier_features.grid import near, near as plain\nclass A:\n    near = 3\n    y = {}, {}",
        ("near", "plain"),
    ),
}
"""Scripts, each with two places, and what stands there in two orders that mean different things."""


@pytest.mark.parametrize("case", SWAPPED)
def test_a_name_stands_for_what_it_means_where_it_is_used(hashed: Hashed, case: str) -> None:
    script, (one, other) = SWAPPED[case]
    library = {"grid.py": GRID, "one.py": "def run(): return 1", "other.py": "def run(): return 2"}
    found = [hashed({**library, "script.py": script.format(*order)}) for order in ((one, other), (other, one))]
    assert found[0] != found[1]


def test_a_class_whose_attribute_hides_nothing_keeps_no_name_of_a_module(hashed: Hashed) -> None:
    text = "from outlier_features import {0}\nclass A:\n    {0}: int\n    def f(self): return {0}.near(3)\n"
    kept = text.replace("    {0}: int", "    grid: {0}.Kind")
    for script in (text.replace("    {0}: int", "    grid = 1"), kept):
        assert hashed({"script.py": script.format("grid"), "grid.py": GRID}) == hashed(
            {"script.py": script.format("places"), "places.py": GRID}
        )


@pytest.mark.parametrize(
    "again",
    [
        "try:\n    from fast import near\nexcept ImportError: pass",
        "if X:\n    from outlier_features.other import near",
        "def f():\n    global near\n    near = print",
        "from math import sqrt as near",
    ],
)
def test_a_name_is_passed_on_only_where_it_has_one_meaning(hashed: Hashed, again: str) -> None:
    files = {"script.py": BY_A_DOOR, "grid.py": GRID, "other.py": "def near(x): return x"}
    door = "from outlier_features.grid import near\n"
    assert hashed({**files, "door.py": door}) != hashed({**files, "door.py": door + again})


def test_a_relative_import_is_refused(hashed: Hashed) -> None:
    with pytest.raises(ImportError, match=r"from \.grid import near: is relative to a place; write where from"):
        hashed({"script.py": "from .grid import near\nnear(3)", "grid.py": GRID})


def test_a_parameter_hides_an_imported_module_of_its_name(hashed: Hashed) -> None:
    text = "from outlier_features import {0}\ny = {0}.near(3)\ndef f(grid): return grid.far\n"
    assert hashed({"script.py": text.format("grid"), "grid.py": GRID}) != hashed({"script.py": "y = 3"})
    shadowing = "from outlier_features import grid\ndef f(grid): return grid.far\n"
    assert hashed({"script.py": shadowing, "grid.py": GRID}) == hashed(
        {"script.py": shadowing.replace("import grid", "import places"), "places.py": GRID}
    )


def test_what_has_no_effect_may_change(hashed: Hashed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_hash, "WITHOUT_EFFECT", {"machine", "text.words"})
    script = "from outlier_features.machine import logs\nfrom outlier_features.text.words import say\nlogs.open(say)"
    before = {"script.py": script, "machine/logs.py": "X = 1", "text/words.py": "Y = 1"}
    assert hashed(before) == hashed({**before, "machine/logs.py": "X = 2", "text/words.py": "Y = 2"})


def test_modules_that_import_one_another_are_named(hashed: Hashed) -> None:
    files = {"script.py": "import outlier_features.a", "a.py": "import outlier_features.b"}
    with pytest.raises(CycleError, match=r"a\.py.*b\.py"):
        hashed({**files, "b.py": "import outlier_features.a"})


def test_nothing_can_be_taken_from_a_folder(hashed: Hashed) -> None:
    files = {"wing/__init__.py": "X = 1", "script.py": "from outlier_features.wing import X\nprint(X)"}
    with pytest.raises(ImportError, match=r"outlier_features\.wing\.X is taken from the folder .*wing; import it from"):
        hashed(files)


@pytest.mark.parametrize("name", sorted(code_hash.WITHOUT_EFFECT))
def test_each_name_without_effect_is_that_of_a_module_or_folder(name: str) -> None:
    path = PACKAGE.joinpath(*name.split("."))
    assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_a_folder_holds_one_docstring_and_no_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert [ast.unparse(statement).partition(" ")[0] for statement in tree.body[1:]] == (
        ["__version__"] if path.parent == PACKAGE else []
    )
