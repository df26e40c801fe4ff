"""A headless Chromium, spoken to as the W3C's WebDriver says, with the standard library alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ENTER = "\ue007"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the standard's name of the key of an element
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
_LOGS = {"browser": "ALL", "performance": "ALL"}
_TIMEOUT = 300
_open = build_opener(ProxyHandler({})).open  # loopback, whatever the environment says of proxies


class Browser:
    """One window; what goes wrong in the browser is an error here."""

    def __init__(self, base: str) -> None:
        self._base = base

    def ask(self, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        request = Request(f"{self._base}{path}", data, {"Content-Type": "application/json"}, method=method)
        try:
            with _open(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)["value"]
        except HTTPError as error:
            with error:
                raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, page: Path) -> None:
        """Open a page and wait until it is there: a driver under load may come back while the one before still is."""
        self.ask("POST", "/url", url=page.as_uri())
        latest = time.monotonic() + _TIMEOUT
        while self.run("return [document.URL, document.readyState]") != [page.as_uri(), "complete"]:
            assert time.monotonic() < latest, f"{page} is never complete"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """Return what a script returns."""
        return self.ask("POST", "/execute/sync", script=script, args=[])

    def be(self, width: int, *, dark: bool = False) -> None:
        """Be so many pixels wide, and of someone who prefers dark or light pages, and none that slide."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", **size)
        preferred = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in preferred.items()]
        self._devtools("Emulation.setEmulatedMedia", features=features)

    def _devtools(self, command: str, **params: Any) -> None:
        self.ask("POST", "/goog/cdp/execute", cmd=command, params=params)

    def find(self, selector: str) -> str:
        return str(self.ask("POST", "/element", using="css selector", value=selector)[_ELEMENT])

    def click(self, selector: str) -> None:
        self.ask("POST", f"/element/{self.find(selector)}/click")

    def press(self, selector: str, key: str) -> None:
        self.ask("POST", f"/element/{self.find(selector)}/value", text=key)

    def errors(self) -> list[str]:
        """Return what the console has said since it was last asked, but for mere information."""
        found = self.ask("POST", "/se/log", type="browser")
        return [entry["message"] for entry in found if entry["level"] not in ("INFO", "DEBUG")]

    def requested(self) -> list[str]:
        """Return the addresses that were asked for since this was last asked."""
        events = [json.loads(entry["message"])["message"] for entry in self.ask("POST", "/se/log", type="performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [str(params["request"]["url"]) for params in sent]


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a browser; it and its driver are gone afterwards, whatever happens."""
    assert DRIVER is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert driver.stdout is not None
            port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
            base = f"http://127.0.0.1:{port}/session"
            wanted = {"alwaysMatch": _capabilities(profile)}
            session = Browser(base).ask("POST", "", capabilities=wanted)["sessionId"]
            window = Browser(f"{base}/{session}")
            try:
                yield window
            finally:
                window.ask("DELETE", "")
        finally:
            driver.kill()
            driver.communicate()


def _capabilities(profile: str) -> Mapping[str, Any]:
    flags = [*_FLAGS, f"--user-data-dir={profile}"]
    return {"goog:chromeOptions": {"binary": CHROMIUM, "args": flags}, "goog:loggingPrefs": _LOGS}
