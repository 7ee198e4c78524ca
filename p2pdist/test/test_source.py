"""Tests of finding and hashing what is to be distributed."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.content import FileEntry, Metadata, hash_piece
from p2pdist.errors import ConfigurationError, StorageError, UnsafeName
from p2pdist.source import Source, build_metadata, scan, sha256_of
from p2pdist.test.support import TestCase, given

PIECE = limits.PIECE_LENGTH_MIN


class DiskCase(TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        """Make the folder."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)

    def write(self, path: str, data: bytes = b"") -> Path:
        """Write a file, making its folders."""
        location = self.folder / path
        location.parent.mkdir(parents=True, exist_ok=True)
        location.write_bytes(data)
        return location

    def scan(self, path: str = "", name: str | None = None) -> Source:
        """Scan a path inside the folder."""
        return scan(str(self.folder / path), name)

    def assert_refused(self, text: str, path: str = "top") -> None:
        """Fail unless scanning raises a StorageError that says ``text``."""
        self.assertIn(text, str(self.assertRaises(StorageError, self.scan, path)))


class ScanTests(DiskCase):
    """Which files a path names."""

    def test_single_file(self):
        """A file is one entry, called as it is or as asked."""
        location = self.write("a.iso", b"abc")
        location.chmod(0o755)
        found = self.scan("a.iso")
        self.assertEqual([(("a.iso",), 3, True)], [_facts(entry) for entry in found.entries])
        self.assertEqual(("a.iso", False, 3), (found.name, found.is_folder, found.length))
        self.assertEqual("b.iso", self.scan("a.iso", "b.iso").name)

    def test_folder_is_sorted_by_whole_path(self):
        """Files come sorted by the bytes of their joined paths; empty folders are left out."""
        for path in ("top/b", "top/a/z", "top/a.b", "top/a-", "top/.hidden"):
            self.write(path)
        (self.folder / "top/nothing/inside").mkdir(parents=True)
        found = self.scan("top/")
        expected = ["top/.hidden", "top/a-", "top/a.b", "top/a/z", "top/b"]
        self.assertEqual(expected, [entry.joined for entry in found.entries])
        self.assertTrue(found.is_folder)

    def test_dots_name_the_folder_meant(self):
        """``.`` and ``..`` take the name of the folder they stand for."""
        self.write("top/inner/a")
        self.assertEqual("top", self.scan("top/.").name)
        self.assertEqual("top", self.scan("top/inner/..").name)

    def test_links(self):
        """Links to files are followed, links to folders inside refused, a given link is meant."""
        self.write("elsewhere/a", b"12345")
        (self.folder / "top").mkdir()
        (self.folder / "top/file").symlink_to("../elsewhere/a")
        (self.folder / "given").symlink_to("top")
        self.assertEqual([5], [entry.length for entry in self.scan("top").entries])
        self.assertEqual("given", self.scan("given").name)
        (self.folder / "top/folder").symlink_to("../elsewhere")
        self.assert_refused("link to a folder")

    def test_dangling_link(self):
        """A link to nothing is named."""
        self.write("top/a")
        (self.folder / "top/b").symlink_to("nowhere")
        self.assert_refused("top/b")

    def test_other_kinds_are_refused(self):
        """FIFOs and devices are refused without opening them, inside and as the path itself."""
        self.write("top/a")
        os.mkfifo(self.folder / "top/pipe")
        self.assert_refused("neither a file nor a folder")
        self.assert_refused("neither a file nor a folder", "top/pipe")
        self.assertRaises(StorageError, scan, "/dev/null")

    def test_nothing_there(self):
        """A missing path, an empty folder and an impossible path are refused by name."""
        (self.folder / "top").mkdir()
        self.assert_refused("holds no file")
        self.assert_refused("missing", "missing")
        self.assert_refused("cannot read", "a\0b/c")

    def test_bad_names_are_found(self):
        """A file that receivers would refuse is named with its whole path."""
        self.write("top/good/-rf")
        error = self.assertRaises(UnsafeName, self.scan, "top")
        self.assertEqual("top/good/-rf", error.name)
        self.assertRaises(UnsafeName, self.scan, "top/good/-rf")
        self.assertEqual("rf", self.scan("top/good/-rf", "rf").name)
        self.assertRaises(UnsafeName, self.scan, "top/good/-rf", "a/b")

    def test_undecodable_names_are_found(self):
        """A name that is no UTF-8 is refused, in words that can be printed."""
        self.write("top/a")
        Path(os.fsdecode(os.fsencode(self.folder / "top") + b"/\xff")).write_bytes(b"")
        error = self.assertRaises(UnsafeName, self.scan, "top")
        self.assertTrue(str(error).isprintable())

    def test_our_own_leftovers_are_found(self):
        """An unfinished download inside is not distributed by accident."""
        self.write("top/.a.12345678.p2pdist-part")
        self.assertIn("unfinished", self.assertRaises(UnsafeName, self.scan, "top").reason)

    def test_depth_is_bounded(self):
        """Folders nested beyond the bound are refused."""
        inside = "/".join("a" * (limits.PATH_DEPTH - 1))
        self.write(f"{inside}/b")
        self.assertEqual(limits.PATH_DEPTH, len(self.scan("a").entries[0].path))
        (self.folder / inside / "c").mkdir()
        self.assertRaises(UnsafeName, self.scan, "a")

    def test_length_is_bounded(self):
        """More bytes than a content may have are refused (as holes, they cost no disk)."""
        for index in range(2):
            with self.write(f"top/{index}").open("r+b") as file:
                file.truncate(limits.LENGTH_MAX // 2 + 1)
        self.assert_refused(str(limits.LENGTH_MAX))

    def test_count_is_bounded(self):
        """More files than a content may have are refused."""
        self.patch(limits, "FILES_MAX", 3)
        for index in range(3):
            self.write(f"top/{index}")
        self.scan("top")
        self.write("top/one too many")
        self.assert_refused(f"more than {limits.FILES_MAX} files")


class BuildTests(DiskCase):
    """From files to metadata."""

    def build(self, path: str, threads: int = 1) -> Metadata:
        """Scan and hash a path."""
        return build_metadata(self.scan(path), PIECE, threads=threads)

    def test_single_file(self):
        """Each piece is hashed, the last at its real size."""
        data = _noise(PIECE) + bytes(PIECE) + b"the end"
        self.write("a", data)
        metadata = self.build("a")
        pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        self.assertEqual(
            [hash_piece(p) for p in pieces], [metadata.piece_hash(i) for i in range(3)]
        )
        self.assertEqual([False, True, False], [metadata.is_zero(i) for i in range(3)])

    def test_empty_file(self):
        """A file without bytes has no pieces."""
        self.write("a")
        self.assertEqual(0, self.build("a", threads=2).count)

    @given(
        st.lists(st.integers(0, 3) | st.integers(0, 3 * PIECE), min_size=1, max_size=8),
        st.integers(1, 3),
    )
    def test_folder_is_one_run_of_bytes(self, lengths: list[int], threads: int):
        """Files are laid end to end, whatever their lengths, and however many threads hash."""
        self.folder = Path(self.mktemp())
        whole = b""
        for index, length in enumerate(lengths):
            data = bytes([65 + index]) * length
            self.write(f"top/{index}", data)
            whole += data
        metadata = self.build("top", threads)
        expected = b"".join(hash_piece(whole[i : i + PIECE]) for i in range(0, len(whole), PIECE))
        self.assertEqual(expected, metadata.piece_hashes)
        self.assertEqual(metadata, Metadata.decode(metadata.encode()))

    def test_pieces_larger_than_one_read(self):
        """A piece of many reads has the hash of the whole."""
        data = _noise(2 * limits.HASH_READ_BYTES + 77)
        self.write("a", data)
        metadata = build_metadata(self.scan("a"), limits.PIECE_LENGTH_MAX)
        self.assertEqual(hash_piece(data), metadata.piece_hashes)

    def test_progress_rises_to_the_end(self):
        """Progress is told after each piece, in rising order, and ends at the total."""
        self.write("a", bytes(3 * PIECE + 1))
        for threads in (1, 2):
            told: list[tuple[int, ...]] = []

            def progress(*step: int, told: list[tuple[int, ...]] = told) -> None:
                told.append(step)

            build_metadata(self.scan("a"), PIECE, progress=progress, threads=threads)
            self.assertEqual(4, len(told))
            self.assertEqual(sorted(told), told)
            self.assertEqual((3 * PIECE + 1, 3 * PIECE + 1), told[-1])

    def test_piece_length_is_checked(self):
        """A piece length that may not be is refused as configuration."""
        self.write("a", b"x")
        for bad in (0, 1, PIECE + 1, 2 * limits.PIECE_LENGTH_MAX):
            self.assertRaises(ConfigurationError, build_metadata, self.scan("a"), bad)

    def test_metadata_size_is_checked_first(self):
        """Too many files for metadata are refused before any hashing."""
        self.write("top/a" + "x" * 200, b"x")
        for bound, value in (("METADATA_BYTES", 200), ("COMPONENTS_MAX", 1)):
            self.patch(limits, bound, value)
            told: list[object] = []
            error = self.assertRaises(
                StorageError, build_metadata, self.scan("top"), PIECE, progress=told.append
            )
            self.assertIn("too large", str(error))
            self.assertEqual([], told)


class ChangeTests(DiskCase):
    """Files that do not keep still."""

    def assert_noticed(self, change: Callable[[Path], object], threads: int = 1) -> None:
        """Fail unless a change after the first piece is found out and the file named."""
        location = self.write("top/moving", bytes(4 * PIECE))
        self.write("top/other", bytes(PIECE))
        found = self.scan("top")
        changed: list[object] = []

        def progress(_done: int, _total: int) -> None:
            if not changed:
                changed.append(change(location))

        error = self.assertRaises(
            StorageError, build_metadata, found, PIECE, progress=progress, threads=threads
        )
        self.assertIn("moving", str(error))

    def test_growth(self):
        """A file that grows is found out."""
        self.assert_noticed(lambda path: _append(path, b"more"))

    def test_shrinking(self):
        """A file that shrinks is found out, by several threads too."""
        self.assert_noticed(lambda path: os.truncate(path, 5), threads=2)

    def test_rewriting(self):
        """A file of the same size with a new mtime is found out."""
        self.assert_noticed(lambda path: os.utime(path, ns=(1, 1)))

    def test_replacement(self):
        """Another file under the same name is found out."""

        def replace(path: Path) -> None:
            status = path.stat()
            path.rename(path.with_name("old"))
            path.write_bytes(bytes(4 * PIECE))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        self.assert_noticed(replace)

    def test_removal(self):
        """A file that goes away is found out."""
        self.assert_noticed(lambda path: path.unlink())

    def test_fifo_in_its_place(self):
        """A FIFO put in the place of a file hangs nobody."""
        self.write("top/a", bytes(PIECE))
        found = self.scan("top")
        (self.folder / "top/a").unlink()
        os.mkfifo(self.folder / "top/a")
        self.assertRaises(StorageError, build_metadata, found, PIECE)

    def test_before_the_first_read(self):
        """A change between finding and reading is found out, and a missing file named."""
        self.write("top/a", b"x")
        found = self.scan("top")
        self.write("top/a", b"xy")
        told: list[object] = []
        self.assertRaises(StorageError, build_metadata, found, PIECE, progress=told.append)
        self.assertEqual([], told)
        (self.folder / "top/a").unlink()
        error = self.assertRaises(StorageError, build_metadata, found, PIECE, threads=2)
        self.assertIn("cannot read", str(error))

    def test_progress_that_raises_ends_the_work(self):
        """What the progress callback raises comes out, and no thread is left behind."""
        self.write("a", bytes(8 * PIECE))

        def progress(_done: int, _total: int) -> None:
            raise KeyError

        for threads in (1, 3):
            self.assertRaises(
                KeyError, build_metadata, self.scan("a"), PIECE, progress=progress, threads=threads
            )


class Sha256Tests(DiskCase):
    """The sum that sha256sum prints."""

    def test_sum(self):
        """The sum of a single file, with progress up to the end."""
        data = _noise(limits.HASH_READ_BYTES + 5)
        self.write("a", data)
        told: list[tuple[int, int]] = []
        found = self.scan("a")
        expected = hashlib.sha256(data).hexdigest()
        self.assertEqual(expected, sha256_of(found, lambda *step: told.append(step)))
        self.assertEqual((len(data), len(data)), told[-1])

    def test_empty(self):
        """An empty file has the well-known sum."""
        self.write("a")
        self.assertEqual(hashlib.sha256().hexdigest(), sha256_of(self.scan("a")))

    def test_changes_are_noticed(self):
        """A file that changed gives no sum."""
        self.write("a", b"x")
        found = self.scan("a")
        self.write("a", b"yy")
        self.assertRaises(StorageError, sha256_of, found)

    def test_folders_have_none(self):
        """A folder has no such sum."""
        self.write("top/a")
        self.assertRaises(ConfigurationError, sha256_of, self.scan("top"))


def _noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


def _facts(entry: FileEntry) -> tuple[tuple[str, ...], int, bool]:
    return entry.path, entry.length, entry.executable


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
