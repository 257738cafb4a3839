"""The configuration: what is accepted, and what each mistake says."""

import csv
from typing import Any

import pytest
import yaml
from configurations import changed, complaint, minimal
from outlier_features.config.config import Config
from outlier_features.experiment import table_of_2025
from projects import PROJECT


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return value


@pytest.fixture(scope="module")
def shipped() -> Config:
    return Config.read(PROJECT / "config.yaml")


def test_the_configuration_of_the_repository_is_valid_and_runs_the_demo(shipped: Config) -> None:
    assert shipped.experiment == "demo"
    assert shipped.chosen == shipped.experiments["demo"]


def test_the_sweep_has_the_twelve_models_of_the_published_table(shipped: Config) -> None:
    with (PROJECT / "resources/published/arb8020_2025.csv").open(encoding="utf-8") as table:
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
    with (PROJECT / "resources/published/arb8020_2025.csv").open(encoding="utf-8") as table:
        published = {row["hub"]: row["analysis_dtype"].replace("mxfp4", "bfloat16") for row in csv.DictReader(table)}
    assert {shipped.models[name].hub: shipped.models[name].dtype for name in experiment.models} == published


def test_the_minimal_configuration_is_valid() -> None:
    assert Config.check(minimal()).label("one") == "one"


def test_canonical_form_is_what_was_set_without_defaults() -> None:
    values = changed("models.one", {"path": "somewhere", "dtype": "bfloat16", "label": None})
    assert Config.check(values).models["one"].canonical() == {"path": "somewhere"}
    assert Config.check(values).models["one"].canonical(without={"path"}) == {}


def test_canonical_forms_do_not_depend_on_the_order_of_keys_nor_on_defaults_written_out(shipped: Config) -> None:
    raw = yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf-8"))
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


def test_a_model_named_like_a_part_of_a_scattered_capture_is_refused() -> None:
    values = minimal()
    values["models"]["one.2-of-4"] = {"path": "x"}
    assert "models.one.2-of-4: ends like a part of a scattered capture; give it another name" in complaint(values)
