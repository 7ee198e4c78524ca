"""Tests of descriptors in all their forms."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import HostPort
from p2pdist.content import FileEntry, Metadata
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import DescriptorError
from p2pdist.ids import HashKey, format_hash_key
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEY = HashKey(bytes(range(32)))
KEY_TEXT = format_hash_key(KEY)
KEY_LINE = f'hash_key = "{KEY_TEXT}"\n'
EXAMPLES = Path(__file__).parents[2] / "descriptors"
PARSER = DescriptorParser()

FULL_TOML = f"""\
# A comment, {{ not JSON
{KEY_LINE}
name = "a b.iso"
length = 4_700_000_000
piece_length = 4_194_304
nodes = [
    "10.0.0.5",  # the default port
    {{ip = "2001:db8::5", port = 99}},
    {{host = "Seed.Example.org"}},
]
sha256 = "{"AB" * 32}"
"""
FULL = Descriptor(
    hash_key=KEY,
    name="a b.iso",
    length=4_700_000_000,
    piece_length=4_194_304,
    nodes=(
        HostPort("10.0.0.5", limits.DEFAULT_PORT),
        HostPort("2001:db8::5", 99),
        HostPort("seed.example.org", limits.DEFAULT_PORT),
    ),
    sha256="ab" * 32,
)


class ParseTests(TestCase):
    """Text that is a descriptor."""

    def test_toml(self):
        """TOML with comments, tables and default ports."""
        self.assertEqual(FULL, PARSER.parse(FULL_TOML))

    def test_json(self):
        """JSON of the same shape means the same."""
        text = json.dumps(tomllib.loads(FULL_TOML), indent=1)
        self.assertEqual(FULL, PARSER.parse(" \r\n\t" + text))

    def test_only_hash_key_is_needed(self):
        """Everything else may be left out; on one local network nodes may be, too."""
        self.assertEqual(Descriptor(hash_key=KEY), PARSER.parse(KEY_LINE))
        self.assertEqual(Descriptor(hash_key=KEY), PARSER.parse(KEY_LINE + "nodes = []"))
        self.assertEqual(Descriptor(hash_key=KEY), PARSER.parse(json.dumps({"hash_key": KEY_TEXT})))

    def test_bytes_of_editors(self):
        """A byte order mark and Windows line ends do no harm."""
        data = b"\xef\xbb\xbf" + FULL_TOML.replace("\n", "\r\n").encode()
        self.assertEqual(FULL, PARSER.parse(data))

    def test_source_is_kept(self):
        """Where it came from is kept for messages, and does not make descriptors differ."""
        parsed = PARSER.parse(KEY_LINE, "x.desc")
        self.assertEqual("x.desc", parsed.source)
        self.assertEqual(Descriptor(hash_key=KEY), parsed)

    @given(strategies.descriptors())
    def test_toml_round_trip(self, descriptor: Descriptor):
        """What is written can be read, and says the same."""
        self.assertEqual(descriptor, PARSER.parse(descriptor.to_toml()))

    @given(strategies.descriptors())
    def test_json_round_trip(self, descriptor: Descriptor):
        """The values of the TOML form, as JSON, say the same."""
        values = tomllib.loads(descriptor.to_toml())
        self.assertEqual(descriptor, PARSER.parse(json.dumps(values)))

    def test_examples(self):
        """Every example is a descriptor; between them they show each form."""
        if not EXAMPLES.is_dir():
            self.skipTest("the source tree is not here")
        paths = sorted([*EXAMPLES.glob("*.desc"), *EXAMPLES.glob("*.json")])
        parsed = {path.name: PARSER.parse_file(str(path)) for path in paths}
        self.assertEqual(sorted(EXAMPLES.iterdir()), paths)
        self.assertEqual((), parsed["lan.desc"].nodes)
        self.assertIn(":", parsed["ipv6.desc"].nodes[0].host)
        self.assertEqual(parsed["file.desc"].hash_key, parsed["file.json"].hash_key)
        self.assertIsNotNone(parsed["file.desc"].sha256)
        self.assertEqual("imagenet-2012", parsed["folder.desc"].name)


class RefusalTests(TestCase):
    """Text that is none, and how the error helps."""

    def refusal(self, text: str | bytes) -> DescriptorError:
        """Return the error of a text that must not parse."""
        error: DescriptorError = self.assertRaises(DescriptorError, PARSER.parse, text, "x.desc")
        self.assertEqual("x.desc", error.source)
        self.assertTrue(error.reason)
        self.assertTrue(error.remedy)
        self.assertEqual(2, error.exit_code)
        return error

    def assert_refused(
        self, line: str, reason: str, field: str | None, *, key_line: str = KEY_LINE
    ) -> None:
        """Fail unless ``line``, the third, is refused with ``reason``, line and field."""
        error = self.refusal(f"{key_line}\n{line}\n")
        self.assertIn(reason, error.reason)
        self.assertEqual((3, field), (error.line, error.field))
        self.assertTrue(str(error).startswith("x.desc:3: "))

    def test_missing_hash_key(self):
        """Without hash_key there is no line to name."""
        for text in ("", "{}", 'name = "a"', "# nothing\n"):
            error = self.refusal(text)
            self.assertEqual((None, "hash_key"), (error.line, error.field))

    def test_hash_key(self):
        """hash_key has one form."""
        for value in ("", "b3:", "b3:" + "0" * 63, "b3:" + "0" * 65, "b2:" + "0" * 64, "0" * 64):
            line = f'hash_key = "{value}"'
            self.assert_refused(line, "no hash key", "hash_key", key_line="#\n")
        self.assert_refused("hash_key = 1", "a number, not text", "hash_key", key_line="#\n")

    def test_types(self):
        """A truth value is no number, a number no text, and each error says what it is instead."""
        for line, reason, field in (
            ("length = true", "true, not a whole number", "length"),
            ("length = 1e9", "a fraction", "length"),
            ('length = "1"', "text", "length"),
            ("length = inf", "a fraction", "length"),
            ("length = [1]", "a list", "length"),
            ("name = 1", "a number", "name"),
            ("name = {a = 1}", "a table", "name"),
            ("name = 1979-05-27", "something else", "name"),
            ('nodes = "10.0.0.5"', "text, not a list", "nodes"),
            ("nodes = {ip = 1}", "a table", "nodes"),
            ("nodes = [1]", "an entry is a number", "nodes"),
            ("nodes = [[]]", "an entry is a list", "nodes"),
            ("sha256 = 1", "a number", "sha256"),
        ):
            self.assert_refused(line, reason, field)
        error = self.refusal(json.dumps({"hash_key": KEY_TEXT, "name": None}))
        self.assertIn("is null", error.reason)

    def test_numbers(self):
        """Lengths and piece lengths have bounds, and fit together."""
        for length in (0, limits.LENGTH_MAX):
            self.assertEqual(length, PARSER.parse(f"{KEY_LINE}length = {length}").length)
        for line, field in (
            ("length = -1", "length"),
            (f"length = {limits.LENGTH_MAX + 1}", "length"),
            (f"length = {1 << 63}", "length"),
            (f"length = 0x{'f' * 60}", "length"),
            ("piece_length = 0", "piece_length"),
            ("piece_length = 1", "piece_length"),
            ("piece_length = 65537", "piece_length"),
            (f"piece_length = {limits.PIECE_LENGTH_MIN // 2}", "piece_length"),
            (f"piece_length = {limits.PIECE_LENGTH_MAX * 2}", "piece_length"),
            (f"piece_length = {1 << 40}", "piece_length"),
        ):
            self.assert_refused(line, "", field)
        self.assert_refused("length = " + "9" * 5000, "5000 characters", "length")

    def test_piece_count(self):
        """Length and piece length together must not make too many pieces."""
        most = limits.PIECES_MAX * limits.PIECE_LENGTH_MIN
        text = f"{KEY_LINE}piece_length = {limits.PIECE_LENGTH_MIN}\nlength = "
        self.assertEqual(most, PARSER.parse(text + str(most)).length)
        error = self.refusal(text + str(most + 1))
        self.assertEqual((2, "piece_length"), (error.line, error.field))
        self.assertIn("more than", error.reason)

    def test_names(self):
        """A name goes through the one gate for file names, and the reason is told."""
        for name in ("../a", "/etc/passwd", "", "a\\\\b", "\\u0000", "\\u202e", "-rf", "x" * 256):
            self.assert_refused(f'name = "{name}"', "cannot be used: it ", "name")

    def test_sha256(self):
        """The sum is 64 hexadecimal digits."""
        for value in ("", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\\n"):
            self.assert_refused(f'sha256 = "{value}"', "no SHA-256", "sha256")

    def test_unknown_keys(self):
        """A misspelt key is an error with a hint, never ignored."""
        self.assert_refused('nods = ["10.0.0.5"]', "unknown key 'nods'", None)

    def test_nodes(self):
        """A bad entry is named by its own line."""
        for entry, reason in (
            ('"10.0.0.5:0"', "outside 1 to 65535"),
            ('"10.0.0.5:x"', "no number"),
            ('"0.0.0.0"', "no address of one machine"),
            ('"[::1"', "brackets"),
            ('"http://a/"', ""),
            ('""', "neither"),
            ("{port = 1}", "ip or host"),
            ('{ip = "10.0.0.6", host = "a"}', "ip or host"),
            ('{ip = "10.0.0.6", prot = 1}', "ip or host"),
            ('{ip = "name"}', "no IP address"),
            ("{ip = 1}", "host must be text"),
            ('{host = "a:1"}', "neither"),
            ('{host = "a", port = "1"}', "port a number"),
            ('{host = "a", port = true}', "port a number"),
            ('{host = "a", port = 65536}', "port a number"),
            ('{host = "a b", port = 1}', "neither"),
            ('"10.0.0.5"', "is entry 1 already"),
            ('{ip = "10.0.0.5", port = 7667}', "is entry 1 already"),
            ('"::ffff:10.0.0.5"', "is entry 1 already"),
        ):
            error = self.refusal(f'{KEY_LINE}nodes = [\n"10.0.0.5",\n\n{entry},\n]')
            self.assertIn(reason, error.reason)
            self.assertEqual((5, "nodes"), (error.line, error.field))

    def test_count_of_nodes(self):
        """As many nodes as fit, and no more."""
        nodes = [f"n{index}" for index in range(limits.DESCRIPTOR_NODES)]
        parsed = PARSER.parse(f"{KEY_LINE}nodes = {json.dumps(nodes)}")
        self.assertEqual(limits.DESCRIPTOR_NODES, len(parsed.nodes))
        self.assert_refused(f"nodes = {json.dumps([*nodes, 'x'])}", "more than", "nodes")

    def test_syntax(self):
        """What the parsers refuse is told with their words and line."""
        self.assert_refused("name = ", "no TOML: ", None)
        self.assert_refused("name: 'x'", "no TOML: ", None)
        self.assert_refused('name = "\\q"', "no TOML: ", None)
        error = self.refusal(f"{KEY_LINE}nodes = [\n")
        self.assertIn("no TOML: ", error.reason)
        error = self.refusal('{"hash_key":\n\n,}')
        self.assertEqual(("no JSON: Expecting value", 3), (error.reason, error.line))
        self.assertIn("no JSON", self.refusal('{"name": 1} {}').reason)
        self.assertIn("no JSON", self.refusal('{"name": 1, "length": NaNa}').reason)

    def test_bombs(self):
        """Texts that are hard on parsers are refused before they reach them."""
        size = limits.DESCRIPTOR_BYTES
        for text in (
            *("a" + ".a" * (size // 2 - 2) + "=1", "name" + ".a" * 20_000 + "=1"),
            *("name = " + "[" * 60_000, "name = " + "{a=" * 20_000, "{" * size, "[" * size),
            *('{"name":' * 8_000, '{"nodes":' + "[" * 60_000, "[name]\n" * 9_000),
            *("nodes = [" + "1," * 30_000 + "]", "\n" * (size - 1), '"""' * 20_000),
            "\n".join(f"k{index} = 1" for index in range(5_000)),
        ):
            self.refusal(text)

    def test_size(self):
        """A descriptor above the bound is refused whole, even were its beginning good."""
        fitting = KEY_LINE + "#" * (limits.DESCRIPTOR_BYTES - len(KEY_LINE))
        PARSER.parse(fitting)
        for text in (fitting + "#", (fitting + "#").encode(), "é" * 40_000, bytes(1 << 20)):
            self.assertIn("larger than", self.refusal(text).reason)
        nodes = ",\n".join(f'"10.1.{i >> 8 & 255}.{i & 255}:{1 + i % 9}"' for i in range(1_000_000))
        self.assertIn("larger than", self.refusal(f"{KEY_LINE}nodes = [{nodes}]").reason)

    def test_bytes_that_are_no_text(self):
        """Binary files are told apart, with the line."""
        for data, line, reason in (
            (KEY_LINE.encode() + b"\0", 2, "NUL"),
            (KEY_LINE.encode() + b"\n# \xff", 3, "not UTF-8"),
            (KEY_LINE.encode("utf-16"), 1, "UTF-16"),
            (b"\x7fELF\x02\x01\x01\x00", 1, "NUL"),
            (KEY_LINE + "# \udcff", 2, "not UTF-8"),
        ):
            error = self.refusal(data)
            self.assertEqual(line, error.line)
            self.assertIn(reason, error.reason)

    @given(st.data(), strategies.descriptors(), st.booleans())
    def test_mutations(self, data: st.DataObject, descriptor: Descriptor, as_json: bool):
        """A changed byte gives another descriptor, the same, or a DescriptorError."""
        text = descriptor.to_toml()
        whole = json.dumps(tomllib.loads(text)) if as_json else text
        mutated = data.draw(strategies.mutations(whole.encode()))
        try:
            parsed = PARSER.parse(mutated)
        except DescriptorError:
            return
        self.assertEqual(parsed, PARSER.parse(parsed.to_toml()))

    @given(st.text(max_size=60) | st.binary(max_size=60))
    def test_anything(self, text: str | bytes):
        """Any text and any bytes give DescriptorError: 64 digits are not hit by chance."""
        self.refusal(text)


class FileTests(TestCase):
    """Descriptors on disk, and what else a path may name."""

    def refusal(self, path: str) -> DescriptorError:
        """Return the error of a path that must not be read as a descriptor."""
        error: DescriptorError = self.assertRaises(DescriptorError, PARSER.parse_file, path)
        self.assertEqual(path, error.source)
        return error

    def test_file(self):
        """A file parses as its text; errors name it and the line."""
        path = self.mktemp()
        Path(path).write_text(FULL_TOML)
        self.assertEqual(FULL, PARSER.parse_file(path))
        self.assertEqual(path, PARSER.parse_file(path).source)
        Path(path).write_text(f"{KEY_LINE}length = 1e3")
        self.assertTrue(str(self.refusal(path)).startswith(f"{path}:2: length: "))

    def test_missing(self):
        """A missing file, a folder, and a path that cannot be are told apart."""
        self.assertIn("No such file", self.refusal("missing.desc").reason)
        self.assertIn("folder", self.refusal(".").reason)
        self.assertIn("null", self.refusal("a\0b").reason)

    def test_huge(self):
        """The content given in place of the descriptor is not read to its end."""
        path = self.mktemp()
        with Path(path).open("wb") as file:
            file.truncate(1 << 40)
        self.assertIn("larger than", self.refusal(path).reason)

    def test_special_files(self):
        """FIFOs and devices are refused without waiting."""
        path = self.mktemp()
        os.mkfifo(path)
        for special in (path, "/dev/zero", "/dev/null"):
            self.assertIn("no regular file", self.refusal(special).reason)


class UriTests(TestCase):
    """The one-line form."""

    def test_form(self):
        """hash_key, nodes and name on one line, nothing to quote but the whole."""
        expected = (
            f"p2pdist:{KEY_TEXT}?n=10.0.0.5:7667&n=[2001:db8::5]:99&n=seed.example.org:7667"
            "&name=a%20b.iso"
        )
        self.assertEqual(expected, FULL.to_uri())
        self.assertEqual(f"p2pdist:{KEY_TEXT}", Descriptor(hash_key=KEY).to_uri())

    @given(strategies.descriptors())
    def test_round_trip(self, descriptor: Descriptor):
        """What it carries comes back; the line is printable ASCII without blanks."""
        line = descriptor.to_uri()
        self.assertTrue(line.isascii() and line.isprintable() and " " not in line)
        expected = Descriptor(
            hash_key=descriptor.hash_key, nodes=descriptor.nodes, name=descriptor.name
        )
        self.assertEqual(expected, PARSER.parse_uri(line))

    def test_default_port(self):
        """A node without a port gets the default one."""
        parsed = PARSER.parse_uri(f"p2pdist:{KEY_TEXT}?n=a")
        self.assertEqual((HostPort("a", limits.DEFAULT_PORT),), parsed.nodes)

    def test_strictness(self):
        """Whatever could be a slip is refused."""
        good = f"p2pdist:{KEY_TEXT}"
        for line in (
            *("", "p2pdist:", KEY_TEXT, good.upper(), f" {good}", f"{good}\n", f"{good}?"),
            *(f"{good}&n=a", f"{good}?n", f"{good}?n=", f"{good}?n=a&", f"{good}?m=a", f"{good}#x"),
            *(f"{good}?name=", f"{good}?name=a&name=b", f"{good}?name=..", f"{good}?name=a%2fb"),
            *(f"{good}?name=%", f"{good}?name=%zz", f"{good}?name=%ff", f"{good}?name=é"),
            *(f"{good}?n=a&n=a", f"{good}?n=a:0", f"{good}?length=1", f"{good}?secret=x"),
            *(f"{good[:-1]}", f"{good}0", f"{good}?name={'%61' * limits.DESCRIPTOR_BYTES}"),
            good + "?" + "&".join(f"n=n{i}" for i in range(limits.DESCRIPTOR_NODES + 1)),
        ):
            error = self.assertRaises(DescriptorError, PARSER.parse_uri, line)
            self.assertTrue(str(error).isprintable())
            self.assertIsNone(error.line)

    @given(st.data(), strategies.descriptors())
    def test_mutations(self, data: st.DataObject, descriptor: Descriptor):
        """A changed byte gives a descriptor or a DescriptorError."""
        mutated = data.draw(strategies.mutations(descriptor.to_uri().encode()))
        try:
            parsed = PARSER.parse_uri(mutated.decode("latin-1"))
        except DescriptorError:
            return
        self.assertEqual(parsed, PARSER.parse_uri(parsed.to_uri()))


class MetadataTests(TestCase):
    """What was expected against what arrived."""

    def check(self, **expected: Any) -> None:
        """Compare expectations with a file of 5 bytes called ``a``."""
        metadata = Metadata(limits.PIECE_LENGTH_MIN, (FileEntry(("a",), 5),), bytes(32))
        Descriptor(hash_key=KEY, **expected).check_metadata(metadata)

    def test_agreement(self):
        """What agrees, or says nothing, passes."""
        self.check()
        self.check(name="a", length=5, piece_length=limits.PIECE_LENGTH_MIN, sha256="0" * 64)

    def test_contradictions(self):
        """Each contradiction names its field and both values."""
        for field, value in (("name", "b"), ("length", 4), ("piece_length", 1 << 20)):
            error = self.assertRaises(DescriptorError, self.check, **{field: value})
            self.assertEqual(field, error.field)
            self.assertIn(repr(value), error.reason)

    def test_sum_of_a_folder(self):
        """A SHA-256 sum with a folder could never be checked, so it is refused."""
        folder = Metadata(limits.PIECE_LENGTH_MIN, (FileEntry(("a", "b"), 0),), b"")
        Descriptor(hash_key=KEY).check_metadata(folder)
        descriptor = Descriptor(hash_key=KEY, sha256="0" * 64)
        error = self.assertRaises(DescriptorError, descriptor.check_metadata, folder)
        self.assertEqual("sha256", error.field)
