"""The page in a real Chromium, served by a real ``twistd``. Skipped where there is no Chromium.

Nothing here sleeps: waiting is for lines of a process, or happens inside the browser.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import p2pdist
from p2pdist.content import FileEntry, Metadata, hash_piece
from p2pdist.ids import format_hash_key
from p2pdist.test.browser import Browser, is_there
from p2pdist.test.support import TestCase, unmeasured

TWISTD = "from twisted.scripts.twistd import run; run()"
ROOT = str(Path(p2pdist.__file__).parents[1])
NAME = "<img src=x onerror=alert(1)>"
DATA = b"p2pdist" * 40_000
PIECE = 65536


class Node:
    """A seed with a page, as its operator runs it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / NAME).write_bytes(DATA)
        hashes = [hash_piece(DATA[start : start + PIECE]) for start in range(0, len(DATA), PIECE)]
        metadata = Metadata(PIECE, (FileEntry((NAME,), len(DATA)),), b"".join(hashes))
        self.key = format_hash_key(metadata.hash_key())
        descriptor = folder / "it.desc"
        lines = [f'hash_key = "{self.key}"', f'name = "{NAME}"', f"length = {len(DATA)}"]
        descriptor.write_text("\n".join([*lines, f"piece_length = {PIECE}", "nodes = []"]))
        options = ["--listen=127.0.0.1", "--port=0", "--web=0", "--name=<b>host</b>"]
        options += [f"--state-dir={folder / 'state'}", f"--directory={folder}"]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", TWISTD, "-n", "--pidfile=", "p2pdist"),
                *(f"--descriptor={descriptor}", *options),
            ],
            env={**os.environ, "PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        printed = []
        for line in self._process.stdout:
            printed.append(line)
            if "the page is at " in line:
                address = line.partition("the page is at ")[2].split(";")[0]
                break
        else:
            raise AssertionError("".join(printed))
        token = (folder / "state" / "web-token").read_text().strip()
        self.address = address
        self.url = f"{address}#{token}"

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate(timeout=30)


class PageTests(TestCase):
    """What an operator sees and does."""

    def setUp(self) -> None:
        """Start node and browser."""
        if not is_there():
            raise SkipTest("no chromium and chromedriver here")
        unmeasured(self)
        folder = Path(self.mktemp()).absolute()
        self.node = Node(folder / "node")
        self.addCleanup(self.node.stop)
        self.browser = Browser(folder / "profile")
        self.addCleanup(self.browser.close)

    def test_operator(self) -> None:
        """Key, table, map, log, limits and pause work, by keyboard too; nobody's markup does."""
        browser = self.browser
        self.no_key()
        browser.open(self.node.url)
        browser.wait("find('#stage').textContent === 'seeding'")
        self.assertNotIn("#", browser.run("return location.href"))
        self.assertEqual(NAME, browser.text("#name"))
        self.assertEqual("1 / 1", browser.text("#t-done"))
        row = "#rows tr[data-index='0']"
        self.assertIn("<b>host</b>", browser.text(row))
        self.assertIn("100 %", browser.text(row))
        browser.wait("find('#pieces-count').textContent === '5 of 5'")
        self.assertIn(
            "5 of 5",
            browser.run("return find('#map').getAttribute('aria-label')"),
        )
        self.assertIn("is complete at", browser.text("#log"))
        self.assertEqual(0, browser.run("return document.querySelectorAll('main img').length"))
        self.keyboard()
        self.limits()
        self.pause()
        self.assertEqual([], browser.complaints())
        self.foreign_script()

    def foreign_script(self) -> None:
        """Whatever gets into the page, Chromium runs no script of it, and would have said so."""
        self.browser.run(
            "const script = document.createElement('script');"
            "script.textContent = 'window.owned = 1'; document.head.append(script);"
        )
        self.assertIsNone(self.browser.run("return window.owned"))
        (said,) = self.browser.complaints()
        self.assertIn("Content Security Policy", said)

    def no_key(self) -> None:
        """Without the key the page asks for it, and says so when it is wrong."""
        browser = self.browser
        browser.open(self.node.address)
        browser.wait("!find('#door').hidden")
        browser.type("#key", "0" * 64)
        browser.click("#door button")
        browser.wait("find('#door-text').textContent.includes('not the key')")
        (said,) = browser.complaints()  # Chromium's own line about the 401
        self.assertIn("401", said)

    def keyboard(self) -> None:
        """Tab reaches the skip link, controls and table; arrows choose a machine and a piece."""
        browser = self.browser
        browser.run("find('#table').focus()")
        browser.press("Down")
        chosen = "find('#rows [aria-selected=true]')?.dataset.index"
        self.assertEqual("0", browser.wait(chosen))
        self.assertIn("has everything", browser.text("#detail"))
        browser.run("find('#map').focus()")
        browser.press("Down", "Down")
        browser.wait("find('#map-text').textContent.startsWith('Piece ')")
        browser.run("document.activeElement.blur(); document.body.focus()")
        reached = []
        for _ in range(30):
            browser.press("Tab")
            reached.append(browser.run("return document.activeElement.id"))
        wanted = {"limit-node", "pause", "limit", "find", "show", "table", "map", "log"}
        self.assertLessEqual(wanted, set(reached), reached)
        controls = "[...document.querySelectorAll('button, input, select, canvas, svg')]"
        named = "e.ariaLabel || e.textContent.trim() || e.labels?.length"
        self.assertEqual(0, browser.run(f"return {controls}.filter((e) => !({named})).length"))

    def limits(self) -> None:
        """A wrong limit is told in the dialog; a right one holds and is shown."""
        browser = self.browser
        browser.click("#limit")
        browser.type("#limit-up", "fast")
        browser.press("Enter")
        browser.wait("find('#limits-text').textContent.includes('10MB')")
        browser.run("find('#limit-up').value = ''")
        browser.type("#limit-up", "10MB")
        browser.press("Enter")
        browser.wait("!find('#limits').open")
        browser.wait("find('#waits').textContent.includes('10.0 MiB/s')")
        (said,) = browser.complaints()  # Chromium's own line about the 400
        self.assertIn("400", said)

    def pause(self) -> None:
        """The button pauses and resumes, and says which of the two it does."""
        browser = self.browser
        browser.click("#pause")
        browser.wait("find('#stage').textContent === 'paused'")
        self.assertEqual("Resume", browser.text("#pause"))
        browser.click("#pause")
        browser.wait("find('#stage').textContent === 'seeding'")
