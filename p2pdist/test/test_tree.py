"""Tests of :mod:`p2pdist.storage.tree`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.content import FileEntry
from p2pdist.storage.disk import Access, NotAFile
from p2pdist.storage.realdisk import RealDisk
from p2pdist.storage.tree import FileTree, identity
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.support import TestCase, given


def entries(*lengths: int) -> tuple[FileEntry, ...]:
    """Return files of these lengths, spread over folders."""
    return tuple(
        FileEntry(("top", f"{number // 3:03}", f"{number:06}"), length)
        for number, length in enumerate(lengths)
    )


def tree_on(disk: SimDisk, files: tuple[FileEntry, ...], **changes: bool) -> FileTree:
    """Return a tree in /data under another name than the content's."""
    disk.put_folder("/data")
    return FileTree(disk, "/data", "elsewhere", files, **{"writable": True, **changes})


class ByteTests(TestCase):
    """The files as one run of bytes."""

    @given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
    def test_reads_what_was_written(self, lengths: list[int], data: st.DataObject) -> None:
        """Whatever ranges are written, the files together are what one buffer would be."""
        disk = SimDisk()
        tree = tree_on(disk, entries(*lengths))
        tree.make(allocate=False)
        model = bytearray(sum(lengths))
        for _ in range(data.draw(st.integers(0, 5))):
            start = data.draw(st.integers(0, len(model)))
            chunk = data.draw(st.binary(max_size=len(model) - start))
            tree.write(start, memoryview(chunk))
            model[start : start + len(chunk)] = chunk
        start = data.draw(st.integers(0, len(model)))
        self.assertEqual(bytes(model[start:]), tree.read(start, len(model) - start))
        self.assertEqual(bytes(model), b"".join(disk.get(path) for path in disk.paths("/data")))

    def test_short_file_is_an_error(self) -> None:
        """Bytes that are not there are not made up."""
        disk = SimDisk()
        tree = tree_on(disk, entries(5, 5))
        tree.make(allocate=False)
        disk.put(disk.paths()[0], b"abc")
        self.assertEqual(errno.EIO, self.assertRaises(OSError, tree.read, 0, 10).errno)
        self.assertFalse(tree.lengths_right())


class LendingTests(TestCase):
    """Bytes where they lie."""

    def setUp(self) -> None:
        """Two real files."""
        folder = self.mktemp()
        Path(folder).mkdir()
        self.tree = FileTree(RealDisk(), folder, "top", entries(5, 5), writable=True)
        self.tree.make(allocate=False)
        self.tree.write(0, b"abcdefghij")

    def test_lends_across_files(self) -> None:
        """A loan names the bytes, and keeps the files open until all its users are done."""
        loan = self.tree.lend(3, 4)
        assert loan is not None
        stretches = loan.cut(1, 3)
        self.tree.close()
        loan.release()
        found = [os.pread(s.handle, s.size, s.offset) for s in stretches]
        self.assertEqual([b"e", b"fg"], found)
        for stretch in stretches:
            os.fstat(stretch.handle)
            self.assertIsNone(stretch.after(stretch.size))
        for stretch in stretches:
            self.assertRaises(OSError, os.fstat, stretch.handle)

    def test_short_file_is_not_lent(self) -> None:
        """Bytes that are not there are not promised, and no file stays open for them."""
        with self.tree.borrow(1) as handle:
            os.ftruncate(handle, 1)
        self.assertEqual(errno.EIO, self.assertRaises(OSError, self.tree.lend, 0, 10).errno)
        self.tree.close()
        self.assertRaises(OSError, os.fstat, handle)

    def test_simulated_files_are_not_lent(self) -> None:
        """Where nothing can be sent from a handle there is no loan."""
        tree = tree_on(SimDisk(), entries(5))
        tree.make(allocate=False)
        self.assertIsNone(tree.lend(0, 5))


class HandleTests(TestCase):
    """Open files."""

    def test_open_files_are_bounded(self) -> None:
        """Never more than ``limits.OPEN_FILES`` of them, however many there are."""
        disk = SimDisk()
        tree = tree_on(disk, entries(*[1] * (3 * limits.OPEN_FILES)))
        tree.make(allocate=False)
        before = disk.open_handles
        for offset in range(tree.layout.length):
            tree.write(offset, b"x")
        self.assertEqual(limits.OPEN_FILES, disk.open_handles - before)
        tree.close()
        self.assertEqual(0, disk.open_handles)

    def test_files_in_use_stay_open(self) -> None:
        """A borrowed handle survives others, and what seals the tree."""
        disk = SimDisk()
        tree = tree_on(disk, entries(*[1] * (limits.OPEN_FILES + 9)))
        tree.make(allocate=False)
        with tree.borrow(0) as handle:
            for file in range(1, len(tree.files)):
                with tree.borrow(file):
                    pass
            tree.seal()
            disk.write(handle, 0, b"y")
        self.assertEqual(b"y", disk.get("/data/elsewhere/000/000000"))
        tree.close()
        self.assertEqual(0, disk.open_handles)

    def test_sealed_files_are_read_only(self) -> None:
        """After the seal, files are opened for reading."""
        disk = SimDisk()
        tree = tree_on(disk, entries(4))
        tree.make(allocate=False)
        tree.read(0, 4)
        tree.seal()
        tree.read(0, 4)
        opened = [call for call in disk.calls if call.startswith("open_file")]
        self.assertEqual(f"open_file {Access.READ.name} 000000", opened[-1])

    def test_neighbours_share_the_way(self) -> None:
        """Making many files in one folder does not open the folder again for each."""
        disk = SimDisk()
        files = tuple(FileEntry(("top", "deep", "er", f"{n:04}"), 0) for n in range(500))
        tree = tree_on(disk, files)
        tree.make(allocate=False)
        ways = [call for call in disk.calls if call.startswith("open_directory")]
        self.assertLess(len(ways), 10)


class ThreatTests(TestCase):
    """What local users may have put there."""

    def test_links_on_the_way_are_refused(self) -> None:
        """Neither a folder nor a file of the tree may be a link."""
        disk = SimDisk()
        disk.put("/outside/000000", b"secret")
        disk.put_link("/data/elsewhere/000", "/outside")
        tree = tree_on(disk, entries(6))
        self.assertRaises(OSError, tree.read, 0, 6)
        self.assertRaises(OSError, tree.make, allocate=False)
        self.assertEqual(b"secret", disk.get("/outside/000000"))
        disk.remove("/data/elsewhere/000")
        disk.put_link("/data/elsewhere/000/000000", "/outside/000000")
        self.assertRaises(OSError, tree.read, 0, 6)
        self.assertRaises(OSError, tree.make, allocate=False)
        self.assertRaises(NotAFile, tree.facts, 0)

    def test_links_of_the_operator_are_followed(self) -> None:
        """In what he named himself, the top may be a link, and files too."""
        disk = SimDisk()
        disk.put("/blobs/1", b"blob")
        disk.put_link("/models/v1/000/000000", "/blobs/1")
        disk.put_folder("/data")
        disk.put_link("/data/elsewhere", "/models/v1")
        tree = tree_on(disk, entries(4), writable=False, follow=True)
        self.assertEqual(b"blob", tree.read(0, 4))
        self.assertTrue(tree.lengths_right())


class WholeTests(TestCase):
    """The tree as a whole."""

    def test_single_file_has_the_name_of_the_tree(self) -> None:
        """A content of one file is the file, not a folder."""
        disk = SimDisk()
        tree = tree_on(disk, (FileEntry(("file",), 3, executable=True),))
        tree.make(allocate=True)
        self.assertEqual(["/data/elsewhere"], disk.paths())
        self.assertEqual("/data/elsewhere", tree.path)
        tree.chmod()
        self.assertEqual(0o755, disk.mode("/data/elsewhere"))

    def test_modes_obey_the_umask(self) -> None:
        """Files become 0644, folders 0755, less what the operator takes."""
        disk = SimDisk(umask=0o027)
        tree = tree_on(disk, entries(1, 1))
        tree.make(allocate=False)
        self.assertEqual(0o700, disk.mode("/data/elsewhere/000"))
        tree.chmod()
        self.assertEqual(0o640, disk.mode("/data/elsewhere/000/000000"))
        self.assertEqual(0o750, disk.mode("/data/elsewhere/000"))
        self.assertEqual(0o750, disk.mode("/data/elsewhere"))

    def test_many_files_are_synced_at_once(self) -> None:
        """One syncfs for more than ``limits.OPEN_FILES``, one by one where there is none."""
        for unsupported in (set(), {"sync_all"}):
            disk = SimDisk(umask=0)
            disk.unsupported.update(unsupported)
            count = limits.OPEN_FILES + 1
            tree = tree_on(disk, entries(*[1] * count))
            tree.make(allocate=False)
            tree.write(0, b"x" * count)
            disk.calls.clear()
            tree.sync_data(range(count))
            syncs = [call.split()[0] for call in disk.calls if call.startswith("sync")]
            self.assertEqual(count if unsupported else 0, syncs.count("sync_data"))
            disk.crash(lambda: 0.0)
            self.assertEqual(b"x", disk.get(disk.paths()[-1]))

    def test_failed_sync_of_everything_is_told(self) -> None:
        """An error of syncfs is none of "there is no such call"."""
        disk = SimDisk()
        count = limits.OPEN_FILES + 1
        tree = tree_on(disk, entries(*[1] * count))
        tree.make(allocate=False)
        disk.failures[len(disk.calls)] = errno.EIO
        self.assertRaises(OSError, tree.sync_data, range(count))

    def test_identity_is_device_inode_and_size(self) -> None:
        """Writing does not change it; a replaced or cut file does."""
        disk = SimDisk()
        tree = tree_on(disk, entries(4, 4))
        tree.make(allocate=False)
        before = identity(tree.stamps())
        tree.write(0, b"12345678")
        self.assertEqual(before, identity(tree.stamps()))
        disk.put("/data/elsewhere/000/000000", b"123")
        cut = identity(tree.stamps())
        disk.put("/data/keeps/the/inode", b"")
        disk.remove("/data/elsewhere/000/000001")
        disk.put("/data/takes/the/inode", b"")
        disk.put("/data/elsewhere/000/000001", b"5678")
        self.assertEqual(3, len({before, cut, identity(tree.stamps())}))

    def test_space_is_what_files_take(self) -> None:
        """Missing files and holes take none."""
        disk = SimDisk()
        tree = tree_on(disk, entries(1 << 16, 1 << 16))
        self.assertEqual(0, tree.allocated())
        tree.make(allocate=False)
        self.assertEqual(0, tree.allocated())
        tree.write(0, bytes(1 << 16))
        self.assertEqual(1 << 16, tree.allocated())
        tree.make(allocate=True)
        self.assertEqual(1 << 17, tree.allocated())
