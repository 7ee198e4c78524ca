"""Sphinx for the documentation site: ``make docs``. The Markdown files serve code hosts as well.

Nothing is fetched while building: theme and search are on the machine. Pages of the reference are
generated from the code first, by ``tools/reference.py``; files outside this folder that documents
link to (README and others) become pages of the same folder, with their links turned.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import reference  # noqa: E402 -- from tools, on the path since the line above

from p2pdist import __version__  # noqa: E402

GENERATED = "generated"
OUTSIDE = {"README.md": "readme", "SECURITY.md": "security-policy", "CHANGELOG.md": "changes"}
"""Documents above this folder, and the page each is here."""

project = "p2pdist"
version = release = __version__
copyright = "the p2pdist authors"  # noqa: A001 -- Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "README.md"]
html_theme = "furo"
html_title = f"p2pdist {release}"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["site.css"]
html_css_files = ["site.css"]
smartquotes = False  # "--" stands before options here
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(twisted|attrs?|os|collections|typing|builtins|zope)\..*"),
    ("py:.*", r"(Deferred|LoopingCall|PathLike|CancelledError|Callable|OnProgress|What|Any)"),
    # Public values whose modules say themselves what they are; the site has one page of code.
    ("py:.*", r"p2pdist\.(?!api)[\w.]+|Machine|Host|HostPort|Session|SessionStatus|P2PDistService"),
    ("py:.*", r"(DescriptorError|AlreadyRunning|ConfigurationError|StorageError|ContentConflict)"),
    ("py:.*", r"(NodeStopped|UnsafeName|Descriptor|RateLimits|searches_lan|Config|limits\..*)"),
]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
suppress_warnings = ["myst.header"]  # SECURITY and others begin where they like


def turned(text: str) -> str:
    """Return the text of a root document with links as they are from the generated folder."""

    def link(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        if path in OUTSIDE:
            return f"]({OUTSIDE[path]}.md{anchor})"
        inside = path.removeprefix("docs/")
        return f"](../{inside}{anchor})" if inside != path else f"](../../{path}{anchor})"

    return re.sub(r"\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)", link, text)


def generate() -> None:
    """Write the pages that are not written by hand."""
    folder = HERE / GENERATED
    reference.write(folder)
    for name, page in OUTSIDE.items():
        if name != "CHANGELOG.md":  # the reference has it, with what is not released
            text = turned((ROOT / name).read_text(encoding="utf-8"))
            (folder / f"{page}.md").write_text(text, encoding="utf-8")


def point_inside(_app: Any, docname: str, source: list[str]) -> None:
    """Turn links to documents above this folder into links to their pages here."""
    up = os.path.relpath(GENERATED, Path(docname).parent)
    for name, page in OUTSIDE.items():
        source[0] = source[0].replace(f"](../{name}", f"]({up}/{page}.md")


def setup(app: Any) -> None:
    """Generate, and teach Sphinx the names of our code blocks."""
    from pygments.lexers.special import TextLexer

    generate()
    app.add_lexer("hex", TextLexer)
    app.connect("source-read", point_inside)
