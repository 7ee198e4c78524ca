"""What keeps large contents and many files cheap: holes, blocks, packed lists, resting handles."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from p2pdist import limits
from p2pdist.content import FileEntry, FileList, Metadata, hash_piece, zero_hash
from p2pdist.errors import UnsafeName
from p2pdist.source import _Reader, build_metadata, next_data, scan
from p2pdist.storage.layout import Layout
from p2pdist.storage.tree import FileTree
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import DATA, PIECE, Storehouse, content, folder, one_file
from p2pdist.test.support import TestCase


class FileListTests(TestCase):
    """Files, packed."""

    entries = tuple(FileEntry(("top", f"é{number}"), number, number == 2) for number in range(5))

    def test_is_the_sequence_it_was_made_of(self) -> None:
        """By index from either end, by slice, in order; equal to another of the same."""
        files = FileList(self.entries)
        self.assertEqual(self.entries, tuple(files))
        self.assertEqual(self.entries[-2], files[-2])
        self.assertEqual(self.entries[1:4], files[1:4])
        self.assertRaises(IndexError, files.__getitem__, 5)
        self.assertEqual(FileList(self.entries), files)
        self.assertEqual(hash(FileList(self.entries)), hash(files))
        self.assertNotEqual(FileList(self.entries[1:]), files)
        self.assertEqual("<5 files>", repr(files))

    def test_refuses_what_it_could_not_give_back(self) -> None:
        """A slash inside a component, a length no file has."""
        self.assertRaises(UnsafeName, FileList, [FileEntry(("a/b",), 1)])
        for length in (-1, limits.LENGTH_MAX + 1):
            self.assertRaises(ValueError, FileList().add, "a", length, executable=False)

    def test_takes_little_more_than_its_bytes(self) -> None:
        """No object per file is kept: 17 bytes each beside the path, and room to grow."""
        files = FileList(FileEntry(("top", f"{number:06}"), number) for number in range(10_000))
        kept = sum(sys.getsizeof(getattr(files, name)) for name in FileList.__slots__)
        self.assertLess(kept, 10_000 * (len("top/000000") + 17) * 5 / 4)

    def test_a_path_cannot_be_file_and_folder_far_apart(self) -> None:
        """Whatever sorts between the two."""
        names = (("a",), ("a!",), ("a!", "x"), ("a-b",), ("a", "b"))
        paths = sorted((("top", *name) for name in names if name != ("a!", "x")), key="/".join)
        clash = tuple(FileEntry(path, 0) for path in paths)
        self.assertRaises(ValueError, Metadata, PIECE, clash, b"")
        fine = tuple(entry for entry in clash if entry.joined != "top/a")
        self.assertEqual(3, len(Metadata(PIECE, fine, b"").files))


class SourceTests(TestCase):
    """Making metadata of real files."""

    def setUp(self) -> None:
        """Write a file with holes in which pieces lie, and pieces that only touch them."""
        self.path = Path(self.mktemp())
        self.size = 40 * PIECE + 100
        with self.path.open("wb") as file:
            file.truncate(self.size)
            file.seek(11 * PIECE + 7)
            file.write(b"data")
            file.seek(30 * PIECE - 2)
            file.write(b"data")
        self.data = self.path.read_bytes()

    def test_holes_are_not_read(self) -> None:
        """What the file system calls a hole is known to be zeros; the hashes are the same."""
        read: list[int] = []
        real = _Reader.read_into

        def read_into(reader: _Reader, view: memoryview, offset: int) -> None:
            read.append(offset // PIECE)
            real(reader, view, offset)

        self.patch(_Reader, "read_into", read_into)
        metadata = build_metadata(scan(str(self.path)), PIECE)
        for index in range(metadata.count):
            piece = self.data[index * PIECE : (index + 1) * PIECE]
            self.assertEqual(hash_piece(piece), metadata.piece_hash(index))
        with self.path.open("rb") as file:
            if next_data(file.fileno(), 0) > PIECE:  # else this file system tells no holes
                self.assertEqual({11, 29, 30}, set(read))

    def test_where_holes_cannot_be_told(self) -> None:
        """Everything is data then; behind the last data comes the end."""
        with self.path.open("rb") as file:
            self.assertEqual(self.size, next_data(file.fileno(), self.size))
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.assertEqual(5, next_data(reading, 5))


class HoleTests(TestCase):
    """Pieces in holes of files of a tree."""

    def tree(self, *lengths: int) -> FileTree:
        """Make sparse files of these lengths."""
        self.disk = SimDisk()
        self.disk.put_folder("/data")
        files = tuple(FileEntry(("top", f"{n}"), length) for n, length in enumerate(lengths))
        tree = FileTree(self.disk, "/data", "top", files, writable=True)
        tree.make(allocate=False)
        return tree

    def test_only_whole_pieces_inside_one_hole(self) -> None:
        """None that two files share, none with data; the short last one counts."""
        tree = self.tree(5 * PIECE + 10, 10, 6 * PIECE)
        tree.write(2 * PIECE + 5, b"x")
        self.assertEqual([0, 1, 3, 4, *range(6, 12)], list(tree.holes(PIECE)))

    def test_data_anywhere_is_never_a_hole(self) -> None:
        """One byte in any place keeps its piece, and no other, from being one."""
        for offset in range(0, 8 * PIECE, PIECE // 3):
            tree = self.tree(PIECE // 2, 7 * PIECE)
            expected = set(tree.holes(PIECE))
            tree.write(min(offset, tree.layout.length - 1), b"x")
            self.assertEqual(expected - {offset // PIECE}, set(tree.holes(PIECE)))

    def test_files_that_are_missing_or_short_have_none_there(self) -> None:
        """What is not there is no hole, so it is not taken for zeros."""
        tree = self.tree(4 * PIECE, 4 * PIECE)
        self.disk.remove("/data/top/0")
        self.disk.put("/data/top/1", bytes(PIECE))
        self.assertEqual([], list(tree.holes(PIECE)))

    def test_a_sparse_target_is_checked_without_reading_it(self) -> None:
        """Survey and resume ask the disk for the pieces with data only."""
        house = Storehouse(content({"file.bin": 50 * PIECE + 9}, zeros=tuple(range(1, 51))))
        store = self.result_of(house.create())
        self.result_of(store.write_piece(0, house.content.piece(0)))
        self.result_of(store.publish())
        self.result_of(store.close())
        house.disk.remove(house.record)
        house.disk.calls.clear()
        found = self.result_of(house.locate())
        assert found is not None
        self.assertTrue(found.complete)
        reads = [call for call in house.disk.calls if call.startswith("read ")]
        self.assertLess(len(reads), 10)

    def test_zero_hash(self) -> None:
        """It is the hash of so many zeros."""
        self.assertEqual(hash_piece(bytes(1000)), zero_hash(1000))


class BlockTests(TestCase):
    """Reading in blocks."""

    def test_pieces_are_hashed_block_by_block(self) -> None:
        """No read is longer than HASH_READ_BYTES, whatever the piece; what is kept is right."""
        self.patch(limits, "HASH_READ_BYTES", 1000)
        house = Storehouse(folder())
        house.put_target()
        metadata = house.content.metadata
        tree = FileTree(house.disk, DATA, "tree", metadata.files)
        house.disk.calls.clear()
        for keep in (slice(0, 0), slice(0, 1), slice(999, 2001), slice(500, PIECE)):
            found, kept = tree.hash(PIECE, PIECE, keep)
            self.assertEqual(metadata.piece_hash(1), found)
            self.assertEqual(house.content.piece(1)[keep], kept)
        sizes = [int(c.rpartition("+")[2]) for c in house.disk.calls if c.startswith("read ")]
        self.assertGreater(len(sizes), 100)
        self.assertLessEqual(max(sizes), 1000)

    def test_a_packed_list_gives_the_same_layout(self) -> None:
        """Lengths are taken from the list itself."""
        metadata = folder().metadata
        tree = FileTree(SimDisk(), "/", "tree", metadata.files)
        self.assertEqual(Layout(e.length for e in metadata.files), tree.layout)


class RestTests(TestCase):
    """Handles of contents nobody asks for."""

    def complete(self) -> tuple[Storehouse, int]:
        """Put a complete content there, known by its record; return the handles open now."""
        house = Storehouse(one_file())
        house.put_target()
        store = self.result_of(house.locate())
        assert store is not None
        self.result_of(store.close())
        return house, house.disk.open_handles

    def test_a_seed_that_was_never_asked_holds_no_handle(self) -> None:
        """A thousand of them fit under the usual limit of 1024 files."""
        house, before = self.complete()
        self.assertIsNot(None, self.result_of(house.locate()))
        self.assertEqual(before, house.disk.open_handles)

    def test_rest_and_go_on(self) -> None:
        """Resting gives back all handles; the next read opens what it needs."""
        house, before = self.complete()
        store = self.result_of(house.locate())
        assert store is not None
        for _ in range(2):
            self.assertEqual(house.content.piece(1)[:9], self.result_of(store.read(1, 0, 9)))
            self.assertGreater(house.disk.open_handles, before)
            store.rest()
            store.rest()
            self.assertEqual(before, house.disk.open_handles)
        self.result_of(store.close())
        store.rest()
        self.assertEqual(before, house.disk.open_handles)

    def test_a_download_does_not_rest(self) -> None:
        """Its part stays open."""
        house = Storehouse(one_file())
        store = self.result_of(house.create())
        self.result_of(store.write_piece(0, house.content.piece(0)))
        handles = house.disk.open_handles
        store.rest()
        self.assertEqual(handles, house.disk.open_handles)
        self.result_of(store.close())


class ManyFilesTests(TestCase):
    """Serving parts of pieces with many files."""

    def test_only_the_files_asked_for_are_looked_at(self) -> None:
        """A verified piece of a hundred files is not opened as a whole for each of its blocks."""
        house = Storehouse(content({f"tree/{n:03}": 100 for n in range(100)}))
        house.put_target()
        store = self.result_of(house.locate())
        assert store is not None
        self.result_of(store.read(0, 0, 100))
        self.patch(limits, "OPEN_FILES", 1)
        house.disk.calls.clear()
        self.assertEqual(house.content.piece(0)[150:250], self.result_of(store.read(0, 150, 100)))
        opened = [call for call in house.disk.calls if call.startswith("open_file ")]
        self.assertLessEqual(len(opened), 4)
