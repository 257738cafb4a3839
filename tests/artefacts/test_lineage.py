"""Lineages: exactly what a change affects becomes stale."""

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lineages import (
    AFTER_REDUCTION,
    AFTER_STATISTICS,
    AFTER_TOKENS,
    EVERYTHING,
    MODELS,
    OF_ALL_MODELS,
    OF_SUMMARY,
    PICTURES,
    artefacts,
    moved,
    of,
    shipped,
)
from outlier_features.artefacts.code_hash import sources
from outlier_features.artefacts.lineage import Lineages
from outlier_features.config.config import Config
from projects import PROJECT

WORKFLOW = PROJECT / "workflow"
SCRIPTS = sorted((WORKFLOW / "scripts").glob("*.py"))


def moved_by(change: Callable[[dict[str, Any]], object]) -> dict[str, set[str]]:
    """Return what a change of the configuration moves."""
    values = shipped()
    change(values)
    before, after = artefacts(Config.check(shipped())), artefacts(Config.check(values))
    return moved(before, after)


def test_the_demo_has_the_models_these_tests_speak_of() -> None:
    assert set(Config.check(shipped()).chosen.models) == MODELS


def test_every_artefact_has_a_lineage_of_its_own() -> None:
    found = artefacts(Config.check(shipped()))
    assert len(found) == 6 + 8 * 3
    assert len(set(found.values())) == len(found)


def test_a_lineage_names_those_it_is_made_from() -> None:
    lineages = Lineages(Config.check(shipped()))
    statistics, reduction = lineages.statistics("sotu", "tiny-moe"), lineages.reduction("sotu", "tiny-moe")
    assert statistics["tokens"] == lineages.tokens("sotu", "tiny-moe")["tokens"]
    assert statistics["checkpoint"] == lineages.checkpoint("tiny-moe")["checkpoint"]
    assert reduction["statistics"] == statistics["statistics"]
    assert lineages.summary("sotu")["reduction tiny-moe"] == reduction["reduction"]


# --- the configuration ---------------------------------------------------------------------------------------------


def test_another_threshold_of_the_grid_changes_the_reduction_but_no_statistics() -> None:
    found = moved_by(lambda values: values["definitions"]["llm_int8"].update(threshold=8.0))
    assert found == of(MODELS, AFTER_REDUCTION)


def test_a_new_definition_over_the_same_sites_changes_no_statistics() -> None:
    strict = {"sites": ["attn_in", "mlp_in"], "threshold": 20}
    assert moved_by(lambda values: values["definitions"].update(strict=strict)) == of(MODELS, AFTER_REDUCTION)


def test_a_new_definition_over_a_site_that_was_not_counted_changes_the_statistics() -> None:
    massive = {"sites": ["residual"]}
    assert moved_by(lambda values: values["definitions"].update(massive=massive)) == of(MODELS, AFTER_STATISTICS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thresholds", [*shipped()["capture"]["thresholds"], 6.5]),
        ("rms_thresholds", [6, 7]),
        ("sites", ["attn_in", "out_proj_in", "mlp_in"]),
        ("nonfinite", "count"),
    ],
)
def test_what_the_capture_keeps_changes_the_statistics_but_neither_tokens_nor_checkpoints(key: str, value: Any) -> None:
    assert moved_by(lambda values: values["capture"].update({key: value})) == of(MODELS, AFTER_STATISTICS)


def test_a_new_model_changes_the_summary_and_nothing_of_the_others() -> None:
    def add(values: dict[str, Any]) -> None:
        values["models"]["mine"] = {"path": "somewhere"}
        values["experiments"]["demo"]["models"].append("mine")

    assert moved_by(add) == of(set(), OF_ALL_MODELS)


def test_a_model_of_another_experiment_changes_nothing() -> None:
    def change(values: dict[str, Any]) -> None:
        values["models"]["qwen3-4b"]["dtype"] = "float32"
        values["experiments"]["mine"] = {"models": ["qwen3-4b"], "corpus": "sotu"}

    assert moved_by(change) == {}


def test_a_label_changes_the_summary_and_the_pictures_of_its_model_only() -> None:
    found = moved_by(lambda values: values["models"]["tiny-moe"].update(label="another"))
    assert found == of({"tiny-moe"}, {*OF_SUMMARY, *PICTURES, "export"})


def test_the_name_of_the_experiment_changes_the_page_which_it_is_the_title_of() -> None:
    def rename(values: dict[str, Any]) -> None:
        values["experiments"]["mine"] = values["experiments"][values["experiment"]]
        values["experiment"] = "mine"

    assert moved_by(rename) == {"index": set()}


def test_another_name_of_the_same_text_changes_the_summary_which_holds_it_and_no_table() -> None:
    values = shipped()
    values["corpora"]["speeches"] = values["corpora"]["sotu"]
    lineages = Lineages(Config.check(values))
    first, second = lineages.summary("sotu"), lineages.summary("speeches")
    assert {name for name in first if first[name] != second[name]} == {"summary"}


def test_the_precision_of_a_model_changes_its_statistics_but_not_its_checkpoint() -> None:
    found = moved_by(lambda values: values["models"]["tiny-moe"].update(dtype="bfloat16"))
    assert found == of({"tiny-moe"}, AFTER_STATISTICS)


def test_another_source_changes_everything_of_its_model() -> None:
    source = {"hub": "org/name", "revision": "abc", "dtype": "float32"}
    found = moved_by(lambda values: values["models"].update({"smollm2-135m": source}))
    assert found == of({"smollm2-135m"}, EVERYTHING)


def test_a_recipe_changes_everything_of_its_model() -> None:
    found = moved_by(lambda values: values["models"]["tiny-dense"]["train"].update(steps=301))
    assert found == of({"tiny-dense"}, EVERYTHING)


def test_the_text_trained_on_changes_the_trained_models_only() -> None:
    found = moved_by(lambda values: values["corpora"]["sotu"].update(training=["data/speeches/1*-*.txt"]))
    assert found == of({"tiny-dense", "tiny-moe"}, EVERYTHING)


@pytest.mark.parametrize(
    ("key", "value"), [("sequences", 4), ("stride", 256), ("files", ["data/speeches/2018-*.txt"]), ("bos", "always")]
)
def test_the_windows_measured_on_change_the_tokens_and_what_follows_but_no_checkpoint(key: str, value: Any) -> None:
    assert moved_by(lambda values: values["corpora"]["sotu"].update({key: value})) == of(MODELS, AFTER_TOKENS)


def test_the_order_of_keys_changes_nothing() -> None:
    def change(value: Any) -> None:
        if isinstance(value, dict):
            for key in reversed(list(value)):
                change(value[key])
                value[key] = value.pop(key)

    values = shipped()
    change(values)
    assert list(values) != list(shipped())
    assert moved_by(change) == {}


def test_how_many_jobs_share_the_windows_out_changes_nothing() -> None:
    assert moved_by(lambda values: values["capture"].update(scatter=4)) == {}


def test_defaults_written_out_change_nothing() -> None:
    assert moved_by(lambda values: values.update(Config.check(values).model_dump(mode="json"))) == {}


# --- the code ------------------------------------------------------------------------------------------------------


def reworded(module: str) -> str:
    """Return a module with other docstrings, other comments and other formatting."""
    tree = ast.parse(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body[0] = ast.Expr(ast.Constant("Say it differently."))
    return "# A remark.\n\n" + ast.unparse(tree).replace("\n\n", "\n\n\n\n")


def touched(copy: Path) -> None:
    for path in copy.rglob("*.py"):
        os.utime(path, (1e9, 1e9))


MOVES = {
    "thresholds": "of/magnitudes",
    "kernels/reference": "kernels_of/reference",
    "kernels/dispatch": "kernels_of/dispatch",
    "kernels/cpu": "kernels_of/cpu",
    "kernels/gpu": "kernels_of/gpu",
    "capture/engine": "passes/engine",
    "capture/offload": "passes/offload",
    "capture/recorder": "passes/recorder",
    "capture/resume": "passes/resume",
    "models/weights": "parts/weights",
    "models/sites": "parts/sites",
    "metrics/outlier_features": "definitions/outlier_features",
    "metrics/convergence": "definitions/convergence",
    "artefacts/tables": "files/tables",
    "artefacts/provenance": "files/provenance",
    "figures/style": "pictures/style",
    "training/trainer": "training/steps",
}
"""Modules that one edit moves into folders and renames."""


def moved_and_renamed(copy: Path) -> None:
    """Move modules, and name them as they are called now wherever they are imported and used."""
    package = copy / "outlier_features"
    for path in [*copy.rglob("*.py")]:
        path.write_text(ast.unparse(_Renamed().visit(ast.parse(path.read_text(encoding="utf-8")))), encoding="utf-8")
    for old, new in MOVES.items():
        (package / new).parent.mkdir(exist_ok=True)
        (package / new).parent.joinpath("__init__.py").touch()
        (package / f"{old}.py").rename(package / f"{new}.py")


class _Renamed(ast.NodeTransformer):
    """Puts the new dotted names of moved modules in the place of the old ones."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.ImportFrom]:
        package, _, inside = str(node.module).partition(".")
        return [self._import(inside, alias) for alias in node.names] if package == "outlier_features" else [node]

    def _import(self, inside: str, alias: ast.alias) -> ast.ImportFrom:
        package = "outlier_features"
        moved = MOVES.get("/".join([*filter(None, inside.split(".")), alias.name]))
        if moved is None:
            place = MOVES.get(inside.replace(".", "/"), inside)
            return ast.ImportFrom(".".join(filter(None, [package, place.replace("/", ".")])), [alias], 0)
        folder, _, name = moved.rpartition("/")
        if alias.asname is None:
            self._names[alias.name] = name
        return ast.ImportFrom(".".join(filter(None, [package, folder])), [ast.alias(name, alias.asname)], 0)

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        if isinstance(node.value, ast.Name):
            node.value.id = self._names.get(node.value.id, node.value.id)
        self.generic_visit(node)
        return node


def code(path: str) -> Callable[[Path], None]:
    """Return an edit that adds a line of code to a file of the workflow."""
    return lambda copy: edit(copy / path, lambda text: f"{text}\nADDED = 2\n")


TRAINED = {"tiny-dense", "tiny-moe"}
EDITED: dict[str, dict[str, set[str]]] = {
    "scripts/reduce": of(MODELS, AFTER_REDUCTION),
    "outlier_features/config/config": {},
    "outlier_features/statistics/timings": {},
    "outlier_features/machine/gpu_lock": {},
    "outlier_features/planning/estimate": {},
    "outlier_features/cli/commands": {},
    "outlier_features/comparison/compare": {},
    "outlier_features/training/trainer": of(TRAINED, EVERYTHING),
    "outlier_features/sources/fetch": of({"smollm2-135m"}, EVERYTHING),
    "outlier_features/text/token_stream": of(MODELS, AFTER_TOKENS),
    "outlier_features/kernels/gpu": of(MODELS, AFTER_STATISTICS),
    "outlier_features/capture/engine": of(MODELS, AFTER_STATISTICS),
    "outlier_features/models/weights": of(MODELS, AFTER_STATISTICS),
    "outlier_features/metrics/layers": of(MODELS, AFTER_REDUCTION),
    "outlier_features/experiment/summary": of(MODELS, {*OF_SUMMARY, "export"}),
    "outlier_features/experiment/correlation": of(MODELS, {"inference", *PICTURES}),
    "outlier_features/experiment/reproduction": {"reproduction": set()},
    "outlier_features/exports/paper_tables": of(MODELS, {"export", "export_summary"}),
    "outlier_features/figures/draw": of(MODELS, PICTURES),
    "outlier_features/figures/model/timings": of(MODELS, {"timings"}),
    "outlier_features/report/index": {"index": set()},
}
"""Files of the workflow, and what one more line of code in them moves: one of each part of the library."""
EDITS: dict[str, Callable[[Path], None]] = {
    "nothing but file times": touched,
    "nothing but places and names": moved_and_renamed,
    "words of the engine": lambda copy: edit(copy / "outlier_features/capture/engine.py", reworded),
    "style of the page": lambda copy: edit(copy / "report/index/page.css", lambda text: text + "p { color: red }"),
    **{name: code(f"{name}.py") for name in EDITED},
}
PRINT_LINEAGES = f"""
from __future__ import annotations
import json, sys
from pathlib import Path
{inspect.getsource(artefacts)}
for copy in sys.argv[2:]:
    for name in [name for name in sys.modules if name.startswith("outlier_features")]:
        del sys.modules[name]
    sys.path.insert(0, copy)
    from outlier_features.config.config import Config
    from outlier_features.artefacts.lineage import Lineages
    print(json.dumps(artefacts(Config.read(Path(sys.argv[1])))))
"""


def edit(path: Path, change: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")


@pytest.fixture(scope="module")
def after_edit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The lineages that edited copies of the workflow give, each imported afresh in another process."""
    copies = [tmp_path_factory.mktemp("copy") / "workflow" for _ in EDITS]
    for copy, change in zip(copies, EDITS.values(), strict=True):
        shutil.copytree(WORKFLOW, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        shutil.copytree(PROJECT / "resources", copy.parent / "resources")
        change(copy)
    command: list[str | Path] = [sys.executable, "-B", "-c", PRINT_LINEAGES, PROJECT / "config.yaml", *copies]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    return dict(zip(EDITS, map(json.loads, printed.splitlines()), strict=True))


def test_lineages_depend_on_neither_file_times_nor_the_place_of_the_project(
    after_edit: dict[str, dict[str, str]],
) -> None:
    assert after_edit["nothing but file times"] == artefacts(Config.check(shipped()))


def test_comments_docstrings_and_formatting_change_nothing(after_edit: dict[str, dict[str, str]]) -> None:
    assert after_edit["words of the engine"] == artefacts(Config.check(shipped()))


def test_moving_and_renaming_modules_changes_nothing(after_edit: dict[str, dict[str, str]]) -> None:
    assert after_edit["nothing but places and names"] == artefacts(Config.check(shipped()))


def test_style_of_the_page_changes_the_page_only(after_edit: dict[str, dict[str, str]]) -> None:
    assert moved(artefacts(Config.check(shipped())), after_edit["style of the page"]) == {"index": set()}


@pytest.mark.parametrize(("name", "expected"), EDITED.items(), ids=EDITED)
def test_an_edit_moves_exactly_the_artefacts_that_use_it(
    after_edit: dict[str, dict[str, str]], name: str, expected: dict[str, set[str]]
) -> None:
    assert moved(artefacts(Config.check(shipped())), after_edit[name]) == expected


def modules(script: str) -> set[str]:
    found = sources(WORKFLOW / "scripts" / f"{script}.py")
    return {path.relative_to(WORKFLOW).with_suffix("").as_posix().removeprefix("outlier_features/") for path in found}


def test_the_sources_of_a_stage_follow_imports_to_the_end() -> None:
    assert {
        "scripts/capture",
        "capture/run",
        "capture/engine",
        "models/weights",
        "kernels/reference",
        "thresholds",
    } <= modules("capture")
    assert {"scripts/plot", "figures/draw", "figures/experiment/training", "figures/style"} <= modules("plot")
    assert {"scripts/reproduce", "experiment/reproduction", "artefacts/tables", "artefacts/provenance"} <= modules(
        "reproduce"
    )
    assert {"training/checkpoint", "training/trainer", "training/tokenizer"} <= modules("train")


ANSWERS = {"metrics/outlier_features", "metrics/layers", "metrics/perplexity"}
FORWARD = {"capture/run", "capture/engine", "models/weights"}
NOT_REACHED: dict[str, set[str]] = {
    "capture": {*ANSWERS, "artefacts/tables", "figures/draw", "cli/commands"},
    "reduce": {*FORWARD, "figures/draw"},
    "plot": {*ANSWERS, *FORWARD, "statistics/shards"},
    "reproduce": {*ANSWERS, *FORWARD, "statistics/shards", "figures/draw"},
    "export": {*FORWARD, "figures/draw", "experiment/reproduction"},
    "index": {*ANSWERS, *FORWARD, "statistics/shards", "figures/draw"},
    "fetch": {"text/documents", "text/tokenize", "capture/run", "training/trainer"},
}


@pytest.mark.parametrize(("script", "names"), NOT_REACHED.items(), ids=NOT_REACHED)
def test_the_sources_of_a_stage_are_not_those_of_the_next(script: str, names: set[str]) -> None:
    assert all((WORKFLOW / "outlier_features" / f"{name}.py").is_file() for name in names)
    assert modules(script).isdisjoint(names)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_modules_from_which_no_number_follows_are_no_sources(script: Path) -> None:
    assert modules(script.stem).isdisjoint(
        {"config/config", "errors", "artefacts/paths", "artefacts/lineage", "machine/logs"}
    )
    assert f"scripts/{script.stem}" in modules(script.stem)
