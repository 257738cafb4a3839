"""Series: an entry with revisions becomes one model per revision."""

import pytest
from configurations import minimal
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError

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
