"""Tests of finding what is on disk: :mod:`p2pdist.storage.locate`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.errors import ContentConflict, DescriptorError, StorageError
from p2pdist.storage.locate import create, locate
from p2pdist.storage.realdisk import RealDisk
from p2pdist.storage.store import Store
from p2pdist.test.fakes import ImmediateWorkers, StepWorkers
from p2pdist.test.storehouse import (
    DATA,
    PIECE,
    Storehouse,
    content,
    folder,
    one_file,
    place_on,
)
from p2pdist.test.support import TestCase

TARGET = f"{DATA}/file.bin"


class LocateCase(TestCase):
    """A disk with nothing on it."""

    def setUp(self) -> None:
        """Make it."""
        self.use(Storehouse(one_file()))

    def use(self, house: Storehouse) -> None:
        """Take another content."""
        self.house, self.disk = house, house.disk

    def found(self, **changes: object) -> Store:
        """Return the store that is found."""
        store = self.result_of(self.house.locate(**changes))
        assert store is not None
        return store

    def half_done(self) -> None:
        """Fetch two pieces and stop."""
        store = self.result_of(self.house.create())
        for index in (0, 1):
            self.result_of(store.write_piece(index, self.house.content.piece(index)))
        self.result_of(store.close())
        self.house.restart()

    def publish(self) -> None:
        """Fetch all, publish and stop."""
        store = self.result_of(self.house.create())
        for index in store.have.missing():
            self.result_of(store.write_piece(index, self.house.content.piece(index)))
        self.result_of(store.publish())
        self.result_of(store.close())
        self.house.restart()


class NothingTests(LocateCase):
    """Nothing to find."""

    def test_empty_folder(self) -> None:
        """There is no store, nothing is made, nothing stays open."""
        self.assertIs(None, self.result_of(self.house.locate()))
        self.assertIs(None, self.result_of(self.house.locate(name=None)))
        self.assertEqual([], self.disk.paths())
        self.assertEqual(0, self.disk.open_handles)

    def test_missing_folder(self) -> None:
        """The folder is named."""
        error = self.error_of(self.house.locate(directory="/nowhere"), StorageError)
        self.assertIn("/nowhere does not exist", str(error))

    def test_missing_path(self) -> None:
        """What the operator names must be there."""
        error = self.error_of(self.house.locate(path="/media/none"), StorageError)
        self.assertIn("/media does not exist", str(error))
        error = self.error_of(self.house.locate(path=f"{DATA}/none"), StorageError)
        self.assertIn(f"{DATA}/none does not exist", str(error))


class PartTests(LocateCase):
    """A download that was begun."""

    def test_bits_are_trusted(self) -> None:
        """The pieces are here at once, without hashing; metadata come from the state file."""
        self.half_done()
        store = self.found()
        self.assertEqual([0, 1], list(store.have))
        self.assertEqual(self.house.content.metadata, store.metadata)
        self.assertEqual([], self.house.progress)

    def test_found_without_a_name(self) -> None:
        """A descriptor of one line has no name; HASH8 finds the state file."""
        self.half_done()
        self.disk.put(f"{DATA}/.other.{'0' * 8}.p2pdist-state", b"")
        self.assertEqual([0, 1], list(self.found(name=None, length=None).have))

    def test_state_file_of_another_name_is_not_taken(self) -> None:
        """A renamed state file stands beside no part of its own."""
        self.half_done()
        state = self.disk.get(self.house.state)
        self.disk.remove(self.house.state)
        self.disk.put(self.house.state.replace("file.bin", "other"), state)
        self.assertIs(None, self.result_of(self.house.locate(name=None, length=None)))
        self.assertEqual(0, self.disk.open_handles)

    def test_folder_is_resumed(self) -> None:
        """A folder as well as a file."""
        self.use(Storehouse(folder()))
        self.half_done()
        self.assertEqual([0, 1], list(self.found().have))
        self.assertEqual([], self.house.progress)

    def test_other_inode_is_hashed(self) -> None:
        """A part that somebody replaced by a copy keeps its pieces, but they are hashed."""
        self.half_done()
        data = self.disk.get(self.house.part)
        self.disk.put(f"{DATA}/keeps", b"")
        self.disk.remove(self.house.part)
        self.disk.put(f"{DATA}/takes", b"")
        self.disk.put(self.house.part, data)
        self.disk.flip(self.house.part, PIECE)
        store = self.found()
        self.assertEqual([0], list(store.have))
        self.assertTrue(self.house.progress)

    def test_missing_file_of_a_folder_is_made_again(self) -> None:
        """The rest is hashed and kept."""
        self.use(Storehouse(folder()))
        self.half_done()
        self.disk.remove(f"{self.house.part}/a")
        store = self.found()
        self.assertEqual([1], list(store.have))
        self.assertIn(f"{self.house.part}/a", self.disk.paths(DATA))

    def test_damaged_state_is_nothing_to_go_on_from(self) -> None:
        """Without metadata the part cannot be judged; create does that later."""
        self.half_done()
        for place in (0, 20, 60):
            self.disk.flip(self.house.state, place)
            self.assertIs(None, self.result_of(self.house.locate()))
            self.disk.flip(self.house.state, place)
        self.assertEqual([0, 1], list(self.found().have))
        self.assertEqual([self.house.part, self.house.state], self.disk.paths(DATA))

    def test_damaged_bits_are_hashed(self) -> None:
        """With both slots damaged the part is hashed, and the right pieces are found."""
        self.half_done()
        state = self.disk.get(self.house.state)
        for offset in range(limits.STATE_ALIGN_BYTES, len(state), limits.STATE_ALIGN_BYTES):
            self.disk.flip(self.house.state, offset + 8)
        store = self.found()
        self.assertEqual([0, 1], list(store.have))
        self.assertTrue(self.house.progress)

    def test_state_of_another_content_is_not_taken(self) -> None:
        """Who renames state files gains nothing."""
        self.half_done()
        state = self.disk.get(self.house.state)
        self.use(Storehouse(content({"file.bin": 3 * PIECE + 1000}, seed=2), disk=self.disk))
        self.disk.put(self.house.state, state)
        self.assertIs(None, self.result_of(self.house.locate()))

    def test_part_removed(self) -> None:
        """The metadata are still known, so the download begins anew."""
        self.half_done()
        self.disk.remove(self.house.part)
        self.assertEqual([], list(self.found().have))
        self.assertIn(self.house.part, self.disk.paths(DATA))

    def test_descriptor_must_agree(self) -> None:
        """A descriptor edited since then is refused, and nothing stays locked."""
        self.half_done()
        self.error_of(self.house.locate(length=1), DescriptorError)
        self.assertEqual(0, self.disk.open_handles)

    def test_complete_part_is_published(self) -> None:
        """A process that ended before publishing is made good."""
        store = self.result_of(self.house.create())
        for index in store.have.missing():
            self.result_of(store.write_piece(index, self.house.content.piece(index)))
        self.result_of(store.close())
        self.house.restart()
        self.assertTrue(self.found().published)
        self.assertEqual([TARGET], self.disk.paths(DATA))

    def test_target_that_came_by_another_way(self) -> None:
        """A complete copy beside the part is hashed and taken; part and state go."""
        self.half_done()
        self.house.put_target()
        self.assertTrue(self.found().published)
        self.assertEqual([TARGET], self.disk.paths(DATA))

    def test_sha256_of_a_target_is_checked(self) -> None:
        """An existing copy is held against the descriptor's sha256 too, before it is taken."""
        right = hashlib.sha256(self.house.content.data).hexdigest()
        self.house.put_target()
        error = self.error_of(self.house.locate(sha256="0" * 64), StorageError)
        self.assertIn(right, str(error))
        self.assertEqual(0, self.disk.open_handles)
        self.assertTrue(self.found(sha256=right).published)

    def test_target_with_other_content(self) -> None:
        """It is refused, or gives its pieces if it may be replaced."""
        self.half_done()
        data = self.house.content.data
        self.disk.put(TARGET, bytes(PIECE) + data[PIECE : 3 * PIECE] + b"x")
        self.error_of(self.house.locate(), ContentConflict)
        self.assertEqual(0, self.disk.open_handles)
        self.assertEqual([0, 1, 2], list(self.found(replace=True).have))


class RecordTests(LocateCase):
    """A content that was complete."""

    def test_unchanged_files_are_trusted(self) -> None:
        """Nothing is hashed, for a file and for a folder."""
        for made in (one_file(), folder()):
            self.use(Storehouse(made))
            self.publish()
            store = self.found()
            self.assertTrue(store.complete and store.published)
            self.assertEqual([], self.house.progress)

    def test_found_without_a_name(self) -> None:
        """The record knows it."""
        self.publish()
        self.assertEqual(TARGET, self.found(name=None, length=None).path)

    def test_touched_file_is_hashed_and_recorded_again(self) -> None:
        """If it is still the content; the next start trusts it again."""
        self.publish()
        self.disk.touch(TARGET)
        self.assertTrue(self.found().complete)
        self.assertTrue(self.house.progress)
        self.house.restart()
        self.assertTrue(self.found().complete)
        self.assertEqual([], self.house.progress)

    def test_changed_file_is_refused(self) -> None:
        """It is the user's now: nothing is mended without being asked."""
        self.publish()
        self.disk.put(TARGET, self.house.content.data[:-1] + b"x")
        self.error_of(self.house.locate(), ContentConflict)
        self.assertIs(None, self.result_of(self.house.locate(replace=True)))

    def test_removed_file_is_fetched_again(self) -> None:
        """A record without its file is no content."""
        self.publish()
        self.disk.remove(TARGET)
        self.assertIs(None, self.result_of(self.house.locate()))

    def test_record_of_another_place_does_not_count(self) -> None:
        """The same content is wanted in another folder: there it is not."""
        self.publish()
        self.disk.put_folder("/elsewhere")
        self.assertIs(None, self.result_of(self.house.locate(directory="/elsewhere")))

    def test_left_over_state_is_swept_away(self) -> None:
        """After a crash right behind the record."""
        self.half_done()
        state = self.disk.get(self.house.state)
        self.publish_again()
        self.disk.put(self.house.state, state)
        self.assertTrue(self.found().published)
        self.assertEqual([TARGET], self.disk.paths(DATA))

    def publish_again(self) -> None:
        """Finish a half-done download."""
        store = self.found()
        for index in store.have.missing():
            self.result_of(store.write_piece(index, self.house.content.piece(index)))
        self.result_of(store.publish())
        self.result_of(store.close())
        self.house.restart()


class TargetTests(LocateCase):
    """A content that came by another way."""

    def test_file_is_recognised(self) -> None:
        """Its metadata are rebuilt; the executable flag may have got lost in a copy."""
        for name in ("file.bin", "run*"):
            for mode in (0o644, 0o755):
                self.use(Storehouse(content({name: PIECE + 5})))
                name_ = name.rstrip("*")
                self.disk.put(f"{DATA}/{name_}", self.house.content.data, mode=mode)
                store = self.found()
                self.assertTrue(store.published and store.complete)
                self.assertEqual(self.house.content.metadata, store.metadata)
                self.assertIn(self.house.record, self.disk.paths())

    def test_folder_is_recognised(self) -> None:
        """With the flags it was made with."""
        self.use(Storehouse(folder()))
        self.house.put_target()
        self.assertEqual(self.house.content.metadata, self.found().metadata)

    def test_folder_with_more_in_it_is_judged_later(self) -> None:
        """Without metadata nobody knows which files belong to it."""
        self.use(Storehouse(folder()))
        self.house.put_target()
        self.disk.put(f"{DATA}/tree/notes", b"mine")
        self.assertIs(None, self.result_of(self.house.locate()))
        self.assertTrue(self.result_of(self.house.create()).published)

    def test_other_file_is_refused(self) -> None:
        """By its length at once, by its bytes after hashing; or left to create if replaceable."""
        for data, hashed in ((b"other", False), (self.house.content.data[:-1] + b"x", True)):
            self.house.progress.clear()
            self.disk.put(TARGET, data)
            self.error_of(self.house.locate(), ContentConflict)
            self.assertEqual(hashed, bool(self.house.progress))
            self.assertIs(None, self.result_of(self.house.locate(replace=True)))

    def test_unknown_piece_length_decides_nothing(self) -> None:
        """The content may have been cut otherwise."""
        self.disk.put(TARGET, self.house.content.data[:-1] + b"x")
        self.assertIs(None, self.result_of(self.house.locate(piece_length=None)))

    def test_nothing_is_written_beside_a_target(self) -> None:
        """Read-only media can be seeded: the record goes into the state directory only."""
        self.house.put_target()
        self.found()
        changed = {"write", "truncate", "unlink", "rename", "link", "chmod"}
        touched = [c for c in self.disk.calls if c.split()[0] in changed and "file.bin" in c]
        self.assertEqual([], touched)
        self.assertEqual([TARGET, self.house.record], self.disk.paths())

    def test_named_path_may_have_any_name(self) -> None:
        """``seed --path`` finds the content wherever and whatever it is called, through links."""
        self.disk.put("/blobs/1", self.house.content.data)
        self.disk.put_link("/models/current", "/blobs/1")
        store = self.found(path="/models/current")
        self.assertEqual("/models/current", store.path)
        self.assertEqual(self.house.content.piece(1), self.result_of(store.read(1, 0, PIECE)))

    def test_named_folder_may_hold_links(self) -> None:
        """Links to files are followed there, as they were when it was made; to folders never."""
        self.use(Storehouse(folder()))
        files = self.house.content.files()
        for path, data in files.items():
            self.disk.put(f"/blobs/{path}", data, mode=0o755 if "run" in path else 0o644)
            self.disk.put_link(f"/snapshot/{path.removeprefix('tree/')}", f"/blobs/{path}")
        store = self.found(path="/snapshot")
        self.assertEqual(self.house.content.piece(0), self.result_of(store.read(0, 0, PIECE)))
        self.disk.put_link("/snapshot/folder", "/blobs/tree")
        locating = self.house.locate(path="/snapshot", state_directory=None)
        told = str(self.error_of(locating, StorageError))
        self.assertTrue(told.startswith("/snapshot/folder is a symbolic link"), told)

    def test_named_path_with_other_content(self) -> None:
        """It is not what the descriptor names, and is never replaced."""
        self.disk.put("/media/image", b"other")
        for replace in (False, True):
            self.error_of(self.house.locate(path="/media/image", replace=replace), ContentConflict)

    def test_named_path_without_a_name(self) -> None:
        """The name is part of what hash_key commits to: without it, create has to judge."""
        self.disk.put("/media/image", self.house.content.data)
        self.assertIs(None, self.result_of(self.house.locate(path="/media/image", name=None)))
        self.assertTrue(self.result_of(self.house.create(path="/media/image")).published)

    def test_folders_beyond_all_bounds(self) -> None:
        """More than ``limits.FILES_MAX`` files, or deeper than ``limits.PATH_DEPTH``."""
        self.use(Storehouse(folder()))
        self.house.put_target()
        deep = "/".join(["x"] * limits.PATH_DEPTH)
        self.disk.put(f"{DATA}/tree/{deep}/file", b"")
        self.assertIs(None, self.result_of(self.house.locate()))
        self.use(Storehouse(folder()))
        self.house.put_target()
        self.patch(limits, "FILES_MAX", 2)
        self.assertIs(None, self.result_of(self.house.locate()))

    def test_file_that_changes_meanwhile(self) -> None:
        """It is not trusted, and the error says why."""
        workers = StepWorkers()
        self.use(Storehouse(one_file(), workers=workers))
        self.house.put_target()
        locating = self.house.locate()
        while not self.house.progress:
            workers.step()
        self.disk.touch(TARGET)
        workers.finish()
        error = self.error_of(locating, StorageError)
        self.assertIn("changed while it was read", str(error))

    def test_names_no_content_can_have(self) -> None:
        """A folder with such a file is nothing p2pdist made."""
        self.use(Storehouse(folder()))
        self.house.put_target()
        self.disk.put(f"{DATA}/tree/bad\nname", b"")
        self.assertIs(None, self.result_of(self.house.locate()))


class HashingTests(LocateCase):
    """How the work is done."""

    def test_several_workers_at_once(self) -> None:
        """``limits.DISK_THREADS`` pieces are hashed at the same time, and all are counted."""
        workers = StepWorkers()
        made = content({"file.bin": (limits.DISK_THREADS + 3) * PIECE})
        self.use(Storehouse(made, workers=workers))
        self.house.put_target()
        locating = self.house.locate()
        most = 0
        while workers.waiting:
            most = max(most, len(workers.waiting))
            workers.step(-1)
        self.assertEqual(limits.DISK_THREADS, most)
        assert self.result_of(locating) is not None
        self.assertEqual(made.count, len(self.house.progress))
        self.assertEqual((made.metadata.length,) * 2, self.house.progress[-1])

    def test_failure_waits_for_the_others(self) -> None:
        """No file is closed while a worker still reads it."""
        workers = StepWorkers()
        self.use(Storehouse(content({"file.bin": 20 * PIECE}), workers=workers))
        self.house.put_target()
        locating = self.house.locate()
        while len(workers.waiting) < limits.DISK_THREADS:
            workers.step()
        self.disk.calls.clear()
        self.disk.failing["read"] = [13]
        handles = self.disk.open_handles
        workers.step()
        self.assert_waiting(locating)
        self.assertGreaterEqual(self.disk.open_handles, handles)
        workers.finish()
        self.error_of(locating, StorageError)
        self.assertEqual(limits.DISK_THREADS, self.disk.count("read"))
        self.assertEqual(0, self.disk.open_handles)


class RealDiskTests(TestCase):
    """The same on the operating system's files."""

    def setUp(self) -> None:
        """Make folders."""
        base = Path(self.mktemp()).absolute()
        self.data, self.state = base / "data", base / "state"
        for path in (self.data, self.state):
            path.mkdir(parents=True)
        self.place = place_on(
            RealDisk(),
            ImmediateWorkers(),
            Clock(),
            directory=str(self.data),
            state_directory=str(self.state),
        )
        self.progress: list[int] = []

    def tell(self, done: int, total: int) -> None:
        """Record progress."""
        self.progress.append(done * 100 // total)

    def test_whole_life(self) -> None:
        """Begin, stop, resume, publish, stop, trust: for a file, a sparse one and a folder."""
        for made in (one_file(), one_file(zeros=(1,)), folder()):
            descriptor = made.descriptor()
            store = self.result_of(
                create(self.place, made.hash_key, made.metadata, descriptor, self.tell)
            )
            self.result_of(store.write_piece(0, made.piece(0)))
            self.result_of(store.close())
            resumed = self.result_of(locate(self.place, descriptor, self.tell))
            assert resumed is not None
            self.assertTrue(resumed.have.has(0))
            for index in resumed.have.missing():
                self.result_of(resumed.write_piece(index, made.piece(index)))
            self.result_of(resumed.publish())
            self.assertEqual(made.piece(1), self.result_of(resumed.read(1, 0, PIECE)))
            self.result_of(resumed.close())
            found = self.result_of(locate(self.place, descriptor, self.tell))
            assert found is not None
            self.assertTrue(found.published and found.complete)
            self.assertEqual([], self.progress)
            for path, data in made.files().items():
                self.assertEqual(data, (self.data / path).read_bytes())
            self.result_of(found.close())
            top = self.data / made.metadata.name
            self.assertEqual([top.name], os.listdir(self.data))  # noqa: PTH208 -- names
            top.rename(self.data.parent / f"done {made.hash_key.hex()}")

    def test_publishing_leaves_the_usual_modes(self) -> None:
        """What other programs would have written: 0644 less the umask."""
        made = one_file()
        store = self.result_of(
            create(self.place, made.hash_key, made.metadata, made.descriptor(), self.tell)
        )
        for index in store.have.missing():
            self.result_of(store.write_piece(index, made.piece(index)))
        self.result_of(store.publish())
        mode = (self.data / "file.bin").stat().st_mode & 0o777
        self.assertEqual(0o644 & ~RealDisk().umask, mode)
        self.result_of(store.close())
