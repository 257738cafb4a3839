"""The configuration: what is accepted, and what each mistake says."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError
from outlier_features.experiment import table_of_2025
from pydantic import ValidationError

REPOSITORY = Path(__file__).parents[2]
RECIPE = {
    "corpus": "text",
    "architecture": {"model_type": "qwen3"},
    "vocabulary": 300,
    "steps": 1,
    "batch": 1,
    "length": 8,
    "learning_rate": 0.1,
}


def minimal() -> dict[str, Any]:
    return {
        "experiment": "small",
        "experiments": {"small": {"models": ["one"], "corpus": "text"}},
        "models": {"one": {"path": "somewhere"}},
        "corpora": {"text": {"path": "text.txt", "sequences": 2, "length": 8}},
        "definitions": {"strict": {"sites": ["attn_in"]}},
        "capture": {"sites": ["attn_in", "mlp_in"], "thresholds": [3, 6], "rms_thresholds": [3, 6, 9]},
    }


def changed(where: str, value: Any) -> dict[str, Any]:
    values = minimal()
    *path, key = where.split(".")
    entry = values
    for part in path:
        entry = entry[part]
    entry[key] = value
    return values


def complaint(values: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        Config.check(values)
    return str(raised.value)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return value


@pytest.fixture(scope="module")
def shipped() -> Config:
    return Config.read(REPOSITORY / "config.yaml")


def test_the_configuration_of_the_repository_is_valid_and_runs_the_demo(shipped: Config) -> None:
    assert shipped.experiment == "demo"
    assert shipped.chosen == shipped.experiments["demo"]


def test_the_sweep_has_the_twelve_models_of_the_published_table(shipped: Config) -> None:
    with (REPOSITORY / "resources/published/arb8020_2025.csv").open(encoding="utf-8") as table:
        published = [row["hub"] for row in csv.DictReader(table)]
    measured = [shipped.models[name].hub for name in shipped.experiments["moe_vs_dense"].models]
    assert len(measured) == 12
    assert sorted(map(str, measured)) == sorted(published)


def test_the_sweep_of_2025_is_what_its_source_measured(shipped: Config) -> None:
    experiment = shipped.experiments[table_of_2025.EXPERIMENT]
    assert experiment.corpus == table_of_2025.CORPUS
    text, definition = shipped.corpora[experiment.corpus], shipped.definitions[table_of_2025.DEFINITION]
    assert (text.hub, text.name, text.windows) == ("HuggingFaceFW/fineweb-edu", "default", "arb8020")
    of_definition = {"threshold", "min_layers", "min_positions", "scope", "rounding"}
    asked = {name: getattr(definition, name) for name in of_definition} | {"sites": "+".join(definition.sites)}
    asked |= {"corpus": experiment.corpus} | {name: getattr(text, name) for name in ("windows", "sequences", "length")}
    assert asked == dict(table_of_2025.AS_PUBLISHED)
    with (REPOSITORY / "resources/published/arb8020_2025.csv").open(encoding="utf-8") as table:
        published = {row["hub"]: row["analysis_dtype"].replace("mxfp4", "bfloat16") for row in csv.DictReader(table)}
    assert {shipped.models[name].hub: shipped.models[name].dtype for name in experiment.models} == published


def test_the_minimal_configuration_is_valid() -> None:
    assert Config.check(minimal()).label("one") == "one"


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        # a misspelt key: where, which one was meant, which there are
        ("modles", {}, ["modles: unknown key", "did you mean 'models'?", "allowed: experiment, experiments, models"]),
        ("models.one.revison", "abc", ["models.one.revison", "did you mean 'revision'?", "allowed: label, dtype"]),
        ("models.one", {"train": {**RECIPE, "step": 5}}, ["models.one.train.step", "did you mean 'steps'?"]),
        ("corpora.text.sequence", 4, ["corpora.text.sequence", "did you mean 'sequences'?", "allowed: package, path"]),
        ("definitions.strict.treshold", 3, ["definitions.strict.treshold", "did you mean 'threshold'?"]),
        ("capture.site", [], ["capture.site", "did you mean 'sites'?", "thresholds, rms_thresholds, nonfinite"]),
        ("experiments.small.definitions", ["x"], ["experiments.small.definitions", "allowed: models, corpus"]),
        # a name that is not defined: where, what was meant, what is known
        ("experiment", "smal", ["experiment: unknown 'smal'", "did you mean 'small'?", "known: small"]),
        ("experiments.small.models", ["on"], ["experiments.small.models", "'on'", "did you mean 'one'?", "known: one"]),
        ("experiments.small.corpus", "zzz", ["experiments.small.corpus: unknown 'zzz'; known: text"]),
        ("models.one", {"train": {**RECIPE, "corpus": "tex"}}, ["models.one.train.corpus", "did you mean 'text'?"]),
        ("definitions.strict.sites", ["attn_on"], ["definitions.strict.sites", "'attn_in'", "'residual'"]),
        # sources
        ("models.one.hub", "org/name", ["models.one: give exactly one of hub, path, package", "found hub, path"]),
        ("models.one", {"label": "x"}, ["models.one: give exactly one of", "found none"]),
        ("corpora.text.hub", "org/name", ["corpora.text: give exactly one of package, path, hub", "found path, hub"]),
        ("corpora.text", {"sequences": 1, "length": 8}, ["corpora.text: give exactly one of", "found none"]),
        ("models.one.revision", "abc", ["models.one: revision is only for hub sources"]),
        ("models.one", {"package": "a==1"}, ["models.one: package needs file"]),
        # values that do not go together
        ("definitions.strict.threshold", 5, ["strict.threshold 5", "grid capture.thresholds (3, 6)", "choose one"]),
        ("definitions.strict.sites", ["residual"], ["definitions.strict.sites: residual is not among capture.sites"]),
        ("capture.rms_thresholds", [3, 9], ["strict.threshold 6", "grid capture.rms_thresholds (3, 9)", "add it"]),
        ("capture.scatter", 3, ["capture.scatter: 3 jobs", "2 windows", "corpora.text.sequences", "give 1 to 2"]),
        ("capture.scatter", 0, ["capture.scatter", "greater than or equal to 1"]),
        ("corpora.text.stride", 9, ["corpora.text: stride 9 is longer than the window (8)"]),
        ("models.one", {"train": {**RECIPE, "architecture": {}}}, ["models.one.train", "needs a model_type", "qwen3"]),
        ("models.one", {"train": RECIPE}, ["models.one.train", "corpora.text names no training files"]),
        # values of the wrong kind
        ("corpora.text.length", "many", ["corpora.text.length", "valid integer"]),
        ("corpora.text.sequences", 0, ["corpora.text.sequences", "greater than or equal to 1"]),
        ("models.one.dtype", "int8", ["models.one.dtype", "'float32', 'bfloat16' or 'float16'"]),
        ("experiments.small.models", [], ["experiments.small.models", "name at least 1"]),
        ("models.a/b", {"path": "x"}, ["models.a/b", "match pattern"]),
    ],
)
def test_a_mistake_is_one_line_that_says_what_where_and_what_to_do(where: str, value: Any, said: list[str]) -> None:
    values = changed(where, value)
    message = complaint(values)
    assert len(message.splitlines()) == 1
    assert message.startswith("config.yaml: ")
    assert [fragment for fragment in said if fragment not in message] == []


def test_two_mistakes_are_two_lines() -> None:
    values = changed("models.one.pth", "x")
    values["capture"]["nonfinite"] = "maybe"
    first, second = complaint(values).splitlines()
    assert first.startswith("config.yaml: models.one.pth: ")
    assert second.startswith("config.yaml: capture.nonfinite: ")


def test_the_keys_offered_are_those_of_the_entry_even_if_its_name_is_that_of_a_section() -> None:
    values = changed("corpora.train", {"path": "x", "sequences": 1, "length": 8, "colum": "body"})
    assert "did you mean 'column'?" in complaint(values)


def test_training_on_a_hub_corpus_is_refused_because_its_stream_is_what_is_measured_on() -> None:
    values = changed("models.one", {"train": RECIPE})
    values["corpora"]["text"] = {"hub": "org/name", "training": ["*.txt"], "sequences": 1, "length": 8}
    assert "training" in complaint(values)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"models: [one", ", line 1, column 13: not valid YAML"),
        (b"models:\n\t- one", ", line 2, column 1: not valid YAML"),
        (b"label: caf\xe9", ": not UTF-8 text"),
        (b"", ": Input should be a valid dictionary"),
        (b"- experiment", ": Input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_mapping_in_yaml_is_one_line_that_names_it(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        Config.read(path)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}{said}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=rf"{re.escape(str(path))}: cannot be read \(No such file or directory\)"):
        Config.read(path)


@pytest.mark.parametrize(
    ("entry", "field"), [("config", "experiment"), ("model", "dtype"), ("corpus", "length"), ("capture", "sites")]
)
def test_entries_never_change(entry: str, field: str) -> None:
    config = Config.check(minimal())
    found: Any = {
        "config": config,
        "model": config.models["one"],
        "corpus": config.corpora["text"],
        "capture": config.capture,
    }[entry]
    with pytest.raises(ValidationError, match="frozen"):
        setattr(found, field, getattr(found, field))


def test_canonical_form_is_what_was_set_without_defaults() -> None:
    values = changed("models.one", {"path": "somewhere", "dtype": "bfloat16", "label": None})
    assert Config.check(values).models["one"].canonical() == {"path": "somewhere"}
    assert Config.check(values).models["one"].canonical(without={"path"}) == {}


def test_canonical_forms_do_not_depend_on_the_order_of_keys_nor_on_defaults_written_out(shipped: Config) -> None:
    raw = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    spelt_out = shipped.model_dump(mode="json")
    assert spelt_out["models"]["qwen3-4b"]["dtype"] == "bfloat16"
    assert "dtype" not in raw["models"]["qwen3-4b"]
    for values in (reversed_keys(raw), spelt_out, reversed_keys(spelt_out)):
        assert Config.check(values).canonical() == shipped.canonical()


def test_counted_sites_are_those_that_a_definition_asks_for_in_the_order_of_the_capture() -> None:
    values = changed("capture.sites", ["residual", "mlp_in", "out_proj_in", "attn_in"])
    values["definitions"]["both"] = {"sites": ["attn_in", "mlp_in"]}
    assert Config.check(values).counted_sites == ("mlp_in", "attn_in")


def test_definitions_over_the_same_sites_share_one_coverage() -> None:
    values = changed("definitions.again", {"sites": ["attn_in"], "threshold": 3})
    values["definitions"]["both"] = {"sites": ["attn_in", "mlp_in"]}
    assert Config.check(values).coverages == (("attn_in",), ("attn_in", "mlp_in"))


REVISIONS = {"hub": "org/pythia", "label": "Pythia", "revisions": ["step1000", "step0"]}


def with_series(**changes: object) -> dict:
    values = minimal()
    values["models"]["pythia"] = REVISIONS | changes
    values["experiments"]["training"] = {"models": ["pythia", "one"], "corpus": "text"}
    return values


def test_an_entry_with_revisions_is_one_model_per_revision_in_the_order_of_steps() -> None:
    config = Config.check(with_series())
    assert config.experiments["training"].models == ("pythia@step0", "pythia@step1000", "one")
    entry = config.models["pythia@step1000"]
    assert (entry.revision, entry.series, entry.step, entry.revisions) == ("step1000", "pythia", 1000, None)
    assert config.label("pythia@step1000") == "Pythia step 1000"
    assert "pythia" not in config.models


@pytest.mark.parametrize("key", [int, str])  # JSON, as some executors hand the configuration on, has no other keys
def test_revisions_may_be_commits_by_step(key: type) -> None:
    config = Config.check(with_series(revisions={key(512): "a" * 40, key(1): "b" * 40}))
    assert [config.models[name].revision for name in config.experiments["training"].models[:2]] == ["b" * 40, "a" * 40]


def test_an_expanded_configuration_checks_to_itself() -> None:
    config = Config.check(with_series())
    assert Config.check(config.model_dump()) == config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"revisions": ["main"]}, "each needs a step of its own"),
        ({"revisions": ["step1", "step1-again"]}, "each needs a step of its own"),
        ({"revisions": []}, "revisions is empty"),
        ({"revision": "main"}, "not both"),
        ({"hub": None, "path": "somewhere"}, "is only for hub sources"),
    ],
)
def test_revisions_that_make_no_series_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Config.check(with_series(**changes))


@pytest.mark.parametrize("name", ["two", "oen"])
def test_a_model_that_is_not_there_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown model '{name}'.*; known: one$"):
        Config.check(minimal()).model(name)


def test_a_model_named_like_a_part_of_a_scattered_capture_is_refused() -> None:
    values = minimal()
    values["models"]["one.2-of-4"] = {"path": "x"}
    assert "models.one.2-of-4: ends like a part of a scattered capture; give it another name" in complaint(values)


def test_a_mistake_is_told_with_its_line_and_column_in_the_last_file_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "config.yaml", tmp_path / "more.yaml"
    first.write_text("experiment: e\nexperiments:\n  e: {models: [], corpsu: c}\n")
    second.write_text("captrue: 3\n")
    values = yaml.safe_load(first.read_text()) | yaml.safe_load(second.read_text())
    with pytest.raises(ConfigError) as error:
        Config.check(values, files=[first, second])
    lines = str(error.value).splitlines()
    assert f"{first}, line 3, column 7: experiments.e.models: empty; name at least 1" in lines
    assert any(line.startswith(f"{first}, line 3, column 19: experiments.e.corpsu: unknown key") for line in lines)
    assert any(line.startswith(f"{second}, line 1, column 1: captrue: unknown key (did you mean") for line in lines)
    assert any(line.startswith("config.yaml: models: Field required") for line in lines)
