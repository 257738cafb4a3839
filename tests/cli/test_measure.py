"""A measurement as a person sees it: nothing stays of what is refused, and a text of standard input is kept."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from configurations import of
from outlier_features.artefacts import paths
from outlier_features.cli import measure, measurement
from outlier_features.errors import ConfigError, SourceError


def test_standard_input_is_kept_for_each_model(tmp_path: Path, monkeypatch) -> None:
    names = ["first", "second"]
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"One, two.")))
    measure._keep_standard_input([of(name, text="-").folder for name in names])
    kept = [tmp_path / "outlier-features" / name / "standard-input.txt" for name in names]
    assert [path.read_bytes() for path in kept] == [b"One, two."] * 2


def test_a_text_of_standard_input_goes_by_the_file_that_keeps_it(checkpoint: Path, tmp_path: Path) -> None:
    request = of(checkpoint, text="-", out=tmp_path / "out")
    with paths.within(request.folder):
        piped = measurement.configuration(request)
        paths.standard_input().parent.mkdir()
        paths.standard_input().write_text("One, two.")
        offered = measure._next(request, piped).splitlines()
        kept = measurement.configuration(replace(request, text=str(paths.standard_input())))
    assert kept == piped
    assert f"--text {request.folder}/standard-input.txt" in offered[4]
    assert not [line for line in offered if "--text -" in line]


def test_nothing_stays_of_a_model_that_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"One, two.")))
    with pytest.raises(SourceError, match=r"no config\.json"):
        measure.measure_all([of(checkpoint, text="-")], is_opened=False, force=False)
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_run_to_compare_with_that_is_not_there_is_told_before_the_pass(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--against: no file, folder or kept run 'nowhere'"):
        measure.measure_all([of(checkpoint, out=tmp_path)], against="nowhere", is_opened=False, force=False)


def test_several_models_share_a_folder_of_results(tmp_path: Path, monkeypatch) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    asked = [of(name, out=Path("out")) for name in ("first", "second")]
    with pytest.raises(SourceError, match="first: no config"):
        measure.measure_all(asked, is_opened=False, force=False)
    assert not (tmp_path / "out" / "first").exists()
    with pytest.raises(ConfigError, match=r"first: 2 models of this call go to .*first; name each once"):
        measure.measure_all([of("first"), of("first")], is_opened=False, force=False)
