"""Tests of :mod:`p2pdist.storage.disk`: one behaviour for the real and the simulated disk."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface.verify import verifyObject

from p2pdist.errors import DiskFull, StorageError
from p2pdist.storage.disk import (
    IDENTITY_BYTES,
    STAMP_BYTES,
    Access,
    IDisk,
    Kind,
    NotAFile,
    read_file,
    remove_tree,
    storage_error,
    write_file,
)
from p2pdist.storage.realdisk import RealDisk
from p2pdist.test.simdisk import PAGE_BYTES, PowerLost, SimDisk, any_share
from p2pdist.test.support import TestCase

if TYPE_CHECKING:
    _Mixed = TestCase
else:
    _Mixed = object  # or trial would run it by itself


class DiskBehaviour(_Mixed):
    """What both disks do; mixed into a TestCase that sets ``disk`` and ``path``."""

    disk: IDisk
    path: str
    root: int

    def put_link(self, name: str, target: str) -> None:
        """Make a symbolic link in the folder."""
        raise NotImplementedError

    def put_other(self, name: str) -> None:
        """Make a FIFO in the folder."""
        raise NotImplementedError

    def make(self, name: str, data: bytes = b"") -> None:
        """Make a file in the folder."""
        handle = self.disk.open_file(self.root, name, Access.CREATE)
        self.disk.write(handle, 0, data)
        self.disk.close(handle)

    def content(self, name: str) -> bytes | None:
        """Return a file's bytes."""
        return read_file(self.disk, self.root, name, 1 << 20)

    def fails_with(self, code: int, call: object, *arguments: object) -> None:
        """Check that a call raises OSError with this errno."""
        assert callable(call)
        self.assertEqual(code, self.assertRaises(OSError, call, *arguments).errno)

    def test_provides_the_interface(self) -> None:
        """It can stand where a disk stands."""
        verifyObject(IDisk, self.disk)

    def test_new_files_are_private(self) -> None:
        """A file is made with mode 0600, a folder with 0700."""
        self.make("new")
        self.disk.make_directory(self.root, "folder")
        file, folder = (self.disk.facts_at(self.root, name) for name in ("new", "folder"))
        assert file is not None
        assert folder is not None
        self.assertEqual((Kind.FILE, 0o600), (file.kind, file.mode))
        self.assertEqual((Kind.DIRECTORY, 0o700), (folder.kind, folder.mode))

    def test_making_never_takes_what_is_there(self) -> None:
        """CREATE fails where anything stands, a dangling link too."""
        self.make("here", b"mine")
        self.put_link("dangling", "/nowhere/at/all")
        for name in ("here", "dangling"):
            self.fails_with(errno.EEXIST, self.disk.open_file, self.root, name, Access.CREATE)
        self.assertEqual(b"mine", self.content("here"))

    def test_links_are_followed_only_on_request(self) -> None:
        """Opening a link is ELOOP, unless the operator's own links are followed."""
        self.make("real", b"bytes")
        self.put_link("link", f"{self.path}/real")
        for access in (Access.READ, Access.UPDATE):
            self.fails_with(errno.ELOOP, self.disk.open_file, self.root, "link", access)
        handle = self.disk.open_file(self.root, "link", Access.READ, True)
        self.assertEqual(b"bytes", self.disk.read(handle, 0, 9))
        self.disk.close(handle)
        plain, followed = (self.disk.facts_at(self.root, "link", f) for f in (False, True))
        assert plain is not None
        assert followed is not None
        self.assertEqual((Kind.SYMLINK, Kind.FILE), (plain.kind, followed.kind))

    def test_links_to_folders_are_no_folders(self) -> None:
        """A folder is never entered through a link."""
        self.put_link("link", self.path)
        error = self.assertRaises(OSError, self.disk.open_directory, self.root, "link")
        self.assertIn(error.errno, {errno.ELOOP, errno.ENOTDIR})

    def test_fifos_are_refused_at_once(self) -> None:
        """Nobody has to wait for the other end of a FIFO."""
        self.put_other("fifo")
        for access in (Access.READ, Access.UPDATE):
            error = self.assertRaises(NotAFile, self.disk.open_file, self.root, "fifo", access)
            self.assertIs(Kind.OTHER, error.kind)

    def test_folders_are_no_files(self) -> None:
        """Opening a folder as a file says so."""
        self.disk.make_directory(self.root, "folder")
        for access in (Access.READ, Access.UPDATE):
            error = self.assertRaises(NotAFile, self.disk.open_file, self.root, "folder", access)
            self.assertIs(Kind.DIRECTORY, error.kind)

    def test_what_is_missing_is_missing(self) -> None:
        """There are no facts, no bytes and no handle of what is not there."""
        self.assertIs(None, self.disk.facts_at(self.root, "no"))
        self.assertIs(None, self.content("no"))
        self.fails_with(errno.ENOENT, self.disk.open_file, self.root, "no", Access.READ)
        self.fails_with(errno.ENOENT, self.disk.open_directory, self.root, "no")
        self.fails_with(errno.ENOENT, self.disk.open_root, f"{self.path}/no")
        self.fails_with(errno.ENOENT, self.disk.unlink, self.root, "no")

    def test_writes_anywhere_and_reads_back(self) -> None:
        """What lies between writes is zero, and reading stops at the end."""
        handle = self.disk.open_file(self.root, "f", Access.CREATE)
        self.disk.write(handle, 5000, memoryview(b"later"))
        self.disk.write(handle, 1, b"one")
        self.assertEqual(b"\0one\0", self.disk.read(handle, 0, 5))
        self.assertEqual(b"ater", self.disk.read(handle, 5001, 100))
        self.assertEqual(b"", self.disk.read(handle, 6000, 1))
        self.disk.close(handle)

    def test_truncating_makes_holes(self) -> None:
        """A longer file has zeros behind, which take no space; a shorter one is cut."""
        handle = self.disk.open_file(self.root, "f", Access.CREATE)
        self.disk.truncate(handle, 1 << 20)
        facts = self.disk.facts(handle)
        self.assertEqual(1 << 20, facts.size)
        self.assertLess(facts.allocated, 1 << 16)
        self.assertEqual(bytes(9), self.disk.read(handle, 99999, 9))
        self.disk.truncate(handle, 3)
        self.assertEqual(bytes(3), self.disk.read(handle, 0, 9))
        self.disk.close(handle)

    def test_allocating_takes_the_space(self) -> None:
        """The space of an allocated file is there before its bytes."""
        handle = self.disk.open_file(self.root, "f", Access.CREATE)
        self.disk.truncate(handle, 1 << 20)
        self.disk.allocate(handle, 1 << 20)
        facts = self.disk.facts(handle)
        self.assertEqual(1 << 20, facts.size)
        self.assertGreaterEqual(facts.allocated, 1 << 20)
        self.disk.close(handle)

    def test_stamps_tell_files_and_changes_apart(self) -> None:
        """A write changes the stamp but not the identity; another file differs in both."""
        handle = self.disk.open_file(self.root, "f", Access.CREATE)
        self.disk.write(handle, 0, b"before")
        before = self.disk.facts(handle).stamp
        self.assertEqual(before, self.disk.facts(handle).stamp)
        for _ in range(50):  # a clock may tick every few milliseconds only
            self.disk.write(handle, 0, b"after!" * 1000)
            self.disk.truncate(handle, 6)
        after = self.disk.facts(handle).stamp
        self.make("g", b"after!")
        other = self.disk.facts_at(self.root, "g")
        assert other is not None
        self.assertEqual(STAMP_BYTES, len(before))
        self.assertEqual(before[:IDENTITY_BYTES], after[:IDENTITY_BYTES])
        self.assertNotEqual(before[:IDENTITY_BYTES], other.stamp[:IDENTITY_BYTES])
        self.disk.close(handle)

    def test_linking_does_not_replace(self) -> None:
        """A second name is given only where nothing stands."""
        self.make("old", b"old")
        self.make("there", b"there")
        self.fails_with(errno.EEXIST, self.disk.link, self.root, "old", "there")
        self.disk.link(self.root, "old", "new")
        self.disk.unlink(self.root, "old")
        self.assertEqual((b"old", b"there"), (self.content("new"), self.content("there")))

    def test_renaming_replaces_only_when_asked(self) -> None:
        """The exclusive way fails where anything stands, the other one replaces a file."""
        self.make("old", b"old")
        self.make("there", b"there")
        self.fails_with(errno.EEXIST, self.disk.rename_exclusive, self.root, "old", "there")
        self.disk.rename_exclusive(self.root, "old", "new")
        self.disk.rename(self.root, "new", "there")
        self.assertEqual(["there"], self.disk.names(self.root))
        self.assertEqual(b"old", self.content("there"))

    def test_folders_with_content_are_not_replaced(self) -> None:
        """Neither rename nor removal makes a folder's files go away."""
        for name in ("old", "there"):
            self.disk.make_directory(self.root, name)
        inner = self.disk.open_directory(self.root, "there")
        self.disk.close(self.disk.open_file(inner, "file", Access.CREATE))
        self.disk.close(inner)
        self.fails_with(errno.ENOTEMPTY, self.disk.rename, self.root, "old", "there")
        self.fails_with(errno.ENOTEMPTY, self.disk.remove_directory, self.root, "there")
        remove_tree(self.disk, self.root, "there")
        self.assertEqual(["old"], self.disk.names(self.root))

    def test_removing_a_tree_follows_no_link(self) -> None:
        """What a link points at stays."""
        self.disk.make_directory(self.root, "keep")
        self.disk.make_directory(self.root, "go")
        self.put_link("go/link", f"{self.path}/keep")
        remove_tree(self.disk, self.root, "go")
        remove_tree(self.disk, self.root, "never there")
        self.assertEqual(["keep"], self.disk.names(self.root))

    def test_locks_exclude_each_other(self) -> None:
        """Of two handles one gets the lock, and the other when the first is closed."""
        self.make("lock")
        first, second = (self.disk.open_file(self.root, "lock", Access.UPDATE) for _ in range(2))
        self.assertTrue(self.disk.lock(first))
        self.assertFalse(self.disk.lock(second))
        self.disk.close(first)
        self.assertTrue(self.disk.lock(second))
        self.disk.close(second)

    def test_modes_are_set(self) -> None:
        """Changing modes works on files and folders."""
        self.make("f")
        handle = self.disk.open_file(self.root, "f", Access.UPDATE)
        self.disk.chmod(handle, 0o640)
        self.assertEqual(0o640, self.disk.facts(handle).mode)
        self.disk.close(handle)

    def test_roots_are_made_with_parents(self) -> None:
        """A folder is made with those above it, once."""
        for _ in range(2):
            self.disk.make_root(f"{self.path}/a/b", 0o700)
        handle = self.disk.open_root(f"{self.path}/a/b")
        self.assertEqual(0o700, self.disk.facts(handle).mode)
        self.disk.close(handle)

    def test_everything_can_be_synced(self) -> None:
        """Files and folders take all kinds of sync, and caches can be dropped."""
        self.make("f", b"bytes")
        handle = self.disk.open_file(self.root, "f", Access.UPDATE)
        self.disk.sync_data(handle)
        self.disk.sync(handle)
        self.disk.sync(self.root)
        self.disk.sync_all(self.root)
        self.disk.forget(handle)
        self.assertEqual(b"bytes", self.disk.read(handle, 0, 9))
        self.assertGreater(self.disk.free_bytes(self.root), 0)
        self.disk.close(handle)

    def test_small_files_are_replaced_whole(self) -> None:
        """The new bytes stand there, the draft does not, and too many bytes are refused."""
        for data in (b"first", b"second"):
            write_file(self.disk, self.root, "small", data)
            self.assertEqual(data, self.content("small"))
        self.assertEqual(["small"], self.disk.names(self.root))
        self.fails_with(errno.EFBIG, read_file, self.disk, self.root, "small", 5)


class RealDiskTests(DiskBehaviour, TestCase):
    """On the operating system's files."""

    def setUp(self) -> None:
        """Make a folder."""
        self.disk = RealDisk()
        self.path = str(Path(self.mktemp()).absolute())
        Path(self.path).mkdir()
        self.root = self.disk.open_root(self.path)
        self.addCleanup(self.disk.close, self.root)

    def put_link(self, name: str, target: str) -> None:
        """Make a symbolic link."""
        (Path(self.path) / name).symlink_to(target)

    def put_other(self, name: str) -> None:
        """Make a FIFO."""
        os.mkfifo(Path(self.path) / name)

    def test_umask_is_that_of_the_process(self) -> None:
        """It is read without being changed."""
        before = os.umask(0o027)
        try:
            self.assertEqual(0o027, RealDisk().umask)
            self.assertEqual(0o027, RealDisk().umask)
        finally:
            os.umask(before)

    def test_rights_are_named_with_the_user(self) -> None:
        """Who may not, and where."""
        error = storage_error(PermissionError(errno.EACCES, "no"), "/some/where")
        self.assertEqual(f"/some/where: permission denied for user {os.getuid()}", str(error))


class SimDiskTests(DiskBehaviour, TestCase):
    """In memory."""

    def setUp(self) -> None:
        """Make a folder."""
        self.sim = SimDisk()
        self.disk = self.sim
        self.path = "/here"
        self.sim.put_folder(self.path)
        self.root = self.disk.open_root(self.path)

    def put_link(self, name: str, target: str) -> None:
        """Make a symbolic link."""
        self.sim.put_link(f"{self.path}/{name}", target)

    def put_other(self, name: str) -> None:
        """Make a FIFO."""
        self.sim.put_other(f"{self.path}/{name}")

    def test_unsynced_bytes_may_be_lost(self) -> None:
        """After a crash only what was synced is sure."""
        self.make("f", b"synced")
        handle = self.disk.open_file(self.root, "f", Access.UPDATE)
        self.disk.sync(handle)
        self.disk.sync(self.root)
        self.disk.write(handle, 0, b"UNSURE")
        self.sim.crash(lambda: 0.0)
        self.assertEqual(b"synced", self.sim.get("/here/f"))

    def test_writes_may_be_torn(self) -> None:
        """Half of a write may have reached the device."""
        self.make("f", b"synced")
        handle = self.disk.open_file(self.root, "f", Access.UPDATE)
        self.disk.sync(handle)
        self.disk.sync(self.root)
        self.disk.write(handle, 0, b"UNSURE")
        self.sim.crash(lambda: 0.5)
        self.assertEqual(b"UNSced", self.sim.get("/here/f"))

    def test_a_synced_file_may_lose_its_name(self) -> None:
        """The folder has to be synced too."""
        handle = self.disk.open_file(self.root, "f", Access.CREATE)
        self.disk.sync(handle)
        self.sim.crash(lambda: 0.0)
        self.assertEqual([], self.sim.paths())

    def test_later_changes_may_survive_earlier_ones(self) -> None:
        """An unlink can be kept while the link before it is lost, and the file with it."""
        self.make("old", b"bytes")
        self.disk.sync_all(self.root)
        self.disk.link(self.root, "old", "new")
        self.disk.unlink(self.root, "old")
        shares = iter((0.0, 1.0))
        self.sim.crash(lambda: next(shares))
        self.assertEqual([], self.sim.paths())

    def test_failed_sync_is_not_made_good_by_another(self) -> None:
        """Pages count as clean after it, and what is in the cache never gets to the device."""
        self.make("f", b"bytes")
        handle = self.disk.open_file(self.root, "f", Access.UPDATE)
        self.disk.sync(self.root)
        self.sim.failures[len(self.sim.calls)] = errno.EIO
        self.fails_with(errno.EIO, self.disk.sync, handle)
        self.disk.sync(handle)
        self.assertEqual(b"bytes", self.disk.read(handle, 0, 5))
        self.disk.forget(handle)
        self.assertEqual(b"", self.disk.read(handle, 0, 5))

    def test_full_disk_keeps_what_fits(self) -> None:
        """A write to a disk without room fails with ENOSPC after the pages that fit."""
        self.sim.capacity = 2 * PAGE_BYTES
        handle = self.disk.open_file(self.root, "f", Access.CREATE)
        data = bytes(range(1, 4)) * PAGE_BYTES
        self.fails_with(errno.ENOSPC, self.disk.write, handle, 0, data)
        self.assertEqual(data[: 2 * PAGE_BYTES], self.sim.get("/here/f"))
        self.assertEqual(0, self.disk.free_bytes(handle))

    def test_small_files_survive_crashes_whole(self) -> None:
        """Whenever the power goes off, the old or the new bytes stand there, never a mixture."""
        for step in range(20):
            for seed in range(8):
                rng = random.Random(seed)
                sim = SimDisk()
                sim.put("/small", b"old bytes")
                root = sim.open_root("/")
                sim.crash_before = len(sim.calls) + step
                try:
                    write_file(sim, root, "small", b"new")
                    allowed = {b"new"}
                except PowerLost:
                    allowed = {b"old bytes", b"new"}
                sim.crash(any_share(rng))
                self.assertIn(sim.get("/small"), allowed)


class ErrorTests(TestCase):
    """What people are told."""

    def test_full_disks_are_their_own_kind(self) -> None:
        """No space and no quota can be waited for."""
        for code in (errno.ENOSPC, errno.EDQUOT):
            self.assertIsInstance(storage_error(OSError(code, ""), "/x"), DiskFull)

    def test_everything_else_names_the_path(self) -> None:
        """With what is wrong there."""
        for error, text in (
            (OSError(errno.ELOOP, ""), "/x is a symbolic link, which is not followed for safety"),
            (NotAFile(Kind.OTHER), "/x is neither a file nor a folder; a regular file is expected"),
            (FileNotFoundError(errno.ENOENT, ""), "/x does not exist"),
            (OSError(errno.EIO, "Input/output error"), "/x: Input/output error"),
        ):
            found = storage_error(error, "/x")
            self.assertIsInstance(found, StorageError)
            self.assertIn(text, str(found))
