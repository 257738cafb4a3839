"""The command line: one command measures one model; the stages of a configuration run without Snakemake."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from outlier_features import shipped
from outlier_features.artefacts import paths, remedies
from outlier_features.cli.listing import LISTS
from outlier_features.config.config import Config
from outlier_features.config.entries import Dtype
from outlier_features.errors import ConfigError
from outlier_features.pipeline.stages import EACH_MODEL, WHOLE_EXPERIMENT, Stages, in_words
from outlier_features.planning import estimate
from outlier_features.report import tour
from outlier_features.sources import local_sources

ALL = "all"
"""In place of the name of a definition."""

if TYPE_CHECKING:
    import pandas as pd

    from outlier_features.comparison.recorded_run import Run
    from outlier_features.experiment.selection import Selection

PROGRAM = "outlier-features"
MEASURE, RESULTS, LEARN, STAGES = (
    "Measure a model",
    "Look at results",
    "Plan, and look things up",
    "Stages of the experiment in config.yaml, in this order (snakemake runs them all)",
)
"""What a person wants, in the order of the help."""


@dataclass(frozen=True)
class Command:
    """One command: what it does in a sentence, its options, and what runs."""

    group: str
    words: str
    add_options: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], object]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, a short tour without any. Expected errors end as one line and exit status 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(tour.TOUR)
        return
    options = _parser().parse_args(words)
    COMMANDS[options.command].run(options)


def _config(options: argparse.Namespace) -> Config:
    config = Config.read(options.config)
    if options.experiment:
        return Config.check(config.model_dump() | {"experiment": options.experiment}, "--experiment")
    return config


def _stage(options: argparse.Namespace) -> None:
    """Run one stage of the experiment, for each of its models or once."""
    if getattr(options, "published", False):
        _infer_published()
        return
    config = _config(options)
    local_sources.require(config, str(options.config))
    with ExitStack() as leave:
        stages = Stages(config, leave, force=options.force, part=getattr(options, "part", None))
        if options.command in WHOLE_EXPERIMENT:
            WHOLE_EXPERIMENT[options.command](stages)
            return
        for name in options.models or config.chosen.models:
            EACH_MODEL[options.command](stages, name, config.model(name))


def _measure(options: argparse.Namespace) -> None:
    from outlier_features.cli.measure import measure_all
    from outlier_features.cli.measurement import Request

    values = {field.name: getattr(options, field.name) for field in fields(Request) if field.name != "source"}
    requests = [Request(source=source, **values) for source in options.sources]
    measure_all(requests, device=options.device, against=options.against, is_opened=options.open, force=options.force)


def _list(options: argparse.Namespace) -> None:
    found = LISTS[options.what](
        _config(options) if options.config.is_file() else Config.read(shipped.path("config.yaml"))
    )
    wide = max(map(len, found)) + 2
    print("\n".join(f"{name.ljust(wide)}{words}" for name, words in found.items()))


def _explain(_: argparse.Namespace) -> None:
    print(tour.explanation())


def _show(options: argparse.Namespace) -> None:
    with ExitStack() as leave:
        folder = options.folder or _newest_measurement(options)
        if folder is not None:
            leave.enter_context(paths.within(folder))
        _show_results(_measured(folder) if folder is not None else _config(options), options)


def _measured(folder: Path) -> Config:
    """Return the configuration of a measurement. Raises ConfigError where the folder holds none."""
    if not paths.configuration().is_file():
        raise ConfigError(f"{folder}: holds no measurement; give the folder that `measure` wrote.")
    return Config.read(paths.configuration())


def _newest_measurement(options: argparse.Namespace) -> Path | None:
    """Return the folder of the last measurement where there is no configuration to show the results of."""
    from outlier_features.cli.measurement import FOLDER

    kept = sorted(FOLDER.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    if options.config.is_file() or not kept:
        return None
    print(f"no {options.config} here; the newest measurement: {kept[-1].parent}", file=sys.stderr)
    return kept[-1].parent


def _show_results(config: Config, options: argparse.Namespace) -> None:
    from outlier_features.artefacts.tables import read_table
    from outlier_features.cli.show_summary import show
    from outlier_features.comparison.recorded_run import Run
    from outlier_features.experiment.selection import Selection

    path = paths.summary(config.chosen.corpus)
    if not path.is_file():
        is_measured = paths.configuration().is_file()
        remedy = remedies.again(path) if is_measured else "run snakemake or the stages up to summarize"
        raise ConfigError(f"{path}: no summary yet; {remedy}.")
    run = Run(*read_table(path))
    chosen = {field.name: getattr(options, field.name) for field in fields(Selection)}
    selection = Selection(**chosen | {"definition": None if options.definition == ALL else options.definition})
    if options.layers:
        _show_layers(selection.of(run.summary))
    elif options.against is not None:
        _show_against(run, selection, options, config)
    elif options.format != "table":
        show(run.summary, selection, format=options.format, stream=sys.stdout, plot=options.plot)
    else:
        _show_tables(run, selection, options)


def _show_tables(run: "Run", selection: "Selection", options: argparse.Namespace) -> None:
    """Print the summary and the answer for each model; by the definition that names channels unless one is chosen."""
    from outlier_features.artefacts.tables import read_json
    from outlier_features.cli.show_answer import show_answers
    from outlier_features.cli.show_summary import show

    models = selection.of(run.summary).drop_duplicates("model")
    files = {row["label"]: paths.answer(row["corpus"], row["model"]) for row in models.to_dict("records")}
    answers = {label: read_json(path, "reduction", None) for label, path in files.items() if path.is_file()}
    if options.definition is None and answers:
        selection = replace(selection, definition=next(iter(answers.values()))["criterion"]["name"])
    show(run.summary, selection, plot=options.plot, stream=sys.stdout)
    show_answers(answers, sys.stdout)


def _show_layers(rows: "pd.DataFrame") -> None:
    from outlier_features.artefacts.tables import read_table
    from outlier_features.cli.show_answer import show_layers

    chosen = rows.drop_duplicates("model")
    layers, damage = (
        {row["label"]: paths.table(name, row["corpus"], row["model"]) for row in chosen.to_dict("records")}
        for name in ("layers", "damage")
    )
    show_layers(
        {label: read_table(path)[0] for label, path in layers.items()},
        sys.stdout,
        damage={label: read_table(path)[0] for label, path in damage.items() if path.is_file()},
    )


def _show_against(run: "Run", selection: "Selection", options: argparse.Namespace, config: Config) -> None:
    from outlier_features.cli.show_comparison import show_comparison
    from outlier_features.comparison.compare import compare
    from outlier_features.comparison.recorded_run import Run
    from outlier_features.pipeline import history

    if options.plot:
        raise ConfigError("a plot shows one run; leave --plot or --against out")
    path = history.find(options.against, paths.summary(config.chosen.corpus), config.experiment)
    other = Run.read(path)
    chosen = replace(run, summary=selection.of(run.summary))
    same = selection.matching(other.summary, str(path))
    comparison = compare(chosen, replace(other, summary=same))
    show_comparison(comparison, against=str(path), format=options.format, stream=sys.stdout)


def _infer_published() -> None:
    import pandas as pd

    from outlier_features.experiment.inference import conclusions
    from outlier_features.experiment.table_of_2025 import as_summary

    found = conclusions(as_summary(pd.read_csv(shipped.published("arb8020_2025"))), {}, {}, {})
    print(in_words(found))


def _plan(options: argparse.Namespace) -> None:
    import pandas as pd

    from outlier_features.cli.show_plan import show_plans
    from outlier_features.pipeline.inventory import plans

    config = _config(options)
    local_sources.require(config, str(options.config))
    found = plans(config, options.configurations)
    chosen = {n: getattr(options, n) for n in ("flops", "bandwidth")}
    show_plans(found, pd.read_csv(shipped.published("model_sizes")), **chosen, format=options.format, stream=sys.stdout)


def _parser() -> argparse.ArgumentParser:
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, command in COMMANDS.items():
        groups.setdefault(command.group, []).append((name, command.words))
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--config FILE] [--experiment NAME] COMMAND ...",
        description=tour.grouped(groups),
        epilog=f"{tour.EXAMPLES}\n{PROGRAM} COMMAND --help tells the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=True,
    )
    _add_everywhere(parser, defaults=True)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands", help="see above"
    )
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, prog=f"{PROGRAM} {name}", description=command.words)
        _add_everywhere(own, defaults=False)
        command.add_options(own)
    return parser


def _add_everywhere(parser: argparse.ArgumentParser, *, defaults: bool) -> None:
    """Add the options that may stand before and after a command; only those before it have defaults."""

    def default(value: object) -> object:
        return value if defaults else argparse.SUPPRESS

    parser.add_argument(
        "--config", type=Path, default=default(Path("config.yaml")), help="the configuration (config.yaml)"
    )
    parser.add_argument(
        "--experiment", default=default(None), help="which experiment of it, instead of the one it names"
    )
    parser.add_argument(
        "--force", action="store_true", default=default(False), help="make results again even if they are up to date"
    )


def _no_options(_: argparse.ArgumentParser) -> None:
    pass


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", help="models of config.yaml; those of the experiment by default")


def _capture_options(parser: argparse.ArgumentParser) -> None:
    _models(parser)
    parser.add_argument("--part", type=int, help="the one of capture.scatter parts to run, from 1; all by default")


def _infer_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--published", action="store_true", help="from the table published in 2025 instead")


def _measure_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="PATH_OR_HUB_ID",
        help="a folder with a checkpoint, or organisation/name[@revision]",
    )
    parser.add_argument(
        "--text", help="a file (.txt .jsonl .csv .parquet …), a corpus (list corpora), or - for standard input"
    )
    parser.add_argument("--column", help="the column of that file or corpus that holds the text (text)")
    parser.add_argument("--sequences", type=int, default=16, help="windows to run (16)")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window (512)")
    parser.add_argument("--threshold", type=float, default=6.0, help="|x| from which an activation counts (6)")
    parser.add_argument(
        "--dtype",
        choices=("auto", *get_args(Dtype)),
        default="auto",
        help="precision of the pass; auto: that of the checkpoint, bfloat16 for float16",
    )
    parser.add_argument(
        "--nonfinite",
        choices=("error", "count"),
        default="error",
        help="what NaN and infinity do: stop the pass, or be counted and left out",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--out", type=Path, help="the folder of the results (outlier-features/NAME)")
    parser.add_argument(
        "--against", help="compare with: last (the run before), a kept run, a folder or summary.parquet"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=tuple(LISTS), help="what to list")


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--flops", type=float, default=estimate.FLOPS, help="operations a second the device sustains")
    parser.add_argument(
        "--bandwidth", type=float, default=estimate.BANDWIDTH, help="bytes a second weights are read at"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument(
        "--configurations", type=Path, help="where {hub name}/config.json lie, to plan without asking the hub"
    )


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, help="the folder of a measurement; results of config.yaml else")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--definition", help="the rows of this definition; all: of every one (the first pooled one)")
    parser.add_argument("--kind", choices=("dense", "moe"), help="only models of this kind")
    parser.add_argument(
        "--family", help="only models whose architecture begins so: qwen3 takes Qwen3MoeForCausalLM too"
    )
    parser.add_argument("--sort", help="a column of the summary to sort by, ascending")
    parser.add_argument("--descending", action="store_true", help="sort the other way round")
    parser.add_argument("--layers", action="store_true", help="rank the tensors of each model by what int8 would lose")
    parser.add_argument(
        "--against",
        metavar="RUN",
        help="say what moved since another run: last, a kept one, a folder, or its summary.parquet",
    )
    parser.add_argument("--plot", action="store_true", help="draw layers affected against active parameters")


_OPTIONS = {**dict.fromkeys(EACH_MODEL, _models), "capture": _capture_options, "infer": _infer_options}

COMMANDS: dict[str, Command] = {
    "measure": Command(
        MEASURE,
        "Measure models, each a folder or a hub id: which channels carry outlier features, where, and what breaks.",
        _measure_options,
        _measure,
    ),
    "show": Command(
        RESULTS, "Print the answer and the summary of an experiment or a measurement.", _show_options, _show
    ),
    "plan": Command(
        LEARN, "Print what measuring each model takes: parameters, bytes, memory, time.", _plan_options, _plan
    ),
    "list": Command(LEARN, f"List what can be named: {', '.join(LISTS)}.", _list_options, _list),
    "explain": Command(LEARN, "Explain the ten words that the results use.", _no_options, _explain),
    **{
        name: Command(STAGES, stage.__doc__ or "", _OPTIONS.get(name, _no_options), _stage)
        for name, stage in {**EACH_MODEL, **WHOLE_EXPERIMENT}.items()
    },
}
"""Every command, in the order of the help."""
