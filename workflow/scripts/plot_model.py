"""Rule plot_model: hand the tables of one model to the library."""

from pathlib import Path

from outlier_features.artefacts.provenance import record
from outlier_features.config.config import Config
from outlier_features.figures.catalogue import names
from outlier_features.figures.draw import draw_model, save, save_of_mixture
from outlier_features.figures.portraits import read_portrait
from outlier_features.machine.logs import logged

label = Config.check(snakemake.config).label(snakemake.wildcards.model)
with logged(snakemake.log[0]):
    lineage = snakemake.params.lineage
    portrait = read_portrait(label, dict(snakemake.input.items()), snakemake.input.published, lineage)
    for name in names("model"):
        figure = draw_model(name, portrait)
        for path in (path for path in map(Path, snakemake.output) if path.parent.name == name):
            save(figure, path, record(lineage))
    for folder in (path for path in map(Path, snakemake.output) if path.parent.name in names("mixture")):
        save_of_mixture(folder.parent.name, portrait, folder, record(lineage))
