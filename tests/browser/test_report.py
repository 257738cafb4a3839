"""The page of a run and Snakemake's report in a real browser: what a reader sees, types, saves and prints of them.

Pictures of both are kept in the folder that OUTLIER_FEATURES_SCREENSHOTS names, results/screenshots by default.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import chromium
import pandas as pd
import pytest
from chromium import NARROW, WIDE, Browser
from projects import HOSTILE, PROJECT, copy_of
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from workflows import snakemake

pytestmark = pytest.mark.slow

PICTURES = Path(os.environ.get("OUTLIER_FEATURES_SCREENSHOTS", PROJECT / "results/screenshots"))
OF_SNAKEMAKE = "cdn.tailwindcss.com should not be used in production"
"""What Snakemake's own report complains of, without asking for anything."""


@pytest.fixture(scope="module")
def results(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a project of two models, with its report."""
    project = copy_of(finished, tmp_path_factory.mktemp("project"))
    ended = snakemake(project, "--report", "results/report.html", amounts=())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return project / "results"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    PICTURES.mkdir(parents=True, exist_ok=True)
    try:
        with chromium.running(folder) as started:
            yield started
    except chromium.Unavailable as reason:
        pytest.skip(str(reason))


def wait(browser: Browser, condition: Callable[[], object]) -> None:
    WebDriverWait(browser.driver, 20).until(lambda _: condition())


def rows(browser: Browser) -> list[list[str]]:
    """Return the table as it is seen, without intervals."""
    script = """return [...document.querySelectorAll("#summary tbody tr")].map(
        (row) => [...row.cells].map((cell) => cell.firstChild.textContent.trim()))"""
    return browser.driver.execute_script(script)


def choose(browser: Browser, name: str, value: str) -> None:
    Select(browser.driver.find_element(By.ID, f"filter-{name}")).select_by_value(value)


def column(browser: Browser, heading: str) -> int:
    headings = [head.text for head in browser.driver.find_elements(By.CSS_SELECTOR, "#summary thead th")]
    return headings.index(heading)


def focused(browser: Browser) -> str:
    """Return what has the focus, by its label for those who cannot see, its id or its words."""
    script = """const at = document.activeElement;
        return at.getAttribute("aria-label") || at.id || at.textContent.trim()"""
    return browser.driver.execute_script(script)


def tab_to(browser: Browser, name: str) -> None:
    for _ in range(200):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        if focused(browser) == name:
            return
    pytest.fail(f"the tabulator key does not lead to {name}")


@pytest.fixture
def page(results: Path, browser: Browser) -> Browser:
    browser.open(results / "index.html")
    return browser


def test_the_page_loads_without_a_complaint_and_without_a_network(page: Browser) -> None:
    assert page.driver.find_element(By.TAG_NAME, "h1").text.startswith("Outlier features of ")
    assert page.driver.execute_script("return document.images[0].naturalWidth") > 1000
    assert page.complaints() == []
    assert page.requests() == []
    page.photograph(PICTURES / "index_wide.png")


def test_a_label_of_markup_is_only_words(page: Browser) -> None:
    choose(page, "definition", "")
    assert HOSTILE in {row[0] for row in rows(page)}
    assert page.driver.execute_script("return document.querySelectorAll('#summary script').length") == 0


def test_the_table_is_filtered_by_text_kind_and_definition(page: Browser) -> None:
    choose(page, "definition", "")
    assert len(rows(page)) == 12
    choose(page, "kind", "moe")
    assert [row[1] for row in rows(page)] == ["moe"] * 6
    choose(page, "definition", "llm_int8")
    assert [row[1:3] for row in rows(page)] == [["moe", "llm_int8"]]  # and not llm_int8_rms, which begins alike
    assert page.driver.find_element(By.ID, "count").text == "1 of 12 rows"
    choose(page, "kind", "")
    choose(page, "definition", "")
    page.driver.find_element(By.ID, "filter-text").send_keys("dense")
    assert [row[0] for row in rows(page)] == ["dense"] * 6
    page.driver.find_element(By.ID, "filter-text").send_keys(" nothing")
    assert page.driver.find_element(By.ID, "count").text == "0 of 12 rows"


def test_the_table_sorts_by_keyboard_and_by_value(page: Browser) -> None:
    choose(page, "definition", "llm_int8")
    at = column(page, "Total parameters")
    small, large = [row[at] for row in rows(page)]
    tab_to(page, "Total parameters: Activate to sort")
    head = page.driver.find_elements(By.CSS_SELECTOR, "#summary thead th")[at]
    for order, expected in (("ascending", [small, large]), ("descending", [large, small])):
        ActionChains(page.driver).send_keys(Keys.ENTER).perform()
        WebDriverWait(page.driver, 20).until(lambda _, order=order: head.get_attribute("aria-sort") == order)
        assert [row[at] for row in rows(page)] == expected


def test_the_keyboard_alone_reaches_everything_and_the_focus_is_seen(page: Browser) -> None:
    for name in ("Answer", "filter-text", "filter-definition", "filter-kind", "download"):
        tab_to(page, name)
        width = page.driver.execute_script("return getComputedStyle(document.activeElement).outlineWidth")
        assert width == "3px", name
    tab_to(page, "Model: Activate to sort")
    tab_to(page, "parquet")
    tab_to(page, "Tables of each model (parquet)")


def test_the_saved_table_is_the_summary(page: Browser, results: Path, tmp_path: Path) -> None:
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    page.driver.find_element(By.ID, "download").click()
    saved = tmp_path / "summary-demo.csv"
    wait(page, saved.exists)
    pd.testing.assert_frame_equal(pd.read_csv(saved), pd.read_csv(results / "words/summary.csv"))


def test_links_lead_to_files_that_are_there(page: Browser, results: Path) -> None:
    links = page.driver.execute_script("return [...document.querySelectorAll('a.result')].map((a) => a.href)")
    figures = list(results.glob("plots/**/*.svg"))
    assert len(links) == 7 + 2 * 7 + len(figures)
    assert [link for link in links if not Path(link.removeprefix("file://")).is_file()] == []


def test_on_a_phone_nothing_but_the_wide_parts_scrolls_sideways(results: Path, browser: Browser) -> None:
    browser.open(results / "index.html", NARROW)
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") == NARROW[0]
    assert browser.driver.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)") >= 16
    browser.photograph(PICTURES / "index_narrow.png")
    browser.resize(WIDE)


def test_printing_keeps_the_table_and_leaves_the_controls_out(page: Browser) -> None:
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = {name: page.driver.find_element(By.ID, name).is_displayed() for name in ("summary", "filters", "count")}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == {"summary": True, "filters": False, "count": True}
    printed = page.print(PICTURES / "index.pdf")
    assert printed.startswith(b"%PDF")
    assert b"/S /Table" in printed
    assert b"/S /Figure" in printed


def test_without_scripts_the_table_is_whole_and_no_control_is_dead(results: Path, browser: Browser) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.open(results / "index.html")
    try:
        assert len(browser.driver.find_elements(By.CSS_SELECTOR, "#summary tbody tr")) == 12
        assert not browser.driver.find_element(By.ID, "filters").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.fixture
def report(results: Path, browser: Browser) -> Browser:
    browser.open(results / "report.html")
    wait(browser, lambda: browser.driver.find_elements(By.CSS_SELECTOR, "nav li"))
    return browser


def test_the_report_opens_without_a_complaint_and_without_a_network(report: Browser) -> None:
    report.photograph(PICTURES / "report_wide.png")
    assert [complaint for complaint in report.complaints() if OF_SNAKEMAKE not in complaint] == []
    assert report.requests() == []


def test_the_menu_has_the_headings_in_their_order(report: Browser) -> None:
    menu = report.driver.execute_script("return [...document.querySelectorAll('nav li')].map((li) => li.textContent)")
    headings = [entry for entry in menu if entry[:1].isdigit()]
    assert len(headings) > 2
    assert [int(heading.split(".")[0]) for heading in headings] == list(range(1, len(headings) + 1))


def test_every_figure_of_the_report_loads_and_says_what_it_shows(report: Browser, results: Path) -> None:
    script = "return Object.entries(results).map(([path, entry]) => [path, entry.mime_type, entry.caption])"
    entries = report.driver.execute_script(script)
    assert all(caption for _, _, caption in entries)
    figures = [path for path, kind, _ in entries if kind.startswith("image/")]
    drawn = [*results.glob("plots/**/*.png"), *results.glob("words/timings/*.svg")]
    assert sorted(figures) == sorted(f"results/{path.relative_to(results)}" for path in drawn)
    width = "const shown = document.querySelector('#app img:not(nav img)'); return shown ? shown.naturalWidth : 0"
    show = "app.setView({content: 'img', contentPath: results[arguments[0]].data_uri, resultPath: arguments[0]})"
    for path in figures:
        report.driver.execute_script("app.setView({content: 'stats'})")
        wait(report, lambda: report.driver.execute_script(width) == 0)
        report.driver.execute_script(show, path)
        wait(report, lambda: report.driver.execute_script(width) > 100)
