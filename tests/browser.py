"""Debian's Chromium, driven by selenium, for the tests of docs/pages/."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

PAGES = Path(__file__).parent.parent / "docs" / "pages"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
OPTIONS = ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-dev-shm-usage")


def absent():
    """Why no page can be opened here, or ""."""
    if not (CHROMIUM and DRIVER):
        return "there is no Chromium here; as root: apt-get install chromium chromium-driver"
    return "" if find_spec("selenium") else "selenium is not installed; make test-pages does it"


class Browser:
    """One headless Chromium; `open` shows a page from its file."""

    def __init__(self):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for option in OPTIONS:
            options.add_argument(option)
        logs = {"browser": "ALL", "performance": "ALL"}
        options.set_capability("goog:loggingPrefs", logs)
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.size(1280, 800)
        self.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})

    def size(self, width, height):
        """Give the window another size in pixels, as a phone or a projector has it."""
        metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, path, after=""):
        """Load a file; `after` is what follows its name in the address."""
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get("about:blank")
        self.driver.get(Path(path).as_uri() + after)
        return self

    def run(self, script, *arguments):
        """The value of a JavaScript function's body."""
        return self.driver.execute_script(script, *arguments)

    def set(self, settings):
        """Give controls of the page their values."""
        for name, value in settings.items():
            self.run("setControl(arguments[0], arguments[1])", name, value)

    def numbers(self, settings=()):
        """What the page computes, with these values of its controls."""
        self.set(dict(settings))
        return json.loads(self.run("return window.pageNumbers()"))

    def find(self, name):
        """The element with an id, scrolled into view."""
        from selenium.webdriver.common.by import By

        found = self.driver.find_element(By.ID, name)
        self.run("arguments[0].scrollIntoView({block: 'center'})", found)
        return found

    def drag(self, name, right, down):
        """Drag the element with an id by so many pixels."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).drag_and_drop_by_offset(self.find(name), right, down).perform()

    def press(self, name, key):
        """Focus an element and press one key."""
        found = self.find(name)
        self.run("arguments[0].focus()", found)
        self.driver.switch_to.active_element.send_keys(key)

    def complaints(self):
        """What the page wrote to the console since it was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """The addresses that the page asked for since it was opened."""
        found = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        sent = [m["message"] for m in found if "requestWillBeSent" in m["message"]["method"]]
        return [m["params"]["request"]["url"] for m in sent if "request" in m["params"]]

    def seconds_to_load(self, path):
        """Processor time of the page's thread until a file has loaded; other work does
        not count. The counter starts again with each new process of the browser.
        """

        def spent():
            metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
            return {m["name"]: m["value"] for m in metrics}["TaskDuration"]

        before = spent()
        self.open(path)
        after = spent()
        return after - before if after >= before else after

    def close(self):
        self.driver.quit()
