"""Mistakes: each says what is wrong in a configuration, where, and what would be right."""

from typing import Any

import pytest
from configurations import RECIPE, changed, complaint, minimal
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        # a misspelt key: where, which one was meant, which there are
        ("modles", {}, ["modles: unknown key", "did you mean 'models'?", "allowed: experiment, experiments, models"]),
        ("models.one.revison", "abc", ["models.one.revison", "did you mean 'revision'?", "allowed: label, dtype"]),
        ("models.one", {"train": {**RECIPE, "step": 5}}, ["models.one.train.step", "did you mean 'steps'?"]),
        ("corpora.text.sequence", 4, ["corpora.text.sequence", "did you mean 'sequences'?", "allowed: package, path"]),
        ("definitions.strict.treshold", 3, ["definitions.strict.treshold", "did you mean 'threshold'?"]),
        ("capture.site", [], ["capture.site", "did you mean 'sites'?", "thresholds, rms_thresholds, statistics"]),
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


@pytest.mark.parametrize("name", ["two", "oen"])
def test_a_model_that_is_not_there_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown model '{name}'.*; known: one$"):
        Config.check(minimal()).model(name)
