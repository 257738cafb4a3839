"""Headings and captions of the report are rendered without an error, with words escaped."""

import html
import io
import re
from types import SimpleNamespace

import jinja2
from docutils.core import publish_parts
from outlier_features.figures import catalogue
from outlier_features.report import headings
from projects import PROJECT

WORKFLOW = PROJECT / "workflow"


def test_every_caption_is_rendered_without_an_error_and_with_its_words_escaped() -> None:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as Snakemake makes it
    template = environment.from_string((WORKFLOW / "report/caption.rst").read_text(encoding="utf-8"))
    captions = [*headings.WORDS.values(), headings.of_figures(catalogue.FIGURES), "a < b\n<b>one</b> & 'two'\n\n  *x*"]
    for caption in captions:
        rendered = template.render(snakemake=SimpleNamespace(params=SimpleNamespace(caption=caption)))
        complaints = io.StringIO()
        body = publish_parts(rendered, writer="html", settings_overrides={"warning_stream": complaints})["body"]
        assert complaints.getvalue() == ""
        assert "system-message" not in body
        assert [html.unescape(line) for line in re.findall("<p>(.*?)</p>", body)] == caption.splitlines()
