# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium without a screen, driven by Selenium, and what a reader does with the page in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0  # seconds that a slow machine may take for a step


@contextmanager
def reader_at(address: str, width: int = 1400, height: int = 950) -> Iterator[Reader]:
    """Somebody who looks at an address, with a browser of their own. Skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, found in programs.items():
        if found is None:
            pytest.skip(f"{name} is not installed (apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        f"window-size={width},{height}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    try:
        # windows have a least width, which phones are below
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.get(address)
        reader = Reader(driver)
        reader.until(lambda: driver.execute_script("return document.readyState") == "complete")
        yield reader
    finally:
        driver.quit()


class Reader:
    """A browser, and the hand and eye of whoever sits before it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def all(self, selector: str) -> list[Any]:
        """Elements that can be seen."""
        return [found for found in self.driver.find_elements("css selector", selector) if found.is_displayed()]

    def one(self, selector: str) -> Any:
        """The one element that can be seen, once it is there."""
        (found,) = self.until(lambda: self.all(selector))
        return found

    def text(self, selector: str) -> str:
        return "\n".join(str(found.text) for found in self.all(selector))

    def until(self, seen: Callable[[], Any]) -> Any:
        """What is seen, as soon as it is."""
        from selenium.common import exceptions
        from selenium.webdriver.support.ui import WebDriverWait

        passing = (exceptions.StaleElementReferenceException, exceptions.ElementClickInterceptedException)
        wait = WebDriverWait(self.driver, PATIENCE, 0.1, ignored_exceptions=passing)
        try:
            return wait.until(lambda _: seen())
        except exceptions.TimeoutException:
            raise AssertionError(f"not seen; the page says {self.text('body')!r}, {self.complaints()}") from None

    def click(self, selector: str, words: str = "") -> None:
        """Click on the first element that has the words, once it can be seen and nothing lies over it."""

        def clicked() -> bool:
            found = next((one for one in self.all(selector) if words in one.text), None)
            if found is not None:
                self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
                found.click()
            return found is not None

        self.until(clicked)

    def upload(self, path: Path) -> None:
        self.driver.find_element("id", "files").send_keys(str(path))

    def ask(self, question: str) -> None:
        """Type a question and press Enter."""
        self.one("#question").send_keys(question, "\ue007")

    def keys(self, keys: str) -> None:
        """Press keys where nothing is typed into."""
        self.driver.execute_script("document.activeElement.blur()")
        self.keys_here(keys)

    def keys_here(self, keys: str) -> None:
        """Press keys where the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def complaints(self) -> list[str]:
        """Errors of the page's script, and what its rules kept it from."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


__all__ = ["PATIENCE", "Reader", "reader_at"]
