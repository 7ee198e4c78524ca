"""The page with 1,000 machines and 100,000 pieces in a real headless Chromium.

`page_stage.py` serves the production page over a fleet that is made up: each second a tenth of the
machines say something new, 60 pieces arrive, and 40 peers gain up to 700 pieces each. Measured are
the first paint and the moment when table, map and chart are drawn, both from the click on; then,
with the page open and all of it visible, what the main thread does per second, layout and painting
included: its CPU (Chromium's ThreadTime), and its tasks by the clock on the wall (TaskDuration and
the longest task), which waits for whatever else the machine does; and what the service uses for it,
less what the made-up fleet itself costs. Needs chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

from p2pdist.test.browser import Browser, is_there

STAGE = Path(__file__).with_name("page_stage.py")
SIZE = (1440, 1550)
"""Of the window: everything can be seen, so that everything is drawn."""
WINDOWS = 5
COLOURS = (
    *("bg", "card", "ink", "soft", "line", "hover", "main", "on-main", "have", "move", "lack"),
    *(
        "none",
        "good",
        "good-bg",
        "busy",
        "busy-bg",
        "warn",
        "warn-bg",
        "bad",
        "bad-bg",
        "down",
        "up",
    ),
)
"""Of the style sheet."""
SHOWN = """performance.getEntriesByName('p2pdist-shown').length
    && document.querySelectorAll('#rows tr[data-index]').length > 20"""
PAINTED = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
DRAWN = "return performance.getEntriesByName('p2pdist-shown')[0].startTime"
WATCH = """window.longest = 0;
    new PerformanceObserver((list) => {
        for (const one of list.getEntries()) longest = Math.max(longest, one.duration);
    }).observe({ type: 'longtask' });"""


class Stage:
    """The service with its made-up fleet."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(STAGE), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def used(self) -> tuple[float, float]:
        """Return CPU seconds so far, and MiB resident."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        cpu_s, memory = self._process.stdout.readline().split()
        return float(cpu_s), float(memory)

    def cpu_share(self, seconds: float) -> float:
        """Return the percent of a core that it uses."""
        before, began = self.used()[0], time.perf_counter()
        time.sleep(seconds)
        return 100 * (self.used()[0] - before) / (time.perf_counter() - began)

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def metrics(browser: Browser) -> dict[str, float]:
    """Return Chromium's counters of the page."""
    rows: list[dict[str, Any]] = browser.devtools("Performance.getMetrics")["metrics"]
    return {row["name"]: row["value"] for row in rows}


def opened(stage: Stage, times: int) -> tuple[list[float], list[float]]:
    """Open the page in new browsers; return the times to first paint and to all drawn, in ms."""
    painted, drawn = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            browser = Browser(Path(folder) / "profile", size=SIZE)
            try:
                browser.open(stage.url)
                browser.wait(SHOWN)
                painted.append(browser.run(PAINTED))
                drawn.append(browser.run(DRAWN))
            finally:
                browser.close()
    return painted, drawn


def measure(report: common.Report, quick: bool) -> None:
    """Add the figures."""
    times, seconds = (2, 8.0) if quick else (7, 30.0)
    stage = Stage()
    try:
        idle = stage.cpu_share(seconds / 2)
        alone = stage.used()[1]
        painted, drawn = opened(stage, times)
        report.add(f"first paint, worst of {times}", max(painted) / 1e3, "s", at_most=1)
        report.add(f"all drawn, median of {times}", statistics.median(drawn) / 1e3, "s")
        report.add(f"all drawn, worst of {times}", max(drawn) / 1e3, "s", at_most=1)
        with tempfile.TemporaryDirectory() as folder:
            browser = Browser(Path(folder) / "profile", size=SIZE)
            try:
                live(report, stage, browser, seconds, idle)
            finally:
                browser.close()
        report.add("service: resident without a page", alone, "MiB")
        report.add("service: resident after all pages", stage.used()[1], "MiB")
    finally:
        stage.stop()


def live(
    report: common.Report, stage: Stage, browser: Browser, seconds: float, idle: float
) -> None:
    """Watch an open page for a while."""
    browser.open(stage.url)
    browser.wait(SHOWN)
    browser.devtools("Performance.enable")
    time.sleep(2)
    browser.run(WATCH)
    used, began = stage.used()[0], time.perf_counter()
    work, cpu = [], []
    for _ in range(WINDOWS):
        start, since = metrics(browser), time.perf_counter()
        time.sleep(seconds / WINDOWS)
        end, passed = metrics(browser), time.perf_counter() - since
        work.append(1e3 * (end["TaskDuration"] - start["TaskDuration"]) / passed)
        cpu.append(1e3 * (end["ThreadTime"] - start["ThreadTime"]) / passed)
    share = 100 * (stage.used()[0] - used) / (time.perf_counter() - began)
    after = metrics(browser)
    name = f"main thread, CPU per second, median of {WINDOWS} windows"
    report.add(name, statistics.median(cpu), "ms", at_most=50)
    report.add("main thread, CPU per second, worst window", max(cpu), "ms", at_most=50)
    report.add("the same by the clock, with what else runs", statistics.median(work), "ms")
    report.add("longest task, 0 if none over 50 ms", browser.run("return window.longest"), "ms")
    report.add("page: JavaScript heap", after["JSHeapUsedSize"] / 2**20, "MiB")
    report.add("page: elements", after["Nodes"], "nodes")
    report.add("service: CPU for one open page", share - idle, "% of a core")
    with tempfile.TemporaryDirectory() as folder:
        second = Browser(Path(folder) / "profile", size=SIZE)
        try:
            second.open(stage.url)
            second.wait(SHOWN)
            report.add("service: CPU for two", stage.cpu_share(seconds / 2) - idle, "% of a core")
        finally:
            second.close()
    report.add("console errors and warnings", len(browser.complaints()), "", at_most=0)


def save(browser: Browser, path: Path) -> None:
    """Save a small picture: 256 colours, the page's own among them. The extra brings Pillow."""
    from PIL import Image

    picture = Image.open(io.BytesIO(browser.picture())).convert("RGB")
    own = [
        browser.run(
            f"return getComputedStyle(document.documentElement).getPropertyValue('--{name}')"
        )
        for name in COLOURS
    ]
    palette = [int(text.strip()[at : at + 2], 16) for text in own for at in (1, 3, 5)]
    usual = picture.quantize(256 - len(own)).getpalette() or []
    colours = Image.new("P", (1, 1))
    colours.putpalette((palette + usual)[:768])
    picture.quantize(palette=colours, dither=Image.Dither.NONE).save(path, optimize=True)


def draw(folder: Path) -> None:
    """Take the pictures of the documents, a light and a dark one."""
    stage = Stage()
    try:
        for name in ("light", "dark"):
            with tempfile.TemporaryDirectory() as profile:
                browser = Browser(Path(profile) / "profile", dark=name == "dark", size=SIZE)
                try:
                    browser.open(stage.url)
                    browser.wait(SHOWN)
                    browser.run("find('#table').focus()")
                    browser.press("Down", "Down", "Down")
                    time.sleep(3)
                    save(browser, folder / f"page-{name}.png")
                finally:
                    browser.close()
    finally:
        stage.stop()


def main() -> None:
    """Run."""
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--pictures", metavar="FOLDER", help="measure nothing, draw the page there")
    chosen = common.options(__doc__, more)
    if chosen.pictures:
        draw(Path(chosen.pictures))
        return
    report = common.Report(seed=7)
    if is_there():
        measure(report, chosen.quick)
    else:
        report.skip("the page in Chromium", "s", "no chromium and chromedriver here")
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
