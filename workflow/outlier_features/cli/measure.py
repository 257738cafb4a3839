"""Measure: one model by one command: checks, progress, the answer, where it lies, and what to try next."""

import shlex
import shutil
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pandas as pd

from outlier_features.artefacts import atomic, paths
from outlier_features.artefacts.lineage import Lineages
from outlier_features.artefacts.tables import read_json, read_table
from outlier_features.cli import measurement
from outlier_features.cli.measurement import EXPERIMENT, Request
from outlier_features.comparison.recorded_run import Run
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError, OutlierFeaturesError, SourceError
from outlier_features.experiment import phase_shift
from outlier_features.machine import devices, memory
from outlier_features.models import architectures, checkpoints
from outlier_features.pipeline import history
from outlier_features.pipeline.freshness import is_fresh
from outlier_features.pipeline.stages import Stages, in_words
from outlier_features.planning import calibration
from outlier_features.planning.estimate import Pass, estimate
from outlier_features.units import human, spoken

DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "float16": "bfloat16"}
"""The precision of a pass by that of the checkpoint: float16 overflows where outliers are large."""
EACH = ("tokenize", "capture", "reduce")
WHOLE = ("summarize", "infer", "export", "page")
YOURS = "YOUR_TEXT.jsonl"


def measure_all(
    requests: Sequence[Request], *, device: str = "auto", against: str | None = None, is_opened: bool, force: bool
) -> None:
    """Measure models one after the other and print the answer for each; of several, print a table of all too.

    Raises ConfigError and whatever else the stages raise; what is finished is kept, and the same call resumes.
    """
    if len(requests) > 1:
        requests = [replace(each, out=each.out / each.name) if each.out else each for each in requests]
    _require_different(requests)
    devices.choose(device)
    for request in requests:  # every mistake that can be told now is told before the first pass
        with paths.within(request.folder):
            _require_earlier(against, measurement.configuration(request))
    for request in requests:
        with paths.within(request.folder):
            measurement.claim(request, measurement.configuration(request))
    _keep_standard_input([request.folder for request in requests if request.text == "-"])
    try:
        summaries = [_measure(request, against=against, is_opened=is_opened, force=force) for request in requests]
    except OutlierFeaturesError:
        for request in requests:
            with paths.within(request.folder):
                measurement.release(request)
        raise
    if len(requests) > 1:
        _show_together(pd.concat(summaries, ignore_index=True))


def _measure(request: Request, *, against: str | None, is_opened: bool, force: bool) -> pd.DataFrame:
    """Measure one model, print its answer, and return its summary."""
    with paths.within(request.folder), ExitStack() as leave:
        config = measurement.configuration(request)
        _fetch(request, config, leave, force=force)
        config = _with_precision(config, request)
        print(_checks(request, config), flush=True)
        stages = Stages(config, leave, force=force, say=_silent)
        for stage in EACH:
            getattr(stages, stage)(request.name, config.model(request.name))
        stages.plot_model(request.name)
        for stage in WHOLE:
            getattr(stages, stage)()
        measurement.note(config)
        summary = _show_answer(request, config)
        if against is not None:
            _show_difference(config, against)
        print(_next(request, config))
        if is_opened:
            webbrowser.open(paths.index().resolve().as_uri())
        return summary


def _fetch(request: Request, config: Config, leave: ExitStack, *, force: bool) -> None:
    """Fetch the checkpoint; where a hub id is refused, say that no folder has that name."""
    try:
        Stages(config, leave, force=force, say=_silent).fetch(request.name, config.model(request.name))
    except SourceError as error:
        if request.is_hub:
            raise SourceError(f"{error} (no folder {request.source} is here, so it was taken for a hub id)") from error
        raise


def _require_earlier(against: str | None, config: Config) -> None:
    """Refuse a run to compare with that is not there; whether there is a last one shows after the pass."""
    if against not in (None, history.LAST):
        history.find(against, paths.summary(config.chosen.corpus), EXPERIMENT)


def _silent(_: str) -> None:
    pass


def _keep_standard_input(folders: Sequence[Path]) -> None:
    """Keep the text that comes through standard input, once, in each of some folders."""
    first: Path | None = None
    for folder in folders:
        with paths.within(folder), atomic.file(paths.standard_input()) as unfinished:
            if first is None:
                with unfinished.open("wb") as opened:
                    shutil.copyfileobj(sys.stdin.buffer, opened)
            else:
                shutil.copyfile(first, unfinished)
            first = first or paths.standard_input()


def _require_different(requests: Sequence[Request]) -> None:
    folders = [request.folder.resolve() for request in requests]
    for request, folder in zip(requests, folders, strict=True):
        if folders.count(folder) > 1:
            raise ConfigError(
                f"{request.source}: {folders.count(folder)} models of this call go to {folder}; name each once, or "
                "measure one by itself with another --out."
            )


def _with_precision(config: Config, request: Request) -> Config:
    """Return the configuration with the precision of the checkpoint, where none was asked for."""
    if request.dtype != "auto":
        return config
    stored = architectures.stored_dtype(paths.checkpoint(request.name))
    values = config.model_dump()
    values["models"][request.name]["dtype"] = DTYPES.get(stored or "", "bfloat16")
    return Config.check(values, "measure")


def _checks(request: Request, config: Config) -> str:
    """Say in one line what is about to run and how long it takes, or that nothing has to."""
    name, corpus = request.name, config.chosen.corpus
    model, text = config.model(name), config.corpora[corpus]
    facts = f"{name}: {corpus}, {text.sequences} x {text.length} tokens, {model.dtype}"
    if is_fresh("statistics", Lineages(config).statistics(corpus, name), paths.manifest(corpus, name)):
        return f"{facts}; from the statistics kept, no forward pass"
    footprint, run = checkpoints.read_footprint(paths.checkpoint(name)), Pass.of(config, text, model)
    plan, device = estimate(footprint, run), devices.best_device()
    rates = calibration.rates(paths.checkpoint(name), device, model.dtype, footprint.channels, text.length)
    took = calibration.seconds(plan, footprint, run, rates, device)
    free = shutil.disk_usage(paths.results()).free
    free_memory = memory.free_memory(devices.HOST)
    host = plan.host_bytes + (plan.device_bytes if device.type == "cpu" else 0)
    return (
        f"{facts} on {devices.name(device)}; {human(footprint.counts['total_params'])} parameters in "
        f"{footprint.blocks} blocks; memory {host / 1e9:.1f} GB of {free_memory / 1e9:.0f} free, "
        f"disk {plan.statistics_bytes / 1e9:.2f} GB of {free / 1e9:.0f} free; about {spoken(took)}"
    )


def _show_answer(request: Request, config: Config) -> pd.DataFrame:
    from outlier_features.cli.show_answer import show_answers

    corpus = config.chosen.corpus
    summary, _ = read_table(paths.summary(corpus))
    answer = read_json(paths.answer(corpus, request.name), "reduction", None)
    print()
    show_answers({config.label(request.name): answer}, sys.stdout)
    return summary[summary["definition"] == answer["criterion"]["name"]]


def _show_together(summary: pd.DataFrame) -> None:
    from outlier_features.cli.show_summary import show
    from outlier_features.experiment.inference import conclusions

    show(summary, stream=sys.stdout)
    if len(summary) >= phase_shift.FEWEST:
        print(in_words(conclusions(summary, {}, {}, {})))


def _show_difference(config: Config, against: str) -> None:
    from outlier_features.cli.show_comparison import show_comparison
    from outlier_features.comparison.compare import compare

    summary = paths.summary(config.chosen.corpus)
    try:
        path = history.find(against, summary, EXPERIMENT)
    except ConfigError as error:
        print(f"\n{error}")
        return
    compared = compare(Run(*read_table(summary)), Run.read(path))
    show_comparison(compared, against=str(path), format="table", stream=sys.stdout)


def _next(request: Request, config: Config) -> str:
    """Say where the results lie and what to try next."""
    folder, corpus = request.folder, config.chosen.corpus
    if request.text == "-":
        request = replace(request, text=str(paths.standard_input()))
    other = next(value for value in config.capture.thresholds if value > request.threshold)
    return "\n".join(
        (
            f"page: {paths.index()}",
            f"tables: {folder / corpus}; figures: {folder / 'plots'}",
            f"for quantisers: {paths.export(corpus, request.name)}",
            "next:",
            f"  {replace(request, threshold=other).command}   # another threshold, from the statistics kept",
            f"  outlier-features show {shlex.quote(str(folder))} --layers   # every tensor, by what int8 would lose",
            f"  {replace(request, text=YOURS).command} --against last   # does it hold on your text?",
        )
    )
