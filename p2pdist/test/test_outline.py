"""Tests of the pass that finds lines and refuses what a descriptor never needs."""

from __future__ import annotations

import contextlib
import json

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import DescriptorError
from p2pdist.outline import Outline, outline
from p2pdist.test.support import TestCase, given

KNOWN = ("name", "nodes", "length")


def toml(text: str) -> Outline:
    """Return the outline of TOML text."""
    return outline(text, known=KNOWN, is_json=False, source="x.desc")


class LineTests(TestCase):
    """Where things stand."""

    def test_keys(self):
        """Keys are found past comments, blank lines, Windows line ends and odd spacing."""
        text = '# name = 1\r\n\r\nname="x" # nodes = 2\n  length\t=\t3\n"nodes" = []'
        self.assertEqual({"name": 3, "length": 4, "nodes": 5}, toml(text).keys)

    def test_entries(self):
        """Entries of a list have lines of their own, tables among them."""
        text = 'nodes = [ # [\n"a", \'b\',\n\n{ip = "c",\nport = 1},\n]\nname = ""'
        found = toml(text)
        self.assertEqual([2, 2, 4], found.entries["nodes"])
        self.assertEqual({"nodes": 1, "name": 7}, found.keys)

    def test_strings_hide_their_insides(self):
        """Brackets, quotes, keys and line ends inside strings count for nothing but lines."""
        for text in (
            '"""\nnodes = [\n"""',
            "'''\nnodes = [\n'''",
            '"""a\n\\"""b"\n""""',
            "'''a\n''b\n'''''",
        ):
            self.assertEqual({"name": 1, "length": 4}, toml(f"name = {text}\nlength = 1").keys)
        for text in ('"[#\\""', "'[\"\\'", '""', "''"):
            self.assertEqual({"name": 1, "length": 2}, toml(f"name = {text}\nlength = 1").keys)

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.text(max_size=20),
                "length": st.integers(0, 1 << 60),
                "nodes": st.lists(
                    st.text(max_size=10)
                    | st.fixed_dictionaries({"ip": st.text(max_size=5), "port": st.integers()}),
                    max_size=5,
                ),
            },
        ),
        st.sampled_from([None, 0, 2]),
        st.booleans(),
    )
    def test_json(self, value: dict[str, object], indent: int | None, ascii_only: bool):
        """In any JSON of the right shape all keys and entries are found on their lines."""
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        found = outline(text, known=KNOWN, is_json=True, source="x.json")
        self.assertEqual(list(value), list(found.keys))
        lines = text.split("\n")
        for key, line in found.keys.items():
            self.assertIn(f'"{key}":', lines[line - 1])
        nodes = value.get("nodes")
        if isinstance(nodes, list):
            self.assertEqual(len(nodes), len(found.entries.get("nodes", [])))


class RefusalTests(TestCase):
    """What is refused, and on which line."""

    def assert_refused(
        self, text: str, reason: str, line: int, field: str | None, *, is_json: bool = False
    ) -> DescriptorError:
        """Fail unless the text is refused at ``line`` with ``reason``."""
        error: DescriptorError = self.assertRaises(
            DescriptorError, outline, text, known=KNOWN, is_json=is_json, source="x.desc"
        )
        self.assertIn(reason, error.reason)
        self.assertEqual(("x.desc", line, field), (error.source, error.line, error.field))
        self.assertTrue(error.remedy)
        return error

    def test_unknown_keys(self):
        """An unknown key is named with the nearest known one."""
        error = self.assert_refused("\nnmae = 1", "unknown key 'nmae'", 2, None)
        self.assertEqual("did you mean name?", error.remedy)
        error = self.assert_refused("zzz = 1", "unknown", 1, None)
        self.assertIn("name, nodes, length", error.remedy)
        self.assert_refused('{\n"a": 1}', "unknown", 2, None, is_json=True)
        self.assert_refused('"\\u006eame" = 1', "unknown", 1, None)

    def test_doubled_keys(self):
        """A key that is there twice is named with both lines."""
        self.assert_refused("name = 1\nname = 2", "in line 1", 2, "name")
        self.assert_refused('{"name": 1,\n"name": 2}', "in line 1", 2, "name", is_json=True)
        self.assert_refused("nodes=[{ip=1,\nip=2}]", "'ip' stands here twice", 2, "nodes")
        toml("nodes = [{ip = 1}, {ip = 2}]")

    def test_tables(self):
        """Headers of tables and dotted keys are refused: descriptors are flat."""
        self.assert_refused("[name]", "[table]", 1, None)
        self.assert_refused("name = 1\n[[nodes]]\nip = 1", "[table]", 2, None)
        self.assert_refused("name = 1\nname.a = 1", "dot", 2, None)
        self.assert_refused("nodes = [{\n'a' . 'b' = 1}]", "dot", 2, "nodes")

    def test_dots(self):
        """Addresses and fractions without quotation marks get a hint."""
        self.assertIn(
            "quotation marks",
            self.assert_refused("nodes = [\n10.0.0.5:7667]", "dot", 2, "nodes").remedy,
        )
        self.assert_refused("length = 4.7", "dot", 1, "length")

    def test_endless_strings(self):
        """A string without end is named by the line it begins in."""
        for text in ('"', "'", '"""', "'''", '"\\"', '"a\nb"', "'a\nb'", '"""\\"""', '"""a""'):
            self.assert_refused(f"\nname = {text}\n", "does not end", 2, "name")

    def test_odd_characters(self):
        """A character that begins nothing is named."""
        for character in ("$", "\\", "\x0b", "é", "\x00", "\ufeff"):
            self.assert_refused(f"name = {character}", ascii(character), 1, "name")

    def test_nesting(self):
        """Brackets nest as deep as a list of tables, no deeper, however many there are."""
        toml("nodes = [{}]")
        for depth in (3, 100_000):
            self.assert_refused("nodes = " + "[" * depth, "nested", 1, "nodes")
            self.assert_refused('{"nodes":' + "[" * depth, "nested", 1, "nodes", is_json=True)
        toml("name = 1" + "]" * 100)

    def test_words_are_bounded(self):
        """Numbers and keys longer than any good one are refused before they are converted."""
        toml("length = " + "9" * limits.DESCRIPTOR_WORD)
        text = "length = " + "9" * (limits.DESCRIPTOR_WORD + 1)
        self.assert_refused(text, f"{limits.DESCRIPTOR_WORD + 1} characters", 1, "length")

    def test_lists_are_bounded(self):
        """A list longer than any good one is refused at the line of the first entry too many."""
        most = "nodes = [" + "'a',\n" * limits.DESCRIPTOR_NODES
        self.assertEqual(limits.DESCRIPTOR_NODES, len(toml(most + "]").entries["nodes"]))
        line = limits.DESCRIPTOR_NODES + 1
        self.assert_refused(most + "'a'", "more than", line, "nodes")
        self.assert_refused("name = [" + "1," * 100, "more than", 1, "name")

    @given(
        st.lists(
            st.sampled_from(
                [*KNOWN, "ip", *"=:[]{},\"'\n #\\1.", '"""', "'''", "# x\n", '"x"', "'y'"]
            ),
            max_size=30,
        ).map("".join),
        st.booleans(),
    )
    def test_any_text_ends(self, text: str, is_json: bool):
        """Any text gives an outline or a DescriptorError with a line of the text."""
        try:
            outline(text, known=KNOWN, is_json=is_json, source="x")
        except DescriptorError as error:
            assert error.line is not None
            self.assertTrue(1 <= error.line <= text.count("\n") + 1)

    def test_nothing_is_quadratic(self):
        """The worst texts of full size end (this test would take minutes otherwise)."""
        size = limits.DESCRIPTOR_BYTES
        for unit in (
            "'",
            '"',
            '"""',
            '\\"""',
            "'''",
            '"""\\',
            "#\n",
            "\n",
            "a ",
            "a",
            "=",
            "]",
            ",",
        ):
            with contextlib.suppress(DescriptorError):
                toml((unit * size)[:size])
