"""The rules of the workflow and the edges of the library: who may import what, and which paths they agree on."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import outlier_features
import pytest
from outlier_features.artefacts import paths
from projects import PROJECT

WORKFLOW = PROJECT / "workflow"
RULE_FILES = sorted((WORKFLOW / "rules").glob("*.smk"))
SCRIPTS = sorted((WORKFLOW / "scripts").glob("*.py"))
HEAD = r"^(?:use )?rule (\w+)(?: as (\w+) with)?:\n((?:[ \t].*\n|\n)*)"
FOUND = [found for path in RULE_FILES for found in re.findall(HEAD, path.read_text(encoding="utf-8"), re.MULTILINE)]
RULES = {new or name: body for name, new, body in FOUND}
"""Every rule by its name, as text."""
BASES = {new: name for name, new, _ in FOUND if new}
"""The rule that another one uses, where it says nothing else."""

APART = {
    "fetch_for_now": [paths.checkpoint("{model}")],
    "capture_part": [paths.manifest("{corpus}", "{model}", "{scatteritem}")],
    "vary_part": [paths.manifest("{corpus}", "{model}", "{scatteritem}", "variants")],
    "plot": paths.figures(["{figure}"]),
    "plot_model": [*paths.figures(["{figure}"], "{model}"), paths.mixture_figure("{figure}", "{model}")],
}
"""Rules that write something else than `paths.of` says of their artefact, and what the library says that they write."""


def directive(rule: str, name: str) -> str:
    """Return the text below a directive of a rule or of the one it uses, empty if it has none."""
    found = re.search(rf"^    {name}:(.*\n(?:        .*\n)*)", RULES[rule], re.MULTILINE)
    if found is None and rule in BASES:
        return directive(BASES[rule], name)
    return found.group(1) if found else ""


def stage(rule: str) -> str:
    """Return the stage a rule runs: `fetch_for_now` lets the checkpoint go, `capture_part` runs some of the windows."""
    return rule.removesuffix("_for_now").removesuffix("_part")


def made(rule: str) -> str:
    """Return the artefact whose lineage the results of a rule carry."""
    (found,) = re.findall(r"lineages\.(\w+)\(", directive(rule, "params"))
    return found


def literal_paths(text: str) -> set[str]:
    """Return the paths of results in a text, with plain wildcards also where an f-string or collect holds them."""
    plain = text.replace("{{", "{").replace("}}", "}").replace("{CORPUS}", "{corpus}")
    return set(re.findall(r'"(results/[^"]*)"', plain))


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that finds the library as scripts do."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(WORKFLOW)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_rules_are_found() -> None:
    stages = {"fetch", "train", "tokenize", "capture", "reduce", "perplexity", "summarize", "reproduce", "plot"}
    assert stages | {"plot_model", "plot_timings", "export", "export_summary", "infer", "index"} <= set(RULES)
    declared = sum(len(re.findall(r"^(?:use )?rule ", path.read_text(encoding="utf-8"), re.M)) for path in RULE_FILES)
    assert declared == len(RULES)


def test_the_snakefile_includes_every_rule_file() -> None:
    included = re.findall(r'include: "(.*)"', (PROJECT / "Snakefile").read_text(encoding="utf-8"))
    assert sorted(included) == [path.relative_to(PROJECT).as_posix() for path in RULE_FILES]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_the_script_of_its_name(rule: str) -> None:
    assert directive(rule, "script").strip() == f'"../scripts/{stage(rule)}.py"'
    assert (WORKFLOW / "scripts" / f"{stage(rule)}.py").is_file()
    for other in ("shell", "run", "notebook", "wrapper"):
        assert directive(rule, other) == ""


def test_every_script_belongs_to_a_rule() -> None:
    assert {path.stem for path in SCRIPTS} == set(map(stage, RULES))


ALWAYS_ON_DISK = {"checkpoint", "tokens", "statistics", "calibration", "variants"}
"""What is on a disk although other results may be in an object store, and so carries its own lineage."""


@pytest.mark.parametrize("rule", RULES)
def test_the_only_param_of_a_rule_that_counts_is_its_lineage(rule: str) -> None:
    local = r",\s*stays_on_disk=True,?" if made(rule) in ALWAYS_ON_DISK else ""
    lineage = rf"lineage=carried\(\s*lambda wildcards: lineages\.\w+\([^()]*\){local}\s*\)"
    uncounted = r"caption=lambda wildcards, output: [^,]+"  # Snakemake compares no param that is told of the output
    assert re.fullmatch(rf"\s*{lineage},\s*({uncounted},\s*)?", directive(rule, "params"))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_runs_again_where_its_results_carry_another_lineage_than_its_own(rule: str) -> None:
    assert re.findall(r"moved=lambda wildcards: (.*),", directive(rule, "input")) == [
        f'moved("{made(rule)}", wildcards)'
    ]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_whose_results_are_in_the_report_has_words_for_them(rule: str) -> None:
    flagged = directive(rule, "output").count("report(")
    assert directive(rule, "output").count('caption="../report/caption.rst"') == flagged
    assert bool(flagged) == ("caption=" in directive(rule, "params"))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_a_log_of_its_own(rule: str) -> None:
    (log,) = literal_paths(directive(rule, "log"))
    assert log.startswith(f"results/logs/{stage(rule)}/")


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_runs_in_the_pinned_environment(rule: str) -> None:
    assert directive(rule, "conda").strip() == '"../../envs/outlier-features.yaml"'
    assert (PROJECT / "envs/outlier-features.yaml").is_file()


@pytest.mark.parametrize("path", [*RULE_FILES, PROJECT / "Snakefile"], ids=lambda path: path.name)
@pytest.mark.parametrize("function", ["ancient", "directory"])
def test_no_input_is_exempt_from_being_compared(path: Path, function: str) -> None:
    # an ancient input is never compared, a directory only by its file time (one that does not stay has none, and what
    # is in the report is no input); the mark of a result whose lineage has not moved is no input of it
    text = re.sub(r"(temp|report)\(\s*directory\(|ancient\(mark\)", "", path.read_text(encoding="utf-8"))
    assert not re.search(rf"\b{function}\(", text)


@pytest.mark.parametrize("rule", sorted(RULES.keys() - APART))
def test_the_library_names_the_outputs_of_a_rule_as_the_rule_does_and_in_its_order(rule: str) -> None:
    declared = re.findall(r'(\w+)=(?:\w+\(\s*)*"(results/[^"]*)"', directive(rule, "output"))
    named = paths.of(made(rule), "{corpus}", "{model}")
    assert declared == [(name, path.as_posix()) for name, path in named.items()]


@pytest.mark.parametrize("rule", APART)
def test_the_library_names_what_a_rule_writes_that_has_no_names_for_it(rule: str) -> None:
    assert literal_paths(directive(rule, "output")) == {path.as_posix() for path in APART[rule]}


def test_the_library_names_no_artefact_that_no_rule_makes() -> None:
    assert paths.OF_MODEL.keys() | paths.OF_EXPERIMENT.keys() == {made(rule) for rule in RULES.keys() - APART}


def test_the_rules_read_what_other_rules_write() -> None:
    read, written = (set.union(*(literal_paths(directive(r, name)) for r in RULES)) for name in ("input", "output"))
    assert read <= written


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_hands_over_and_does_not_think(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30
    forbidden = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.While | ast.Try
    assert [node for node in ast.walk(ast.parse(text)) if isinstance(node, forbidden)] == []


def test_a_machine_without_snakemake_and_datasets_can_capture() -> None:
    ended = run(
        "import sys\n"
        "sys.modules['snakemake'] = sys.modules['datasets'] = None\n"
        "import outlier_features.capture.run, outlier_features.cli.commands"
    )
    assert ended.returncode == 0, ended.stderr


WITHOUT_TORCH = [
    path.relative_to(WORKFLOW).with_suffix("").as_posix().replace("/", ".")
    for wing in (
        "artefacts",
        "config",
        "comparison",
        "experiment",
        "exports",
        "figures",
        "metrics",
        "report",
        "statistics",
    )
    for path in sorted((WORKFLOW / "outlier_features" / wing).rglob("*.py"))
]


def test_tables_figures_and_pages_do_without_torch_and_every_figure_is_drawn_by_a_function() -> None:
    ended = run(
        f"import sys, outlier_features.cli.commands, {', '.join(WITHOUT_TORCH)}\n"
        "from outlier_features.figures import draw\n"
        "print([name for name in ('torch', 'transformers', 'snakemake') if name in sys.modules])\n"
        "assert [*draw.OF_EXPERIMENT] == draw.names('experiment', 'series')\n"
        "assert [*draw.OF_MODEL] == draw.names('model', 'mixture')\n"
        "assert all(map(callable, (draw.OF_EXPERIMENT | draw.OF_MODEL).values()))\n"
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


def test_the_catalogue_of_figures_is_read_without_what_draws_them() -> None:
    imports = "import sys, outlier_features.figures.catalogue, outlier_features.report.headings"
    ended = run(f"{imports}; print({{'matplotlib', 'pandas'}} & set(sys.modules))")
    assert ended.stdout.strip() == "set()", ended.stderr


def test_a_rule_runs_the_code_of_its_checkout_whatever_is_installed(tmp_path: Path) -> None:
    assert Path(outlier_features.__file__) == WORKFLOW / "outlier_features/__init__.py"
    installed = tmp_path / "outlier_features"
    installed.mkdir()
    (installed / "__init__.py").write_text("raise SystemExit('the installed package was imported')")
    ended = subprocess.run(
        [sys.executable, "-m", "snakemake", "--list-rules"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert "capture" in ended.stdout
