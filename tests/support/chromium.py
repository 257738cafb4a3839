"""A real Chromium without a window, driven by selenium, that tells what pages logged and asked a network for.

It needs root on Debian where Chromium is missing and has to be installed.
"""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import debian
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

PROGRAMS = ("chromium", "chromedriver")
PACKAGES = ("chromium", "chromium-driver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOCAL = ("file:", "data:", "blob:", "about:", "chrome:")
WIDE, NARROW = (1280, 900), (390, 844)


class Unavailable(Exception):
    """Chromium cannot be had on this machine; the text is the reason."""


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, size: tuple[int, int] = WIDE) -> webdriver.Chrome:
        """Open a file of this disk, to its last line, in a window of a size; forget what pages logged before."""
        self.resize(size)
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(path.resolve().as_uri())
        WebDriverWait(self.driver, 60).until(
            lambda driver: driver.execute_script("return location.protocol + document.readyState") == "file:complete"
        )
        return self.driver

    def resize(self, size: tuple[int, int]) -> None:
        """Give the window a size, in pixels; one below the least of a desktop is that of a phone."""
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == NARROW}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def complaints(self) -> list[str]:
        """Return what was logged as a warning or an error."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def requests(self) -> list[str]:
        """Return every address beyond this disk that was asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in asked if not address.startswith(LOCAL)]

    def photograph(self, path: Path) -> None:
        """Keep the whole page as a picture, not only what fits into the window."""
        captured = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(captured["data"]))

    def print(self, path: Path) -> bytes:
        """Print the page to a PDF of A4 sheets, and return its bytes."""
        sheet = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True, "generateTaggedPDF": True}
        printed = base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", sheet)["data"])
        path.write_bytes(printed)
        return printed


@contextmanager
def running(folder: Path) -> Iterator[Browser]:
    """Start a browser whose profile and downloads lie in an empty folder. Raises Unavailable with the reason."""
    _install()
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def _install() -> None:
    if all(map(shutil.which, PROGRAMS)):
        return
    if reason := debian.install(*PACKAGES):
        raise Unavailable(f"needs {' and '.join(PROGRAMS)}, and {reason}")
