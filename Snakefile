"""What gets built: the summary, what follows from it, and the figures of the experiment that config.yaml names."""

import gc
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.19")

# A plan is millions of small objects that stay: looking for cycles among them over and over takes a quarter of its time.
gc.set_threshold(1_000_000, 50, 50)

# The library is the one beside this file, for the scripts of jobs too: another one may be installed where they run.
sys.path.insert(0, str(Path(workflow.current_basedir) / "workflow"))

from outlier_features import shipped
from outlier_features.report import headings
from outlier_features.pipeline import run_end, targets
from outlier_features.sources import local_sources
from outlier_features.artefacts import paths
from outlier_features.config import profiles, yaml_places
from outlier_features.config.config import Config
from outlier_features.artefacts.digests import Digests
from outlier_features.errors import ConfigError
from outlier_features.pipeline.freshness import Freshness
from outlier_features.artefacts.lineage import Lineages
from outlier_features.pipeline.job_resources import Requests

shipped.lend_library()
try:
    # a job is given what the main process has read; --configfile can take the place of the file
    if workflow.is_main_process and Path("config.yaml").is_file():
        yaml_places.read(Path("config.yaml"))
except ConfigError as error:
    raise WorkflowError(str(error)) from None


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


try:
    profiles.check(sys.argv[1:], Path(workflow.current_basedir))
    targets.check(sys.argv[1:])
    settings = Config.check(config, files=[Path(path) for path in workflow.configfiles])
    if workflow.is_main_process:  # a job need not see what it does not read
        # with --software-deployment-method packages are in an environment of their own
        is_deployed = bool(workflow.deployment_settings.deployment_method)
        local_sources.require(settings, has_packages=not is_deployed)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

STARTED = time.time()
lineages = Lineages(settings, Digests(paths.digests(), lambda: workflow.dryrun))
requests = Requests(settings)
MODELS = list(settings.chosen.models)
CORPUS = settings.chosen.corpus
HAS_SERIES = any(settings.models[model].series for model in MODELS)
under = headings.Headings(has_series=HAS_SERIES)


scattergather:
    capture=settings.capture.scatter,


IS_SCATTERED = len(gather.capture("{scatteritem}")) > 1
STATISTICS = local(
    gather.capture("results/{{corpus}}/statistics/{{model}}.{scatteritem}.json")
    if IS_SCATTERED
    else ["results/{corpus}/statistics/{model}.json"]
)
"""The manifests that seal the statistics of a model: one, or one of each capture that shares its windows out."""


wildcard_constraints:
    corpus=paths.one_of(settings.corpora),
    model=paths.MODEL,


include: "workflow/rules/staleness.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/tokenize.smk"
include: "workflow/rules/capture.smk"
include: "workflow/rules/reduce.smk"
include: "workflow/rules/vary.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/report.smk"


onsuccess:
    print(run_end.succeeded(settings))


onerror:
    print(run_end.failed(Path("results/logs"), STARTED), file=sys.stderr)


localrules:
    all,


rule all:
    default_target: True
    input:
        "results/index.html",
        f"results/{CORPUS}/summary.parquet",
        f"results/{CORPUS}/summary.csv",
        f"results/{CORPUS}/summary.json",
        f"results/{CORPUS}/inference.parquet",
        f"results/{CORPUS}/inference.json",
        f"results/{CORPUS}/reproduction.csv",
        f"results/{CORPUS}/reproduction.md",
        collect(
            "results/plots/{figure}.{suffix}",
            figure=FIGURES,
            suffix=paths.FORMATS,
        ),
        # Of what one job makes together, one file stands for all: every further one costs a large plan time.
        collect(
            "results/plots/{figure}/{model}.png",
            figure=MODEL_FIGURES[-1:],
            model=MODELS,
        ),
        collect(
            f"results/{CORPUS}/export/{{model}}/outlier_channels.json", model=MODELS
        ),
        collect(f"results/{CORPUS}/timings/{{model}}.svg", model=MODELS),
        collect(f"results/{CORPUS}/quantization/{{model}}.parquet", model=VARIED_MODELS),
        f"results/{CORPUS}/export/summary.tex",
        f"results/{CORPUS}/export/summary.md",
