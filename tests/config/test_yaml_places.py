"""Files of a configuration: what is no YAML is named, and a mistake is told by line and column."""

import re
from pathlib import Path

import pytest
import yaml
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError


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
