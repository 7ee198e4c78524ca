"""A headless Chromium, driven over chromedriver's HTTP interface with the standard library alone.

Waiting happens inside the browser, in scripts that answer when something is there, so that nothing
here sleeps. Chromium's own console is part of the result: :meth:`Browser.complaints`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRIVER = shutil.which("chromedriver") or ""
PATIENCE_S = 60
"""For any one answer; a machine may be busy."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
FIND = "const find = (selector) => document.querySelector(selector);"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Down": "\ue015", "Tab": "\ue004", "Enter": "\ue007", "End": "\ue010", "Space": " "}


def is_there() -> bool:
    """Tell whether this machine has what is needed."""
    return bool(CHROMIUM and DRIVER)


class Browser:
    """One window.

    Args:
        folder: for the profile; must not exist.
        dark: whether the operator prefers dark colours.
        size: of the window.
    """

    def __init__(self, folder: Path, *, dark: bool = False, size: tuple[int, int] = (1440, 1020)):
        self._driver = subprocess.Popen(
            [DRIVER, "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a group of its own, to end all of it
        )
        self._server = http.client.HTTPConnection("127.0.0.1")
        self._session = ""
        try:
            self._begin(folder, size, dark=dark)
        except BaseException:
            self.close()
            raise

    def _begin(self, folder: Path, size: tuple[int, int], *, dark: bool) -> None:
        assert self._driver.stdout is not None
        port = None
        for line in self._driver.stdout:
            found = re.search(r"successfully on port (\d+)", line)
            if found:
                port = int(found[1])
                break
        assert port is not None, "chromedriver did not start"
        self._server = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S + 10)
        folder.mkdir(parents=True)
        flags = [*FLAGS, f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": CHROMIUM, "args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 1000 * PATIENCE_S},
        }
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=scheme)
        width, height = size
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        self._server.request(method, self._session + path, data, headers)
        answer = json.loads(self._server.getresponse().read())["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(f"{answer['error']}: {answer['message'].splitlines()[0]}")
        return answer

    def close(self) -> None:
        """End window, browser and driver."""
        try:
            if self._session:
                self._ask("DELETE", "")
        finally:
            self._server.close()
            with suppress(ProcessLookupError):
                os.killpg(self._driver.pid, signal.SIGKILL)  # also what did not listen
            self._driver.communicate()

    def devtools(self, command: str, **params: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def open(self, url: str) -> None:
        """Go there."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script's statements; return what it returns. ``find`` is ``querySelector``."""
        return self._ask("POST", "/execute/sync", {"script": FIND + script, "args": arguments})

    def wait(self, condition: str) -> Any:
        """Return the value of an expression as soon as it is true."""
        script = f"""
            const done = arguments[arguments.length - 1];
            const look = () => {{
                const value = {condition};
                if (value) done(value); else setTimeout(look, 20);
            }};
            look();"""
        return self._ask("POST", "/execute/async", {"script": FIND + script, "args": []})

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self.run("return find(arguments[0]).textContent", selector))

    def _find(self, selector: str) -> str:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def click(self, selector: str) -> None:
        """Click, as a person would: on what is visible and not covered."""
        self._ask("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into an element."""
        self._ask("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        actions = [
            {"type": kind, "value": KEYS[key]} for key in keys for kind in ("keyDown", "keyUp")
        ]
        body = {"actions": [{"type": "key", "id": "keys", "actions": actions}]}
        self._ask("POST", "/actions", body)

    def complaints(self) -> list[str]:
        """Return what the console says that is not just talk: errors, warnings, violations."""
        lines = self._ask("POST", "/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] in {"SEVERE", "WARNING"}]

    def picture(self) -> bytes:
        """Return a PNG of the window."""
        return b64decode(self._ask("GET", "/screenshot"))
