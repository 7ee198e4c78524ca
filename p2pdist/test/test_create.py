"""Tests of creating stores: :mod:`p2pdist.storage.locate` and :mod:`p2pdist.storage.part`."""

from __future__ import annotations

import errno

from p2pdist import limits
from p2pdist.errors import (
    AlreadyRunning,
    ContentConflict,
    DescriptorError,
    DiskFull,
    StorageError,
)
from p2pdist.storage.publish import previous_name
from p2pdist.test.simdisk import PAGE_BYTES, SimDisk
from p2pdist.test.storehouse import DATA, PIECE, Storehouse, content, folder, one_file
from p2pdist.test.support import TestCase

TARGET = f"{DATA}/file.bin"


class CreateTests(TestCase):
    """create."""

    def setUp(self) -> None:
        """Make a disk."""
        self.house = Storehouse(one_file())
        self.disk = self.house.disk

    def test_part_and_state_stand_beside_the_target(self) -> None:
        """Both hidden and private, the part at full length."""
        store = self.result_of(self.house.create())
        self.assertEqual([self.house.part, self.house.state], self.disk.paths(DATA))
        for path in self.disk.paths(DATA):
            self.assertEqual(0o600, self.disk.mode(path))
        self.assertEqual(len(self.house.content.data), len(self.disk.get(self.house.part)))
        self.assertEqual([], list(store.have))
        self.assertEqual(TARGET, store.path)
        self.assertFalse(store.published)

    def test_zero_pieces_are_here_at_once(self) -> None:
        """They are holes: neither fetched nor written, and nothing is reserved for them."""
        self.house.content = one_file(zeros=(0, 2))
        self.disk.capacity = self.disk.free_bytes(self.disk.open_root("/"))
        store = self.result_of(self.house.create())
        self.assertEqual([0, 2], list(store.have))
        self.assertEqual(bytes(9), self.result_of(store.read(2, 5, 9)))
        facts = self.disk.facts_at(
            self.disk.open_root(DATA), self.house.part.removeprefix(f"{DATA}/")
        )
        assert facts is not None
        self.assertEqual(0, facts.allocated)

    def test_space_is_reserved_where_nothing_is_sparse(self) -> None:
        """A full disk shows at the start, not in the middle."""
        self.result_of(self.house.create())
        self.assertEqual(1, sum(call.endswith(f" {3 * PIECE + 1000}") for call in self.reserved()))

    def reserved(self) -> list[str]:
        """Return the calls that reserve space."""
        return [call for call in self.disk.calls if call.startswith("allocate")]

    def test_want_of_space_is_told_with_figures(self) -> None:
        """DiskFull says how many bytes are short and where; nothing is left behind."""
        self.disk.capacity = 2 * PAGE_BYTES
        error = self.error_of(self.house.create(), DiskFull)
        short = len(self.house.content.data) - 2 * PAGE_BYTES
        self.assertIn(f"{DATA} is {short} bytes short", str(error))
        self.assertEqual([], self.disk.paths(DATA))
        self.assertEqual(0, self.disk.open_handles)

    def test_want_of_space_while_reserving(self) -> None:
        """A quota shows only there; what was begun is removed again."""
        for codes in ([errno.EDQUOT], [0, errno.EDQUOT]):  # for the state file, for the part
            self.disk.failing["allocate"] = codes
            self.error_of(self.house.create(), DiskFull)
            self.assertEqual([], self.disk.paths(DATA))
        self.result_of(self.house.create())

    def test_zero_pieces_need_no_space(self) -> None:
        """A sparse content fits where its length would not."""
        self.house.content = one_file(zeros=(0, 1, 2))
        self.disk.capacity = 10 * PAGE_BYTES
        store = self.result_of(self.house.create())
        self.result_of(store.write_piece(3, self.house.content.piece(3)))
        self.result_of(store.publish())

    def test_missing_folder_is_named(self) -> None:
        """The path stands in the error, and nothing is made."""
        error = self.error_of(self.house.create(directory="/nowhere"), StorageError)
        self.assertIn("/nowhere does not exist", str(error))

    def test_second_process_is_told(self) -> None:
        """Two processes cannot fetch the same content to the same place."""
        self.result_of(self.house.create())
        error = self.error_of(self.house.create(), AlreadyRunning)
        self.assertIn(self.house.state, str(error))
        self.error_of(self.house.locate(), AlreadyRunning)

    def test_descriptor_must_agree(self) -> None:
        """Name, length and piece length are checked against the metadata."""
        for said in ({"name": "other"}, {"length": 1}, {"piece_length": 2 * PIECE}):
            self.error_of(self.house.create(**said), DescriptorError)
        self.assertEqual([], self.disk.paths(DATA))
        self.result_of(self.house.create(name=None, length=None, piece_length=None))

    def test_empty_file(self) -> None:
        """A file without bytes is complete and published at once."""
        self.house.content = content({"empty": 0})
        store = self.result_of(self.house.create())
        self.assertTrue(store.complete and store.published)
        self.assertEqual(b"", self.disk.get(f"{DATA}/empty"))

    def test_folder_gets_all_its_files(self) -> None:
        """Empty ones too, with modes, in folders of their own."""
        self.house.content = folder()
        store = self.result_of(self.house.create())
        for index in store.have.missing():
            self.result_of(store.write_piece(index, self.house.content.piece(index)))
        self.result_of(store.publish())
        found = {path: self.disk.get(f"{DATA}/{path}") for path in self.house.content.files()}
        self.assertEqual(self.house.content.files(), found)
        self.assertEqual(0o755, self.disk.mode(f"{DATA}/tree/b/run"))
        self.assertEqual(0o644, self.disk.mode(f"{DATA}/tree/c"))
        self.assertEqual(0o755, self.disk.mode(f"{DATA}/tree/b"))

    def test_many_files(self) -> None:
        """Work grows with the number of files, not with its square."""
        calls = []
        for count in (limits.OPEN_FILES * 4, limits.OPEN_FILES * 8):
            house = Storehouse(
                content({f"tree/{n % 9}/{n:05}": 1 for n in range(count)}), disk=SimDisk()
            )
            store = self.result_of(house.create())
            self.result_of(store.write_piece(0, house.content.piece(0)))
            self.result_of(store.publish())
            calls.append(len(house.disk.calls))
        self.assertLess(calls[1], 2.1 * calls[0])


class ExistingTargetTests(TestCase):
    """Something stands under the final name."""

    def setUp(self) -> None:
        """Make a disk."""
        self.house = Storehouse(one_file())
        self.disk = self.house.disk

    def test_the_content_itself_is_taken(self) -> None:
        """It is hashed, recorded and published as it is."""
        self.house.put_target()
        store = self.result_of(self.house.create())
        self.assertTrue(store.published)
        self.assertTrue(store.complete)
        self.assertIn(self.house.record, self.disk.paths())
        self.assertEqual([TARGET], self.disk.paths(DATA))
        total = len(self.house.content.data)
        self.assertEqual((total, total), self.house.progress[-1])

    def test_other_content_is_refused_before_any_download(self) -> None:
        """Without ``replace``, at once when the length differs, and it stays as it is."""
        self.disk.put(TARGET, b"other")
        error = self.error_of(self.house.create(), ContentConflict)
        self.assertIn(TARGET, str(error))
        self.assertEqual([], self.house.progress)
        self.disk.put(TARGET, self.house.content.data[:-1] + b"x")
        self.error_of(self.house.create(), ContentConflict)
        self.assertEqual([TARGET], self.disk.paths(DATA))
        self.assertEqual(0, self.disk.open_handles)

    def test_longer_file_is_other_content(self) -> None:
        """The right pieces with something behind are not the content."""
        self.disk.put(TARGET, self.house.content.data + b"x")
        self.error_of(self.house.create(), ContentConflict)
        self.assertTrue(self.result_of(self.house.create(replace=True)).published)
        self.assertEqual(self.house.content.data, self.disk.get(TARGET))

    def test_replaced_file_gives_its_pieces(self) -> None:
        """What matches is copied; the old file stays until the new one is whole."""
        old = self.house.content.data[: 2 * PIECE] + b"other"
        self.disk.put(TARGET, old)
        store = self.result_of(self.house.create(replace=True))
        self.assertEqual([0, 1], list(store.have))
        self.assertEqual(old, self.disk.get(TARGET))
        for index in (2, 3):
            self.result_of(store.write_piece(index, self.house.content.piece(index)))
        self.result_of(store.publish())
        self.assertEqual(self.house.content.data, self.disk.get(TARGET))
        self.assertEqual([TARGET], self.disk.paths(DATA))

    def test_replaced_folder_is_kept_under_another_name(self) -> None:
        """Files of the user that are no part of the content are never deleted."""
        made = folder()
        house = Storehouse(made)
        house.put_target(tree_c=b"changed")
        house.disk.put(f"{DATA}/tree/mine", b"precious")
        store = self.result_of(house.create(replace=True))
        for index in store.have.missing():
            self.result_of(store.write_piece(index, made.piece(index)))
        self.result_of(store.publish())
        before = f"{DATA}/{previous_name('tree', made.hash_key)}"
        self.assertEqual(b"precious", house.disk.get(f"{before}/mine"))
        self.assertEqual(made.files()["tree/c"], house.disk.get(f"{DATA}/tree/c"))
        self.assertNotIn(f"{DATA}/tree/mine", house.disk.paths())

    def test_files_beside_the_content_do_no_harm(self) -> None:
        """A folder that holds the content, and something else, holds the content."""
        house = Storehouse(folder())
        house.put_target()
        house.disk.put(f"{DATA}/tree/notes", b"mine")
        self.assertTrue(self.result_of(house.create()).published)

    def test_empty_folder_is_not_in_the_way(self) -> None:
        """A folder without files may be replaced by one with them."""
        house = Storehouse(folder())
        store = self.result_of(house.create())
        for index in store.have.missing():
            self.result_of(store.write_piece(index, house.content.piece(index)))
        house.disk.put_folder(f"{DATA}/tree")
        self.result_of(store.publish())

    def test_neither_links_nor_others_are_touched(self) -> None:
        """A link, a FIFO or a folder in the place of the file is refused with its name."""
        self.disk.put("/etc/passwd", b"root")
        for put, word in (
            (lambda: self.disk.put_link(TARGET, "/etc/passwd"), "a symbolic link"),
            (lambda: self.disk.put_link(TARGET, "/not/there"), "a symbolic link"),
            (lambda: self.disk.put_other(TARGET), "neither a file nor a folder"),
            (lambda: self.disk.put_folder(TARGET), "a folder"),
        ):
            put()
            for replace in (False, True):
                error = self.error_of(self.house.create(replace=replace), StorageError)
                self.assertIn(f"{TARGET} is {word}", str(error))
            self.disk.remove(TARGET)
        self.assertEqual(b"root", self.disk.get("/etc/passwd"))
        self.assertEqual(0, self.disk.open_handles)

    def test_neither_links_nor_others_serve_as_part(self) -> None:
        """What somebody put under the part's or the state file's name is refused."""
        self.disk.put("/etc/passwd", b"root")
        for path in (self.house.part, self.house.state):
            for put in (
                lambda p=path: self.disk.put_link(p, "/etc/passwd"),
                lambda p=path: self.disk.put_other(p),
                lambda p=path: self.disk.put_folder(p),
            ):
                put()
                self.error_of(self.house.create(), StorageError)
                self.disk.remove(path)
        self.assertEqual(b"root", self.disk.get("/etc/passwd"))
        self.assertEqual(0, self.disk.open_handles)

    def test_named_path_is_only_read(self) -> None:
        """``seed --path`` compares what is there with the metadata, and never replaces it."""
        self.disk.put("/media/cd/image", self.house.content.data)
        store = self.result_of(self.house.create(path="/media/cd/image"))
        self.assertTrue(store.published)
        self.assertEqual("/media/cd/image", store.path)
        self.disk.put("/media/cd/image", b"other")
        for replace in (False, True):
            self.error_of(
                self.house.create(path="/media/cd/image", replace=replace), ContentConflict
            )
        self.error_of(self.house.create(path="/media/cd/none"), StorageError)
        self.assertEqual([], self.disk.paths(DATA))


class LeftoverTests(TestCase):
    """A part is there, but its state file is of no use."""

    def setUp(self) -> None:
        """Leave a half-done download behind."""
        self.house = Storehouse(one_file(zeros=(2,)))
        self.disk = self.house.disk
        store = self.result_of(self.house.create())
        self.result_of(store.write_piece(1, self.house.content.piece(1)))
        self.result_of(store.close())
        self.house.restart()

    def test_part_without_state_is_hashed(self) -> None:
        """What is right in it is kept, with progress."""
        self.disk.remove(self.house.state)
        self.assertIs(None, self.result_of(self.house.locate()))
        store = self.result_of(self.house.create())
        self.assertEqual([1, 2], list(store.have))
        total = len(self.house.content.data)
        self.assertEqual((total, total), self.house.progress[-1])

    def test_zero_pieces_are_mended(self) -> None:
        """Garbage in the place of a hole is overwritten with zeros: nobody would send them."""
        self.disk.remove(self.house.state)
        self.disk.flip(self.house.part, 2 * PIECE + 1)
        store = self.result_of(self.house.create())
        self.assertEqual([1, 2], list(store.have))
        self.assertEqual(bytes(PIECE), self.disk.get(self.house.part)[2 * PIECE : 3 * PIECE])

    def test_part_of_wrong_length_is_mended(self) -> None:
        """Cut or extended, it gets its length back and keeps what is right."""
        right = self.house.content.data
        for data in (right[: 2 * PIECE], right[: 3 * PIECE] + bytes(5000)):
            self.disk.put(self.house.part, data)
            store = self.result_of(self.house.locate())
            assert store is not None
            self.assertTrue(store.have.has(1))
            self.assertEqual(len(self.house.content.data), len(self.disk.get(self.house.part)))
            self.result_of(store.close())

    def test_space_already_taken_counts(self) -> None:
        """A half-done download needs only the rest."""
        self.disk.remove(self.house.state)
        free = self.disk.free_bytes(self.disk.open_root("/"))
        self.disk.capacity -= free - PIECE - 3 * PAGE_BYTES
        self.result_of(self.house.create())

    def test_failure_keeps_what_was_there(self) -> None:
        """A part of an earlier life is not removed when opening it fails."""
        self.disk.remove(self.house.state)
        self.disk.failing["truncate"] = [errno.EIO]
        self.error_of(self.house.create(), StorageError)
        self.assertIn(self.house.part, self.disk.paths(DATA))
        self.assertEqual([1, 2], list(self.result_of(self.house.create()).have))
