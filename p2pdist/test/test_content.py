"""Tests of names, piece hashes and metadata."""

from __future__ import annotations

import contextlib
import string

import msgpack
from blake3 import blake3
from hypothesis import strategies as st

from p2pdist import content, limits
from p2pdist.content import FileEntry, Metadata
from p2pdist.errors import (
    AuthenticationFailed,
    LocalProtocolError,
    MalformedMessage,
    OversizedMessage,
    UnsafeName,
)
from p2pdist.ids import HashKey
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

PIECE = limits.PIECE_LENGTH_MIN

GOOD_NAMES = (
    *("a", "model.safetensors", "a b", "12:30.log", ".gitattributes", "..a", "...a", "a-", "~a"),
    *("naïve", "日本語.txt", "C", "CON", "\N{SLICE OF PIZZA}", " a", "%s{0}$(x)", "x" * 255),
    *("p2pdist-part", "a.p2pdist-part", "'quote\""),
)
BAD_NAMES = {
    "is empty": ("",),
    "folder itself": (".", ".."),
    "slash": ("/", "a/b", "/etc/passwd", "../a", "a\\b", "..\\a", "a\0", "\0"),
    "control": (
        *("a\nb", "\x1b[31m", "a\x7f", "a\x85", "\t", "a\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe"),
        *("a\N{ZERO WIDTH SPACE}", "\N{BYTE ORDER MARK}a", "a\N{LINE SEPARATOR}", "\udcff"),
    ),
    "longer than": ("x" * 256, "é" * 128, "\N{SLICE OF PIZZA}" * 64),
    "normal form": ("e\N{COMBINING ACUTE ACCENT}", "\N{ANGSTROM SIGN}"),
    "hyphen": ("-", "-rf", "--output"),
    "dot or a space": ("a.", "a ", "...", " ", "a\N{NO-BREAK SPACE}"),
    "drive": ("C:", "c:a", "Z:x"),
    "unfinished": (".a.00000000.p2pdist-part", ".A.P2PDIST-STATE", "..p2pdist-x"),
}


class NameTests(TestCase):
    """The one gate for file names."""

    def test_usual_names_pass_unchanged(self):
        """Names that do no harm come back as they are."""
        for name in GOOD_NAMES:
            self.assertEqual(name, content.check_component(name))

    def test_each_rule_refuses(self):
        """A name that breaks a rule is refused, with that rule as the reason."""
        for reason, names in BAD_NAMES.items():
            for name in names:
                error = self.assertRaises(UnsafeName, content.check_component, name)
                self.assertIn(reason, error.reason)
                self.assertEqual(name, error.name)
                self.assertTrue(str(error).isprintable())

    def test_bytes_are_counted(self):
        """The bound is on bytes of UTF-8, which is what file systems count."""
        longest = "é" * (limits.NAME_BYTES // 2) + "x"
        self.assertEqual(longest, content.check_component(longest))
        self.assertRaises(UnsafeName, content.check_component, longest + "x")

    def test_no_name_is_remembered_wrongly(self):
        """More names than the cache keeps are still judged one by one."""
        for index in range(limits.NAME_CACHE + 10):
            content.check_component(f"n{index}")
        self.assertRaises(UnsafeName, content.check_component, "..")
        self.assertEqual("n0", content.check_component("n0"))

    @given(st.text(string.ascii_letters + string.digits + " .,_-+=@()~:\\/", max_size=70))
    def test_short_cut_agrees_with_rules(self, name: str):
        """What passes has no trait that a rule forbids (the short cut skips the rules)."""
        try:
            content.check_component(name)
        except UnsafeName:
            return
        self.assertTrue(name)
        self.assertNotIn(name[0], "-/\\")
        self.assertNotIn(name[-1], ". ")
        self.assertTrue({"/", "\\"}.isdisjoint(name))
        self.assertNotEqual(":", name[1:2] if name[0] in string.ascii_letters else "")

    @given(st.text(max_size=40))
    def test_any_text_passes_or_is_refused(self, name: str):
        """Nothing but the name itself or UnsafeName comes out."""
        try:
            self.assertEqual(name, content.check_component(name))
        except UnsafeName as error:
            self.assertTrue(str(error).isprintable())

    def test_paths(self):
        """A path is split, and each component is checked."""
        self.assertEqual(("a", ".b", "c d"), content.check_path("a/.b/c d"))
        for path in ("", "/a", "a/", "a//b", "a/../b", "a/./b", "a/-b", "a/b\\c"):
            self.assertRaises(UnsafeName, content.check_path, path)

    def test_path_bounds(self):
        """Depth and length of a path are bounded."""
        deepest = "/".join("a" * limits.PATH_DEPTH)
        self.assertEqual(limits.PATH_DEPTH, len(content.check_path(deepest)))
        self.assertRaises(UnsafeName, content.check_path, deepest + "/a")
        longest = "/".join([*["é" * 127 + "x"] * 15, "y" * 128, "z" * 127])
        self.assertEqual(limits.PATH_BYTES, len(longest.encode()))
        self.assertEqual(17, len(content.check_path(longest)))
        error = self.assertRaises(UnsafeName, content.check_path, longest + "z")
        self.assertIn("path", error.reason)


class PieceTests(TestCase):
    """Hashes and lengths of pieces."""

    def test_hash_is_blake3(self):
        """The empty piece has the hash the BLAKE3 paper gives; parts give the same as the whole."""
        expected = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        self.assertEqual(expected, content.hash_piece(b"").hex())
        parts = content.piece_hasher()
        parts.update(b"ab")
        parts.update(b"c")
        self.assertEqual(content.hash_piece(memoryview(b"abc")), parts.digest())

    def test_default_piece_lengths(self):
        """As small as PIECES_WANTED allows, within the usual bounds (decision 18)."""
        mib, gib, tib = limits.MIB, limits.GIB, limits.TIB
        wanted = limits.PIECES_WANTED * limits.PIECE_LENGTH_MIN
        for length, expected in (
            (0, limits.PIECE_LENGTH_MIN),
            (wanted, limits.PIECE_LENGTH_MIN),
            (wanted + 1, 2 * limits.PIECE_LENGTH_MIN),
            (gib, mib),
            (8 * gib, limits.PIECE_LENGTH_USUAL),
            (limits.PIECE_LENGTH_USUAL_TO, limits.PIECE_LENGTH_USUAL),
            (limits.PIECE_LENGTH_USUAL_TO + 1, limits.PIECE_LENGTH_MAX),
            (8 * tib, 16 * mib),
        ):
            self.assertEqual(expected, content.default_piece_length(length))

    @given(st.integers(0, limits.LENGTH_MAX))
    def test_default_piece_length_always_fits(self, length: int):
        """Every length up to the bound gets a piece length that may be."""
        content.check_piece_length(content.default_piece_length(length), length)

    def test_piece_length_bounds(self):
        """A power of two within bounds, and not too many pieces."""
        for good in (limits.PIECE_LENGTH_MIN, limits.PIECE_LENGTH_MAX):
            content.check_piece_length(good)
        for bad in (
            *(-1, 0, 1, 3, limits.PIECE_LENGTH_MIN // 2, limits.PIECE_LENGTH_MIN + 1),
            *(3 * limits.PIECE_LENGTH_MIN, limits.PIECE_LENGTH_MAX * 2, 1 << 40, -PIECE),
        ):
            self.assertRaises(ValueError, content.check_piece_length, bad)
        most = limits.PIECES_MAX * PIECE
        content.check_piece_length(PIECE, most)
        error = self.assertRaises(ValueError, content.check_piece_length, PIECE, most + 1)
        self.assertIn(f"must be {2 * PIECE} or more", str(error))


def metadata_of(*lengths: int, hashes: bytes | None = None) -> Metadata:
    """Return metadata of a folder of files with these lengths and no particular hashes."""
    files = tuple(FileEntry(("top", f"{i:06}"), length) for i, length in enumerate(lengths))
    count = content.piece_count(sum(lengths), PIECE)
    return Metadata(PIECE, files, bytes(32 * count) if hashes is None else hashes)


class MetadataTests(TestCase):
    """The value itself."""

    def test_single_file(self):
        """One component makes a single file; its facts can be read off."""
        metadata = Metadata(PIECE, (FileEntry(("a.iso",), PIECE + 1, True),), b"x" * 32 + b"y" * 32)
        self.assertEqual("a.iso", metadata.name)
        self.assertFalse(metadata.is_folder)
        self.assertEqual((PIECE + 1, 2), (metadata.length, metadata.count))
        self.assertEqual([b"x" * 32, b"y" * 32], [metadata.piece_hash(i) for i in range(2)])

    def test_folder(self):
        """A folder has its name in front of every path; its length is the sum."""
        metadata = metadata_of(3, 0, 4)
        self.assertEqual(
            ("top", True, 7, 1), (metadata.name, metadata.is_folder, metadata.length, 1)
        )

    def test_empty_file(self):
        """A file without bytes has no pieces and is legal."""
        metadata = Metadata(PIECE, (FileEntry(("empty",), 0),), b"")
        self.assertEqual((0, 0), (metadata.length, metadata.count))
        self.assertEqual(metadata, Metadata.decode(metadata.encode()))

    def test_no_such_piece(self):
        """Asking for a piece that is not there is our own bug, and said loudly."""
        metadata = metadata_of(1)
        for index in (-1, 1, 1 << 40):
            self.assertRaises(LocalProtocolError, metadata.piece_hash, index)
            self.assertRaises(LocalProtocolError, metadata.is_zero, index)

    def test_zero_pieces_are_known(self):
        """A piece of zeros is recognised by its hash, the short last one too; no other is."""
        last = content.hash_piece(bytes(5))
        whole = content.hash_piece(bytes(PIECE))
        hashes = whole + content.hash_piece(b"\1" + bytes(PIECE - 1)) + last
        metadata = metadata_of(2 * PIECE + 5, hashes=hashes)
        self.assertEqual([True, False, True], [metadata.is_zero(i) for i in range(3)])
        swapped = metadata_of(2 * PIECE + 5, hashes=last + whole + whole)
        self.assertEqual([False, True, False], [swapped.is_zero(i) for i in range(3)])

    def test_zero_hashes_of_many_sizes(self):
        """More sizes than are cached still give right hashes."""
        for size in range(1, limits.ZERO_HASHES + 5):
            metadata = metadata_of(size, hashes=content.hash_piece(bytes(size)))
            self.assertTrue(metadata.is_zero(0))

    def test_encoding_is_the_documented_one(self):
        """Canonical msgpack, byte for byte as in the protocol document."""
        files = (FileEntry(("d", "z"), 0), FileEntry(("d", "é"), 3, True))
        expected = "9401ce00010000 92 93a3642f7a0000 93a4642fc3a90301 c420" + "68" * 32
        self.assertEqual(bytes.fromhex(expected), Metadata(PIECE, files, b"h" * 32).encode())

    def test_hash_key_names_the_encoding(self):
        """hash_key is BLAKE3 of the encoding."""
        metadata = metadata_of(1, 2)
        self.assertEqual(blake3(metadata.encode()).digest(), metadata.hash_key())

    def test_rules_between_files(self):
        """Unsorted, doubled, mixed and overlapping paths make no metadata."""
        for paths in (
            (),
            ("a", "b"),
            ("d/b", "d/a"),
            ("d/a", "d/a"),
            ("d/a", "e/a"),
            ("d", "d/a"),
            ("d/a", "d/a-b", "d/a/c"),
        ):
            files = tuple(FileEntry(tuple(path.split("/")), 0) for path in paths)
            self.assertRaises(ValueError, Metadata, PIECE, files, b"")

    def test_bounds_of_numbers(self):
        """Lengths, sums and hash counts out of range make no metadata."""

        def make(*lengths: int, hashes: int = 0) -> Metadata:
            files = tuple(FileEntry(("d", str(i)), length) for i, length in enumerate(lengths))
            return Metadata(limits.PIECE_LENGTH_MAX, files, bytes(32 * hashes))

        self.assertEqual(
            limits.LENGTH_MAX, make(limits.LENGTH_MAX, hashes=limits.PIECES_MAX).length
        )
        for lengths, hashes in (
            ((limits.LENGTH_MAX + 1,), limits.PIECES_MAX + 1),
            ((limits.LENGTH_MAX, 1), limits.PIECES_MAX + 1),
            ((-1,), 0),
            ((-1, 1), 0),
            ((1,), 0),
            ((1,), 2),
        ):
            self.assertRaises(ValueError, make, *lengths, hashes=hashes)
        self.assertRaises(ValueError, metadata_of, 1, hashes=b"x" * 33)

    def test_names_inside_are_checked(self):
        """No metadata exists with a name that may not be opened."""
        for path in (("..",), ("d", ".."), ("d", "a/b"), ("d", ""), ("/",), ()):
            self.assertRaises(UnsafeName, Metadata, PIECE, (FileEntry(path, 0),), b"")


class DecodeTests(TestCase):
    """Metadata from strangers."""

    def refused(self, value: object) -> MalformedMessage:
        """Fail unless the msgpack of ``value`` is refused as malformed."""
        data = msgpack.packb(value)
        error: MalformedMessage = self.assertRaises(MalformedMessage, Metadata.decode, data)
        return error

    @given(strategies.metadatas())
    def test_round_trip(self, metadata: Metadata):
        """What was encoded decodes to the same, by hash_key too."""
        data = metadata.encode()
        self.assertEqual(metadata, Metadata.decode(data))
        self.assertEqual(metadata, content.decode_metadata(data, metadata.hash_key()))

    @given(st.data(), strategies.metadatas())
    def test_mutations_are_refused_or_canonical(self, data: st.DataObject, metadata: Metadata):
        """A changed byte gives the documented error, or a metadata with just this encoding."""
        mutated = data.draw(strategies.mutations(metadata.encode()))
        self.assertRaises(
            AuthenticationFailed, content.decode_metadata, mutated, metadata.hash_key()
        )
        with contextlib.suppress(MalformedMessage):
            self.assertEqual(mutated, Metadata.decode(mutated).encode())

    @given(strategies.hostile_msgpack())
    def test_hostile_bytes_are_refused(self, data: bytes):
        """Whatever the bytes are, only MalformedMessage comes out."""
        self.assertRaises(MalformedMessage, Metadata.decode, data)

    def test_every_cut_is_refused(self):
        """No part of an encoding and nothing longer decodes."""
        data = metadata_of(1, 2).encode()
        for end in range(len(data)):
            self.assertRaises(MalformedMessage, Metadata.decode, data[:end])
        self.assertRaises(MalformedMessage, Metadata.decode, data + b"\0")

    def test_wrong_types_are_refused(self):
        """Every field has one type; true is no number."""
        good = [1, PIECE, [["a", 1, 0]], bytes(32)]
        Metadata.decode(msgpack.packb(good))
        for place, value in (
            *((0, 2), (0, True), (0, "1"), (1, 1.0), (1, str(PIECE)), (1, -PIECE), (1, 1 << 63)),
            *(
                (2, "a"),
                (2, {}),
                (2, []),
                (2, [[]]),
                (2, [1]),
                (2, [["a", 1]]),
                (2, [["a", 1, 0, 0]]),
            ),
            *((2, [[b"a", 1, 0]]), (2, [["a", True, 0]]), (2, [["a", 1.0, 0]]), (2, [["a", 1, 2]])),
            *((2, [["a", 1, 3]]), (2, [["a", -1, 0]]), (2, [["a", 1, None]]), (2, [[["a"], 1, 0]])),
            *((2, [["../a", 1, 0]]), (2, [["/a", 1, 0]]), (2, [["a/", 1, 0]]), (2, [["", 1, 0]])),
            *((3, "x" * 32), (3, b""), (3, bytes(64)), (3, None), (3, [0] * 32)),
        ):
            value_in_place = [*good[:place], value, *good[place + 1 :]]
            self.refused(value_in_place)
        self.refused(good[:3])
        self.refused([*good, 0])

    def test_other_encodings_are_refused(self):
        """A longer way to write the same value would be a second hash_key of one content."""
        data = metadata_of(1).encode()
        self.assertEqual(b"\x94\x01", data[:2])
        for other in (b"\xdc\x00\x04\x01", b"\x94\xcc\x01", b"\x94\xd0\x01"):
            self.assertRaises(MalformedMessage, Metadata.decode, other + data[2:])

    def test_size_is_bounded(self):
        """Metadata above the bound is refused unread, by both ways in."""
        data = bytes(limits.METADATA_BYTES + 1)
        self.assertRaises(OversizedMessage, Metadata.decode, data)
        self.assertRaises(OversizedMessage, content.decode_metadata, data, HashKey(bytes(32)))
        self.assertRaises(MalformedMessage, Metadata.decode, data[1:])

    def test_counts_are_bounded(self):
        """Too many files or path components are refused before they take memory."""
        head = msgpack.packb([1, PIECE])[1:]
        many = b"\x94" + head + b"\xdd" + (limits.FILES_MAX + 1).to_bytes(4, "big")
        error = self.assertRaises(MalformedMessage, Metadata.decode, many)
        self.assertIn(str(limits.FILES_MAX + 1), str(error))
        deep = "a/" * (limits.PATH_DEPTH - 1)
        count = limits.COMPONENTS_MAX // limits.PATH_DEPTH + 1
        error = self.refused([1, PIECE, [[f"{deep}{i:06}", 0, 0] for i in range(count)], b""])
        self.assertIn(str(limits.COMPONENTS_MAX), str(error))

    def test_right_bytes_only(self):
        """Bytes that hash_key does not name are refused before they are looked at."""
        data = metadata_of(1).encode()
        error = self.assertRaises(
            AuthenticationFailed, content.decode_metadata, data, HashKey(bytes(32))
        )
        self.assertEqual("metadata-hash", error.rule)

    def test_right_bytes_that_are_no_metadata(self):
        """A hash_key of something else gives MalformedMessage."""
        data = b"no metadata"
        hash_key = HashKey(content.hash_piece(data))
        self.assertRaises(MalformedMessage, content.decode_metadata, data, hash_key)
