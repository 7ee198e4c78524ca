"""``tools/record.py``: the terminal it reads, the drawing it makes, and the recording in docs/."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from xml.etree import ElementTree as ET

from p2pdist.test.support import TestCase
from p2pdist.test.test_docs import TREE, document

RECORDING_BYTES = 150_000


def load_record() -> ModuleType:
    """Import the script, which lies outside the package."""
    document("tools/record.py")
    spec = importlib.util.spec_from_file_location("p2pdist_record", TREE / "tools" / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


class ScreenTests(TestCase):
    """What a terminal makes of what programs print."""

    def shown(self, text: str) -> list[str]:
        """Return the lines of a small screen after ``text``."""
        screen = load_record().Screen(columns=6, rows=3)
        screen.write(text)
        return ["".join(char for char, _ in line).rstrip() for line in screen.picture()]

    def test_text(self):
        """Lines break at the edge and at newlines, and the screen scrolls."""
        self.assertEqual(["abcdef", "gh", ""], self.shown("abcdefgh"))
        self.assertEqual(["2", "3", "4"], self.shown("1\r\n2\r\n3\r\n4"))

    def test_redraw(self):
        """Going back, up and clearing work as commands use them to redraw."""
        self.assertEqual(["xbc", "", ""], self.shown("abc\rx"))
        self.assertEqual(["new", "", ""], self.shown("old\r\nold\x1b[2J\x1b[1;1Hnew"))
        self.assertEqual(["a", "two", ""], self.shown("a\r\none\r\x1b[Ktwo"))
        self.assertEqual(["up", "down", ""], self.shown("one\r\ndown\x1b[1A\r\x1b[2Kup"))

    def test_looks(self):
        """Bold, dim and colours belong to the characters written under them."""
        screen = load_record().Screen(columns=4, rows=1)
        screen.write("\x1b[1;32ma\x1b[0mb\x1b[2mc")
        self.assertEqual((("a", "2b"), ("b", ""), ("c", "d"), (" ", "")), screen.picture()[0])


class DrawingTests(TestCase):
    """The SVG."""

    def test_lines_are_drawn_once(self):
        """A line that stays is drawn once and referred to in each frame; text is escaped."""
        record = load_record()
        film = record.Film()
        film.show("<same> & so\r\n", 0)
        film.show("second", 1)
        svg = record.draw(film, "a & b", 0.5)
        root = ET.fromstring(svg)
        self.assertEqual(1, svg.count("&lt;same&gt; &amp; so"))
        space = "{http://www.w3.org/2000/svg}"
        self.assertEqual("a & b", root.findtext(f"{space}title"))
        self.assertEqual(3, len(root.findall(f".//{space}use")))

    def test_recording(self):
        """The recording in the documents is well-formed, small, and nothing in it can run."""
        text = document("docs/rollout.svg")
        ET.fromstring(text)
        self.assertLess(len(text.encode()), RECORDING_BYTES)
        self.assertNotIn("<script", text)
        self.assertNotIn("http", text.replace("http://www.w3.org/2000/svg", ""))
        self.assertIn("machines are done", text)
