"""A browser for tests of the dashboard: the page is opened from the disk, with the network cut."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if os.environ.get("REQUIRE_ALL"):
    import selenium
else:
    selenium = pytest.importorskip("selenium")

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


class Browser:
    """The page and what a user does with it."""

    def __init__(self, profile: Path):
        options = ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
                     "disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={profile}", "window-size=1500,950"):  # fmt: skip
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=ChromeService("/usr/bin/chromedriver"))
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
        )

    def open(self, page: Path, fragment: str = "") -> None:
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(page.absolute().as_uri() + fragment)
        self.until(lambda: self.js("return document.documentElement.dataset.complete"))

    def opening(self) -> dict[str, float]:
        """Seconds until the first rows could be read (`ready`) and until everything could be used (`complete`)."""
        said = self.js("return {...document.documentElement.dataset}")
        return {name: float(said[name]) / 1000 for name in ("ready", "complete")}

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, true: Callable[[], Any], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"still not so after {seconds} s: {self.one('body').text[:500]}"
            time.sleep(0.03)

    def rows(self) -> list[list[str]]:
        """Texts of the row elements, in order."""
        return self.js(
            "return [...document.querySelectorAll('.row')].map(row => [...row.children].map(cell => cell.textContent))"
        )

    def column(self, index: int) -> list[str]:
        return [row[index] for row in self.rows()]

    def click_row(self, index: int = 0) -> None:
        """Click a row; the list may have been drawn anew between finding and clicking it."""
        for _ in range(20):
            try:
                self.all(".row")[index].click()
                return
            except StaleElementReferenceException:
                time.sleep(0.02)
        raise AssertionError("the list is drawn anew all the time")

    def count(self) -> str:
        return self.one("#count").text

    def type(self, text: str) -> None:
        """Type into the search box, and wait until the list has followed."""
        before = self.js(
            "window.followed = 0; new MutationObserver(() => window.followed++).observe(document.getElementById('rows'), {childList: true}); return 0"
        )
        box = self.one("#search")
        box.send_keys(Keys.CONTROL + "a", Keys.NULL, Keys.BACKSPACE, text)
        self.until(lambda: self.js("return window.followed") > before)
        time.sleep(0.25)  # the search waits for the end of typing

    def sort(self, title: str) -> None:
        next(button for button in self.all("#head button") if button.text.startswith(title)).click()

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Every address asked for since the page was opened, data: and the page itself aside."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "file:"))]
