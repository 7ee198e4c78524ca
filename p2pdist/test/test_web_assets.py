"""The page's files, read and not run: they fit together, are small, and can be read by all."""

from __future__ import annotations

import re

from p2pdist.test.support import TestCase
from p2pdist.web.service import load_assets

SCHEMES = ("light", "dark")
TEXTS = (
    *(("ink", "card"), ("ink", "bg"), ("ink", "hover"), ("soft", "card"), ("soft", "bg")),
    *((f"{kind}", f"{kind}-bg") for kind in ("good", "busy", "warn", "bad")),
    *(("on-main", "main"), ("bad", "card"), ("ink", "busy-bg")),
)
"""Colours of text, and what they stand on."""
SIGNS = (
    *((name, "card") for name in ("have", "move", "none", "main", "down", "up", "ring")),
    ("have", "lack"),
)
"""Colours that tell something without words, and what they stand beside."""


def text(path: str) -> str:
    """Return a file of the page."""
    return load_assets()[path][1].decode()


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.1)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2.1)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class AssetTests(TestCase):
    """All files together."""

    def test_small(self):
        """The whole page is less than 100 kB, and asks for nothing from elsewhere."""
        assets = load_assets()
        self.assertLess(sum(len(data) for _, data in assets.values()), 100_000)
        for path, (_, data) in assets.items():
            found = set(re.findall(r"https?://[^\"'\s)]+", data.decode()))
            self.assertLessEqual(found, {"http://www.w3.org/2000/svg"}, path)

    def test_files_fit(self):
        """Every file that is named is there, and every file is named."""
        assets = load_assets()
        named = {"/"}
        for _, data in assets.values():
            found = re.findall(
                r"(?:src|href|from) ?=?[ \"]\"?(?:\./)?([\w.]+\.\w+)\"", data.decode()
            )
            named.update(f"/{name}" for name in found)
        self.assertEqual(set(assets), named)

    def test_elements_fit(self):
        """Every element that a script looks for by id is in the document, once."""
        ids = re.findall(r'\bid="([\w-]+)"', text("/"))
        self.assertEqual(len(ids), len(set(ids)))
        for path in load_assets():
            if not path.endswith(".js"):
                continue
            wanted = set(re.findall(r'(?:find|getElementById)\("([\w-]+)"\)', text(path)))
            for listed in re.findall(r"\[([^\[\]]+)\]\.map\(", text(path)):
                if "document.getElementById" in text(path):
                    wanted.update(re.findall(r'"([\w-]+)"', listed))
            wanted -= {"lack", "move", "have", "none"}  # colours
            self.assertLessEqual(wanted, set(ids), path)

    def test_labels(self):
        """What labels or describes something names an element that is there."""
        ids = set(re.findall(r'\bid="([\w-]+)"', text("/")))
        names = re.findall(r'(?:aria-labelledby|aria-describedby|for)="([\w-]+)"', text("/"))
        self.assertGreater(len(names), 10)
        self.assertLessEqual(set(names), ids)


class ContrastTests(TestCase):
    """The colours."""

    def test_text_can_be_read(self):
        """In both schemes text has a contrast of 4.5 at least, and signs of 3 (WCAG 2.1, AA)."""
        blocks = re.findall(r":root \{(.*?)\}", text("/page.css"), re.DOTALL)
        for scheme, block in zip(SCHEMES, blocks, strict=False):
            colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
            for pairs, least in ((TEXTS, 4.5), (SIGNS, 3.0)):
                for one, other in pairs:
                    found = contrast(colours[one], colours[other])
                    self.assertGreaterEqual(found, least, (scheme, one, other))
