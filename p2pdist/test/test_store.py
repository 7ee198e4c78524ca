"""Tests of :mod:`p2pdist.storage.store`."""

from __future__ import annotations

import errno
import hashlib
from typing import Any

from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.errors import (
    ContentConflict,
    DiskFull,
    HashMismatch,
    LocalProtocolError,
    StorageError,
)
from p2pdist.storage.loan import Loan
from p2pdist.storage.store import Store
from p2pdist.test.fakes import StepWorkers
from p2pdist.test.simdisk import PAGE_BYTES
from p2pdist.test.storehouse import DATA, PIECE, Storehouse, content, folder, one_file
from p2pdist.test.support import TestCase, given

TARGET = f"{DATA}/file.bin"


class StoreCase(TestCase):
    """A store that was just created."""

    def setUp(self) -> None:
        """Create it."""
        self.begin(Storehouse(one_file()))

    def begin(self, house: Storehouse, **changes: Any) -> None:
        """Create a store in ``house``."""
        self.house = house
        self.disk = house.disk
        creating = house.create(**changes)
        if isinstance(house.workers, StepWorkers):
            house.workers.finish()
        self.store: Store = self.result_of(creating)
        self.lost: list[int] = []
        self.store.on_lost = self.lost.append

    def begin_stepwise(self) -> StepWorkers:
        """Create a store whose work waits for the test."""
        workers = StepWorkers()
        self.begin(Storehouse(one_file(), workers=workers))
        return workers

    def piece(self, index: int) -> bytes:
        """Return a piece as it should be."""
        return self.house.content.piece(index)

    def write(self, *indices: int) -> None:
        """Write pieces."""
        for index in indices:
            self.result_of(self.store.write_piece(index, self.piece(index)))

    def finish(self) -> None:
        """Write all that is missing and publish."""
        self.write(*self.store.have.missing())
        self.result_of(self.store.publish())

    def next_process(self) -> Store | None:
        """Return what another process finds."""
        self.house.restart()
        return self.result_of(self.house.locate())


class WritingTests(StoreCase):
    """Pieces that come from peers."""

    def test_right_piece_is_here(self) -> None:
        """It is in ``have`` when the Deferred fires, and in its place on disk."""
        self.write(1)
        self.assertEqual([1], list(self.store.have))
        self.assertEqual(self.piece(1), self.disk.get(self.house.part)[PIECE : 2 * PIECE])

    def test_wrong_bytes_are_not_written(self) -> None:
        """HashMismatch names the piece, and the disk is not touched."""
        before = self.disk.get(self.house.part)
        wrong = bytearray(self.piece(2))
        wrong[77] ^= 1
        error = self.error_of(self.store.write_piece(2, bytes(wrong)), HashMismatch)
        self.assertEqual(2, error.index)
        self.assertEqual([], list(self.store.have))
        self.assertEqual(before, self.disk.get(self.house.part))

    def test_wrong_size_is_a_mismatch(self) -> None:
        """Too short, too long, another piece's size: nothing of it is written."""
        for data in (b"", self.piece(0) + b"x", self.piece(3)):
            self.error_of(self.store.write_piece(0, data), HashMismatch)
        self.assertEqual([], list(self.store.have))

    def test_again_is_fine(self) -> None:
        """A piece that is here is left alone, whatever comes."""
        self.write(0, 0)
        self.result_of(self.store.write_piece(0, b"anything"))
        self.assertEqual(1, self.store.have.count_set)

    def test_at_the_same_time_is_fine(self) -> None:
        """Two writes of one piece both succeed, and a bad one between them fails alone."""
        workers = self.begin_stepwise()
        good, bad, again = (
            self.store.write_piece(0, data) for data in (self.piece(0), b"bad", self.piece(0))
        )
        workers.finish()
        self.result_of(good)
        self.result_of(again)
        self.error_of(bad, HashMismatch)
        self.assertEqual([0], list(self.store.have))

    def test_piece_is_not_here_before_it_is_written(self) -> None:
        """While the worker is busy, the piece is missing."""
        workers = self.begin_stepwise()
        writing = self.store.write_piece(0, self.piece(0))
        self.assert_waiting(writing)
        self.assertFalse(self.store.have.has(0))
        workers.finish()
        self.result_of(writing)
        self.assertTrue(self.store.have.has(0))

    def test_no_such_piece_is_our_bug(self) -> None:
        """Indices are checked before they come here."""
        for index in (-1, 4):
            self.error_of(self.store.write_piece(index, b""), LocalProtocolError)

    def test_closed_store_takes_nothing(self) -> None:
        """After close there is a StorageError."""
        self.result_of(self.store.close())
        self.error_of(self.store.write_piece(0, self.piece(0)), StorageError)

    def test_memoryviews_are_taken(self) -> None:
        """No copy is needed to hand over a piece."""
        self.result_of(self.store.write_piece(0, memoryview(self.piece(0))))
        self.assertTrue(self.store.have.has(0))

    def test_full_disk_loses_one_piece_only(self) -> None:
        """DiskFull says where and how much; the piece can be written when there is room."""
        house = Storehouse(one_file())
        house.disk.unsupported.add("allocate")
        self.begin(house)
        self.write(0)
        free = house.disk.free_bytes(house.disk.open_root("/"))
        house.disk.capacity -= free - 2 * PAGE_BYTES
        error = self.error_of(self.store.write_piece(1, self.piece(1)), DiskFull)
        self.assertIn(f"{DATA} is full: {2 * PIECE + 1000} bytes of file.bin", str(error))
        self.assertEqual([0], list(self.store.have))
        self.assertEqual(self.piece(0), self.result_of(self.store.read(0, 0, PIECE)))
        house.disk.capacity = 1 << 40
        self.finish()
        self.assertEqual(house.content.data, house.disk.get(TARGET))

    @given(st.permutations(range(4)))
    def test_any_order(self, order: list[int]) -> None:
        """Pieces may come in any order, in a file and in a folder."""
        for made in (one_file(), folder()):
            self.begin(Storehouse(made))
            self.write(*order[: made.count])
            self.finish()
            found = {path: self.disk.get(f"{DATA}/{path}") for path in made.files()}
            self.assertEqual(made.files(), found)


class SyncTests(StoreCase):
    """Data, then bits."""

    def bits_after_power_loss(self) -> list[int] | None:
        """Return the pieces the next process trusts without hashing; None if it had to hash."""
        self.disk.crash(lambda: 0.0)
        found = self.next_process()
        assert found is not None
        return None if self.house.progress else list(found.have)

    def test_bits_follow_after_a_while(self) -> None:
        """After ``limits.SYNC_EVERY_S`` pieces are durable, and no timer is left."""
        self.write(0, 1)
        self.house.clock.advance(limits.SYNC_EVERY_S)
        self.assertEqual([], self.house.clock.getDelayedCalls())
        self.assertEqual([0, 1], self.bits_after_power_loss())

    def test_timer_is_not_pushed_back(self) -> None:
        """The first unsynced piece waits ``limits.SYNC_EVERY_S`` at most, whatever follows."""
        self.write(0)
        self.house.clock.advance(limits.SYNC_EVERY_S - 1)
        self.write(1)
        self.house.clock.advance(1)
        self.assertEqual([0, 1], self.bits_after_power_loss())

    def test_many_bytes_do_not_wait(self) -> None:
        """``limits.SYNC_BYTES`` of new pieces are synced at once."""
        self.patch(limits, "SYNC_BYTES", 2 * PIECE)
        self.write(0)
        self.house.clock.advance(0)
        self.assertEqual(0, self.disk.count("sync_data"))
        self.write(1)
        self.house.clock.advance(0)
        self.assertEqual([0, 1], self.bits_after_power_loss())

    def test_idle_store_does_not_sync(self) -> None:
        """Without new pieces nothing is written."""
        self.disk.calls.clear()
        self.house.clock.advance(10 * limits.SYNC_EVERY_S)
        self.result_of(self.store.sync())
        self.assertEqual([], self.disk.calls)

    def test_closing_makes_all_durable(self) -> None:
        """Nothing that was written before close is lost after it."""
        self.write(0, 2)
        self.result_of(self.store.close())
        self.assertEqual([], self.house.clock.getDelayedCalls())
        self.assertEqual(0, self.disk.open_handles)
        self.assertEqual([0, 2], self.bits_after_power_loss())

    def test_failed_sync_is_made_good_by_writing_again(self) -> None:
        """What the kernel dropped is written once more, and the next sync is the proof."""
        self.write(0, 1)
        self.disk.failing["sync_data"] = [errno.EIO]
        self.error_of(self.store.sync(), StorageError)
        # What this disk forgets on request was all it had of the file: both pieces are gone.
        self.assertEqual([0, 1], self.lost)
        self.assertEqual([], list(self.store.have))
        self.write(0)
        self.result_of(self.store.sync())
        self.assertEqual([0], self.bits_after_power_loss())

    def test_pieces_still_in_the_cache_are_kept(self) -> None:
        """Where the advice to forget does nothing, the cached bytes are written again."""
        self.patch(type(self.disk), "forget", lambda *_: None)
        self.write(0, 1)
        self.disk.failing["sync_data"] = [errno.EIO]
        self.error_of(self.store.sync(), StorageError)
        self.assertEqual([], self.lost)
        self.result_of(self.store.sync())
        self.assertEqual([0, 1], self.bits_after_power_loss())

    def test_failed_sync_is_tried_again(self) -> None:
        """The timer comes back, and the trouble is in the log as a warning."""
        self.patch(type(self.disk), "forget", lambda *_: None)
        self.write(0)
        self.disk.failing["sync_data"] = [errno.EIO]
        self.house.clock.advance(limits.SYNC_EVERY_S)
        self.house.clock.advance(limits.SYNC_EVERY_S)
        self.assertEqual([0], self.bits_after_power_loss())

    def test_nothing_is_written_while_syncs_fail(self) -> None:
        """The next write first needs a sync that works, so what is in doubt stays bounded."""
        self.write(0)
        self.disk.failing["sync_data"] = [errno.EIO] * 3
        self.error_of(self.store.sync(), StorageError)
        self.error_of(self.store.write_piece(1, self.piece(1)), StorageError)
        self.assertFalse(self.store.have.has(1))
        self.disk.failing.clear()
        self.write(1)
        self.assertTrue(self.store.have.has(1))

    def test_write_during_a_failing_sync_is_done_again(self) -> None:
        """Its pages may have been marked clean in mid-write."""
        workers = self.begin_stepwise()
        first = self.store.write_piece(0, self.piece(0))
        workers.finish()
        self.result_of(first)
        self.disk.calls.clear()
        self.disk.failing["sync_data"] = [errno.EIO]
        syncing, second = self.store.sync(), self.store.write_piece(1, self.piece(1))
        workers.compute(1)  # piece 1 is written, but that is not known yet
        workers.step(0)  # the sync fails
        workers.finish()
        self.error_of(syncing, StorageError)
        self.result_of(second)
        writes = [call for call in self.disk.calls if call.endswith(f" {PIECE}+{PIECE}")]
        self.assertEqual(2, sum(call.startswith("write") for call in writes))

    def test_piece_that_came_again_during_a_sync_is_synced_again(self) -> None:
        """Lost and written anew while a sync runs, it is not covered by that sync."""
        workers = self.begin_stepwise()
        writing = self.store.write_piece(0, self.piece(0))
        workers.finish()
        self.result_of(writing)
        syncing = self.store.sync()
        workers.compute(0)
        self.disk.failing["read"] = [errno.EIO]
        reading = self.store.read(0, 0, 5)
        workers.step(1)
        self.error_of(reading, StorageError)
        again = self.store.write_piece(0, self.piece(0))
        workers.step(1)
        self.result_of(again)
        workers.finish()
        self.result_of(syncing)
        syncs = self.disk.count("sync_data")
        self.house.clock.advance(limits.SYNC_EVERY_S)
        workers.finish()
        self.assertEqual(syncs + 2, self.disk.count("sync_data"))

    def lose_in_the_cache(self) -> StepWorkers:
        """Write two pieces, the first of which cannot be read; drop no page from the cache."""
        workers = self.begin_stepwise()
        self.patch(type(self.disk), "forget", lambda *_: None)
        for index in (0, 1):
            self.store.write_piece(index, self.piece(index))
        workers.finish()
        self.disk.failing["read"] = [errno.EIO]
        reading = self.store.read(0, 0, 5)
        workers.finish()
        self.error_of(reading, StorageError)
        return workers

    def assert_durable(self, workers: StepWorkers) -> None:
        """Sync, and compare what is on the device."""
        syncing = self.store.sync()
        workers.finish()
        self.result_of(syncing)
        self.assertEqual([0, 1], list(self.store.have)[:2])
        self.disk.crash(lambda: 0.0)
        self.assertEqual(self.piece(0) + self.piece(1), self.disk.get(self.house.part)[: 2 * PIECE])

    def test_unreadable_piece_is_not_believed_from_the_cache(self) -> None:
        """What a failed sync left in the cache is no proof when the disk can be read again."""
        workers = self.lose_in_the_cache()
        self.disk.failing["sync_data"] = [errno.EIO]
        syncing = self.store.sync()
        workers.finish()
        self.error_of(syncing, StorageError)
        self.house.clock.advance(limits.DISK_RETRY_S)
        workers.finish()
        self.assert_durable(workers)

    def test_unreadable_piece_found_during_a_failing_sync_is_written_again(self) -> None:
        """Its pages may have been marked clean between the look at it and our knowing of it."""
        workers = self.lose_in_the_cache()
        self.house.clock.advance(0)
        workers.finish()
        self.store.write_piece(2, self.piece(2))
        workers.finish()
        syncing = self.store.sync()
        self.house.clock.advance(limits.DISK_RETRY_S)
        workers.compute(1)  # piece 0 is there and written again, but that is not known yet
        self.disk.failing["sync_data"] = [errno.EIO]
        workers.finish()
        self.error_of(syncing, StorageError)
        self.assert_durable(workers)

    def test_slow_disk_does_not_pile_up_syncs(self) -> None:
        """While one runs, any number of calls share the next; then publishing has its turn.

        As a download on a disk slower than the network has it: each piece asks for a sync.
        """
        self.patch(limits, "SYNC_BYTES", PIECE)
        workers = StepWorkers()
        self.begin(Storehouse(content({"file.bin": 300 * PIECE}), workers=workers))
        first = self.store.write_piece(0, self.piece(0))
        workers.step()
        self.result_of(first)
        self.house.clock.advance(0)  # its sync is in a worker, and stays there
        for index in range(1, 300):
            writing = self.store.write_piece(index, self.piece(index))
            workers.step(1)
            self.result_of(writing)
            self.house.clock.advance(0)
        calls = [self.store.sync() for _ in range(300)]
        publishing = self.store.publish()
        before = self.disk.count("sync_data")
        workers.finish()
        for call in calls:
            self.result_of(call)
        self.result_of(publishing)
        self.assertTrue(self.store.published)
        self.assertLessEqual(self.disk.count("sync_data") - before, 6)

    def test_failing_sync_tells_all_who_wait(self) -> None:
        """Each call of :meth:`Store.sync` that shares it fails with its error."""
        workers = self.begin_stepwise()
        writing = self.store.write_piece(0, self.piece(0))
        workers.finish()
        self.result_of(writing)
        running = self.store.sync()
        sharing = [self.store.sync() for _ in range(3)]
        workers.step()  # the data
        self.store.mark_unsynced(self.store.have)
        workers.compute()  # the bits
        self.disk.failing["sync_data"] = [errno.EIO]
        workers.finish()
        self.result_of(running)
        for call in sharing:
            self.error_of(call, StorageError)

    def test_failing_state_file_costs_no_data(self) -> None:
        """When the bits cannot be written, the pieces stay, and the bits follow later."""
        self.write(0)
        self.disk.failures[len(self.disk.calls) + 1] = errno.ENOSPC  # after the data's sync
        self.error_of(self.store.sync(), DiskFull)
        self.assertEqual([0], list(self.store.have))
        self.assertEqual([], self.lost)
        self.house.clock.advance(limits.SYNC_EVERY_S)
        self.assertEqual([0], self.bits_after_power_loss())

    def test_close_does_not_fail_with_the_disk(self) -> None:
        """What cannot be synced is said in the log and fetched again another time."""
        self.write(0)
        self.disk.failing["sync_data"] = [errno.EIO]
        self.result_of(self.store.close())
        self.assertEqual(0, self.disk.open_handles)


class ReadingTests(StoreCase):
    """Pieces for peers."""

    def test_reads_what_was_written(self) -> None:
        """Any range of a piece, in a file and in a folder."""
        for made in (one_file(), folder()):
            self.begin(Storehouse(made))
            self.write(0, 1)
            self.assertEqual(self.piece(1), self.result_of(self.store.read(1, 0, PIECE)))
            self.assertEqual(self.piece(0)[9:500], self.result_of(self.store.read(0, 9, 491)))
            self.assertEqual(b"", self.result_of(self.store.read(0, 7, 0)))

    def test_missing_pieces_are_not_read(self) -> None:
        """There is a StorageError, and no piece is lost by it."""
        self.error_of(self.store.read(0, 0, 1), StorageError)
        self.assertEqual([], self.lost)

    def test_ranges_are_checked(self) -> None:
        """A range that is not inside the piece is our own bug."""
        self.write(3)
        for offset, size in ((-1, 1), (0, 1001), (1000, 1), (5, -1)):
            self.error_of(self.store.read(3, offset, size), LocalProtocolError)

    def test_closed_store_reads_nothing(self) -> None:
        """After close there is a StorageError."""
        self.write(0)
        self.result_of(self.store.close())
        self.error_of(self.store.read(0, 0, 1), StorageError)

    def test_unreadable_piece_is_withdrawn(self) -> None:
        """EIO takes the piece out of ``have``, tells it, and it may be written again."""
        self.write(0, 1)
        self.disk.failing["read"] = [errno.EIO]
        self.error_of(self.store.read(0, 0, 5), StorageError)
        self.assertEqual([0], self.lost)
        self.assertEqual([1], list(self.store.have))
        self.write(0)
        self.assertEqual(self.piece(0), self.result_of(self.store.read(0, 0, PIECE)))

    def test_withdrawal_reaches_the_disk_at_once(self) -> None:
        """The next process does not believe in the piece either."""
        self.write(0, 1)
        self.result_of(self.store.sync())
        self.disk.failing["read"] = [errno.EIO]
        self.error_of(self.store.read(0, 0, 5), StorageError)
        self.house.clock.advance(0)
        self.disk.flip(self.house.part, 10)  # else it would be found good, and taken back
        self.disk.crash(lambda: 0.0)
        found = self.next_process()
        assert found is not None
        self.assertEqual([1], list(found.have))

    def test_want_of_handles_says_nothing_of_the_piece(self) -> None:
        """EMFILE fails the read, but the piece stays."""
        self.write(0)
        for call in ("facts", "read"):
            self.disk.failing[call] = [errno.EMFILE]
            self.error_of(self.store.read(0, 0, 5), StorageError)
        self.assertEqual([0], list(self.store.have))

    def test_own_writes_are_no_change(self) -> None:
        """A piece that was hashed on its way in is not hashed again on its way out."""
        self.write(0, 1)
        self.disk.calls.clear()
        self.result_of(self.store.read(0, 5, 7))
        self.assertEqual(1, self.disk.count("read"))
        self.assertTrue(self.disk.calls[-1].endswith(" 5+7"))

    def test_cut_part_is_noticed(self) -> None:
        """A part that somebody cut is not served beyond its end."""
        self.write(0, 1)
        self.disk.put(self.house.part, self.house.content.data[:PIECE])
        self.error_of(self.store.read(1, 0, 5), StorageError)
        self.assertEqual(self.piece(0), self.result_of(self.store.read(0, 0, PIECE)))
        self.assertEqual([1], self.lost)

    def test_trusted_pieces_are_hashed_before_they_are_first_served(self) -> None:
        """A bit from before the start is true, but the disk may have rotted since."""
        self.write(0, 1)
        self.result_of(self.store.close())
        self.disk.flip(self.house.part, 10)
        found = self.next_process()
        assert found is not None
        self.assertEqual([0, 1], list(found.have))
        self.error_of(found.read(0, 100, 5), StorageError)
        self.assertEqual([1], list(found.have))


class SeedingTests(StoreCase):
    """A published store."""

    def setUp(self) -> None:
        """Publish one."""
        super().setUp()
        self.finish()

    def test_changed_byte_is_found_by_the_time(self) -> None:
        """A changed file is hashed again piece by piece; only the bad one is withdrawn."""
        for index in range(4):
            self.result_of(self.store.read(index, 0, 5))
        self.disk.flip(TARGET, PIECE + 5)
        self.disk.touch(TARGET)
        self.assertEqual(self.piece(0)[:5], self.result_of(self.store.read(0, 0, 5)))
        self.error_of(self.store.read(1, 100, 5), StorageError)
        self.assertEqual([1], self.lost)
        self.assertFalse(self.store.complete)
        self.assertEqual(self.piece(2)[:5], self.result_of(self.store.read(2, 0, 5)))

    def test_unchanged_file_is_hashed_once(self) -> None:
        """After the first time only the bytes asked for are read."""
        self.result_of(self.store.read(0, 0, 5))
        self.disk.calls.clear()
        self.result_of(self.store.read(0, 9, 5))
        self.assertEqual(1, self.disk.count("read"))
        self.assertTrue(self.disk.calls[-1].endswith(" 9+5"))

    def test_removed_file_is_served_while_it_is_open(self) -> None:
        """Its bytes are still there, until the handle is closed."""
        self.result_of(self.store.read(0, 0, 5))
        self.disk.remove(TARGET)
        self.assertEqual(self.piece(1)[:5], self.result_of(self.store.read(1, 0, 5)))

    def test_lost_pieces_are_not_mended(self) -> None:
        """The user's file is never written to."""
        self.disk.flip(TARGET, 5)
        self.disk.touch(TARGET)
        self.error_of(self.store.read(0, 0, 5), StorageError)
        before = self.disk.get(TARGET)
        self.error_of(self.store.write_piece(0, self.piece(0)), StorageError)
        self.assertEqual(before, self.disk.get(TARGET))
        self.assertEqual([], self.house.clock.getDelayedCalls())

    def test_change_in_the_middle_of_a_read(self) -> None:
        """A read that began before a change was seen does not vouch for the piece after it."""
        workers = StepWorkers()
        house = Storehouse(one_file(), disk=self.disk, workers=workers)
        locating = house.locate()
        workers.finish()
        store = self.result_of(locating)
        assert store is not None
        early, late = store.read(0, 0, 5), store.read(1, 0, 5)
        workers.compute(0)  # piece 0 was read, but that is not known yet
        self.disk.touch(TARGET)
        self.disk.flip(TARGET, 3)
        workers.step(1)  # piece 1 is read, and the change is seen
        workers.finish()
        self.result_of(early)
        self.result_of(late)
        again = store.read(0, 0, 5)
        workers.finish()
        self.error_of(again, StorageError)


class PublishingTests(StoreCase):
    """From part to file."""

    def test_file_takes_its_name(self) -> None:
        """Under its name stands the content, and nothing beside it."""
        self.finish()
        self.assertEqual([TARGET], self.disk.paths(DATA))
        self.assertEqual(self.house.content.data, self.disk.get(TARGET))
        self.assertTrue(self.store.published)
        self.assertEqual(TARGET, self.store.path)

    def test_again_is_fine(self) -> None:
        """Once published it stays so; two calls at once are one."""
        self.write(0, 1, 2, 3)
        first, second = self.store.publish(), self.store.publish()
        self.result_of(first)
        self.result_of(second)
        self.result_of(self.store.publish())

    def test_pieces_missing_is_our_bug(self) -> None:
        """An incomplete content gets no name."""
        self.write(0)
        self.error_of(self.store.publish(), LocalProtocolError)
        self.assertEqual([self.house.part, self.house.state], self.disk.paths(DATA))

    def test_serving_goes_on(self) -> None:
        """Reads before, during and after publishing all succeed."""
        workers = self.begin_stepwise()
        for index in range(4):
            writing = self.store.write_piece(index, self.piece(index))
            workers.finish()
            self.result_of(writing)
        publishing = self.store.publish()
        served: list[Deferred[bytes | Loan]] = []
        while workers.waiting:
            served.append(self.store.read(len(served) % 4, 0, 5))
            workers.step(-1)
            workers.step()
        self.result_of(publishing)
        for number, reading in enumerate(served):
            self.assertEqual(self.piece(number % 4)[:5], self.result_of(reading))

    def test_sha256_is_checked(self) -> None:
        """A descriptor whose sha256 is another file's is refused in a sentence, at the end."""
        right = hashlib.sha256(self.house.content.data).hexdigest()
        for said, fits in ((right, True), (right.upper(), True), ("0" * 64, False)):
            self.begin(Storehouse(one_file()), sha256=said)
            self.write(0, 1, 2, 3)
            if fits:
                self.result_of(self.store.publish())
            else:
                error = self.error_of(self.store.publish(), StorageError)
                self.assertIn(right, str(error))
                self.assertIn(said, str(error))
                self.assertIn(self.house.part, self.disk.paths(DATA))

    def test_file_that_appeared_is_not_replaced(self) -> None:
        """Without ``replace`` the download waits beside it, whole."""
        self.write(0, 1, 2, 3)
        self.disk.put(TARGET, b"somebody else's")
        error = self.error_of(self.store.publish(), ContentConflict)
        self.assertIn(TARGET, str(error))
        self.assertEqual(b"somebody else's", self.disk.get(TARGET))
        self.disk.remove(TARGET)
        self.result_of(self.store.publish())
        self.assertEqual(self.house.content.data, self.disk.get(TARGET))

    def test_record_that_cannot_be_kept_is_no_failure(self) -> None:
        """The content is complete all the same; the next start hashes it."""
        self.write(0, 1, 2, 3)
        self.disk.failing["make_directory"] = [errno.EACCES]
        self.result_of(self.store.publish())
        self.assertNotIn(self.house.record, self.disk.paths())

    def test_nothing_is_kept_without_a_state_directory(self) -> None:
        """A throw-away node leaves the file only."""
        self.begin(Storehouse(one_file()), state_directory=None)
        self.finish()
        self.assertEqual([TARGET], self.disk.paths())

    def test_executable_can_run(self) -> None:
        """No handle is left open for writing: such a file could not be run (ETXTBSY)."""
        self.finish()
        self.disk.calls.clear()
        self.result_of(self.store.read(0, 0, 5))
        self.assertEqual(["open_file READ file.bin"], [c for c in self.disk.calls if "open_f" in c])

    def test_unreadable_in_the_end(self) -> None:
        """A read that fails while the sha256 is computed stops publishing; again is fine."""
        self.begin(
            Storehouse(one_file()), sha256=hashlib.sha256(self.house.content.data).hexdigest()
        )
        self.write(0, 1, 2, 3)
        self.disk.failing["read"] = [errno.EIO]
        self.error_of(self.store.publish(), StorageError)
        self.assertFalse(self.store.published)
        self.result_of(self.store.publish())


class ClosingTests(StoreCase):
    """The end."""

    def test_again_is_fine(self) -> None:
        """Closing twice closes once, and both calls fire when it is done."""
        workers = self.begin_stepwise()
        first, second = self.store.close(), self.store.close()
        self.assert_waiting(second)
        workers.finish()
        self.result_of(first)
        self.result_of(second)
        self.assertEqual(0, self.disk.open_handles)

    def test_calls_under_way_finish_first(self) -> None:
        """No handle is closed under a worker, and what it wrote is kept."""
        workers = self.begin_stepwise()
        writing = self.store.write_piece(0, self.piece(0))
        closing = self.store.close()
        self.assert_waiting(closing)
        workers.finish()
        self.result_of(writing)
        self.result_of(closing)
        self.disk.crash(lambda: 0.0)
        house = Storehouse(one_file(), disk=self.disk, clock=Clock())
        found = self.result_of(house.locate())
        assert found is not None
        self.assertEqual([0], list(found.have))

    def test_close_waits_for_a_sync(self) -> None:
        """A sync under way ends before the files are closed."""
        workers = self.begin_stepwise()
        writing = self.store.write_piece(0, self.piece(0))
        workers.finish()
        self.result_of(writing)
        syncing, closing = self.store.sync(), self.store.close()
        workers.finish()
        self.result_of(syncing)
        self.result_of(closing)
        self.assertEqual(0, self.disk.open_handles)
        self.assertEqual([], self.house.clock.getDelayedCalls())

    def test_waiting_calls_are_told(self) -> None:
        """A publish that waited for its turn fails when close came first."""
        workers = self.begin_stepwise()
        for index in range(4):
            writing = self.store.write_piece(index, self.piece(index))
            workers.finish()
            self.result_of(writing)
        syncing = self.store.sync()
        publishing, closing = self.store.publish(), self.store.close()
        workers.finish()
        self.result_of(syncing)
        self.error_of(publishing, StorageError)
        self.result_of(closing)

    def test_published_store_closes_too(self) -> None:
        """All handles go back."""
        self.finish()
        self.result_of(self.store.read(0, 0, 5))
        self.result_of(self.store.close())
        self.assertEqual(0, self.disk.open_handles)
        self.assertEqual([], self.house.clock.getDelayedCalls())
