"""Tests of packing this software."""

from __future__ import annotations

from p2pdist.faces.bundle import NotPacked, kind, members, needed
from p2pdist.test.support import TestCase


class BundleTests(TestCase):
    """What is packed."""

    def test_what_a_node_needs(self):
        """Package, plugin and libraries with what they need; no tests, no compiled files."""
        names = [name for name, _ in members()]
        for wanted in (
            *("p2pdist/service.py", "p2pdist/faces/tap.py", "twisted/plugins/p2pdist_plugin.py"),
            *("twisted/internet/reactor.py", "attrs/__init__.py", "hyperlink/__init__.py"),
        ):
            self.assertIn(wanted, names)
        self.assertEqual(len(names), len(set(names)))
        for name in names:
            self.assertNotIn("/test/", name)
            self.assertFalse(name.startswith(("/", "../")) or name.endswith(".pyc"), name)
        others = [name for name in names if name.startswith("twisted/plugins/")]
        self.assertEqual(2, len(others), "ours, and what makes the folder a package")

    def test_what_is_not_installed(self):
        """A library that is not here is named, with what to do."""
        error = self.assertRaises(NotPacked, needed, ("twisted", "no-such-library"))
        self.assertIn("pip install no-such-library", str(error))

    def test_kind(self):
        """Python's version and the machine's kind decide who can use it."""
        major, _, machine = kind()
        self.assertEqual(3, major)
        self.assertTrue(machine)
