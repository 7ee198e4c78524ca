"""Crashes and disk failures at every single step of a download (``storage`` as a whole).

A small download runs on :class:`~p2pdist.test.simdisk.SimDisk` once for every operation k it does:
the power goes off before the k-th, or the k-th fails. Afterwards no bit may be set whose data is
not there, and the download must come to its end. Source: libtorrent's "fail every allocation in
turn" and ALICE (OSDI 2014), applied to disk operations.
"""

from __future__ import annotations

import errno
import gc
import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.errors import StorageError
from p2pdist.storage.store import Store
from p2pdist.test.simdisk import PowerLost, SimDisk, any_share
from p2pdist.test.storehouse import DATA, PIECE, Content, Storehouse, content, folder, one_file
from p2pdist.test.support import TestCase

T = TypeVar("T")

STEPS_MAX = 5000
"""More operations than any download here takes."""


@define
class Life:
    """One process after the other on one disk, each doing what a node does with a download.

    Attributes:
        house: disk and content.
        store: the open store, if any.
        replace: whether a target may be replaced.
        trouble: errors that were answered to us, as they should.
        durable: pieces that a sync made durable.
        rng: shuffles the pieces and decides when to sync, if given.
    """

    house: Storehouse
    store: Store | None = None
    replace: bool = False
    trouble: list[Exception] = field(factory=list)
    durable: set[int] = field(factory=set)
    rng: random.Random | None = None

    def answer(self, waiting: Deferred[T]) -> T | None:
        """Return a result; note a StorageError; let everything else out."""
        results: list[T | Failure] = []
        waiting.addBoth(results.append)
        assert results, "did not fire"
        (result,) = results
        if isinstance(result, Failure):
            error = result.value
            if not isinstance(error, StorageError):
                result.raiseException()
            self.trouble.append(error)
            return None
        return result

    def next_process(self) -> None:
        """Forget what the old one knew."""
        self.house.restart()
        self.store = None

    def begin(self) -> None:
        """Open what is there, or begin anew."""
        self.store = self.answer(self.house.locate(replace=self.replace))
        if self.store is None:
            self.store = self.answer(self.house.create(replace=self.replace))

    def go_on(self) -> None:
        """Fetch what is missing, serve a little, publish, stop."""
        store, house = self.store, self.house
        if store is None:
            return
        missing = [int(index) for index in store.have.missing()]
        if self.rng is not None:
            self.rng.shuffle(missing)
        for number, index in enumerate(missing):
            if self.rng is not None:
                number = self.rng.randrange(4)  # noqa: PLW2901 -- the sync after it, or none
            self.answer(store.write_piece(index, house.content.piece(index)))
            if number == 0:
                house.clock.advance(limits.SYNC_EVERY_S)
            elif number % 2 == 0:
                here = set(store.have)
                if self.answer(store.sync().addCallback(lambda _: True)):
                    self.durable |= here
        for index in tuple(store.have)[:2]:
            data = self.answer(store.read(index, 0, 5))
            assert data is None or data == house.content.piece(index)[:5]
            self.durable &= set(store.have)  # what cannot be read is withdrawn
        if store.complete and self.answer(store.publish().addCallback(lambda _: True)):
            self.durable |= set(store.have)
        self.answer(store.close())
        self.store = None

    def held(self) -> bytes:
        """Return all bytes of the content as they are on disk, under either name."""
        disk, metadata, chunks = self.house.disk, self.house.content.metadata, []
        here = set(disk.paths())
        for entry in metadata.files:
            path = "/".join([self.house.part, *entry.path[1:]])
            if path not in here:
                path = f"{DATA}/{entry.joined}"
            chunks.append(disk.get(path))
        return b"".join(chunks)


def survivals(seeds: int) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield what may happen to unsynced changes when the power goes off."""
    yield "all lost", lambda: 0.0
    yield "all kept", lambda: 1.0
    for seed in range(seeds):
        yield f"seed {seed}", any_share(random.Random(seed))


class CrashCase(TestCase):
    """The checks."""

    def tearDown(self) -> None:
        """A timed sync that meets the end of the world says so in the log.

        It does when its Deferred is collected: here, and not in whichever test comes later.
        """
        gc.collect()
        self.flushLoggedErrors(PowerLost)

    def check_truth(self, life: Life, what: str) -> None:
        """No bit is set without its data."""
        assert life.store is not None
        held = life.held()
        for index in life.store.have:
            piece = held[index * PIECE : (index + 1) * PIECE]
            self.assertEqual(life.house.content.piece(index), piece, f"{what}: piece {index}")

    def check_finished(self, life: Life, what: str, *, recorded: bool = True) -> None:
        """Under the final names stands the content and nothing of ours beside it."""
        house = life.house
        expected = [f"{DATA}/{path}" for path in sorted(house.content.files())]
        self.assertEqual(expected, house.disk.paths(DATA), what)
        self.assertEqual(house.content.data, life.held(), what)
        self.assertEqual([], life.trouble, what)
        self.assertEqual(0, house.disk.open_handles, what)
        for entry in house.content.metadata.files:
            mode = 0o755 if entry.executable else 0o644
            self.assertEqual(mode, house.disk.mode(f"{DATA}/{entry.joined}"), what)
        house.progress.clear()
        life.begin()
        assert life.store is not None
        self.assertTrue(life.store.published, what)
        if recorded:
            self.assertEqual([], house.progress, f"{what}: the record is not trusted")

    def recover(self, life: Life, what: str) -> None:
        """A new process finds only what is true and all that was durable, and finishes."""
        life.next_process()
        life.trouble.clear()
        life.begin()
        self.assertEqual([], life.trouble, what)
        self.check_truth(life, what)
        assert life.store is not None
        self.assertLessEqual(life.durable, set(life.store.have), what)
        life.go_on()
        self.check_finished(life, what)

    def crash_everywhere(
        self,
        made: Content,
        *,
        seeds: int,
        prepare: Callable[[Storehouse], None] = lambda _: None,
        replace: bool = False,
    ) -> None:
        """Switch off before every operation; then start again."""
        for step in range(STEPS_MAX):
            ended = False
            for name, survive in survivals(seeds):
                house = Storehouse(made)
                prepare(house)
                life = Life(house, replace=replace)
                house.disk.crash_before = step
                try:
                    life.begin()
                    life.go_on()
                    ended = True
                except PowerLost:
                    pass
                what = f"crash before operation {step}, after {house.disk.calls[-1:]}, {name}"
                house.disk.crash(survive)
                self.recover(life, what)
            if ended:
                return
        self.fail("the download does not end")

    def half_done(self, house: Storehouse) -> None:
        """Fetch two pieces and stop, as a life before."""
        store = self.result_of(house.create())
        for index in (0, 1):
            self.result_of(store.write_piece(index, house.content.piece(index)))
        self.result_of(store.close())
        house.disk.calls.clear()


class CrashTests(CrashCase):
    """The power goes off."""

    def test_file(self) -> None:
        """A single file survives a crash at every step."""
        self.crash_everywhere(one_file(), seeds=3)

    def test_sparse_file(self) -> None:
        """So does one with a hole."""
        self.crash_everywhere(one_file(zeros=(1,)), seeds=1)

    def test_folder(self) -> None:
        """So does a folder."""
        self.crash_everywhere(folder(), seeds=1)

    def test_replaced_file(self) -> None:
        """So does a download that takes another file's place and reuses a piece of it."""
        made = one_file()

        def prepare(house: Storehouse) -> None:
            house.disk.put(f"{DATA}/file.bin", made.data[: 2 * PIECE] + b"other")

        self.crash_everywhere(made, seeds=1, prepare=prepare, replace=True)

    def test_resumed_file(self) -> None:
        """So does a download that was half done."""
        self.crash_everywhere(one_file(), seeds=1, prepare=self.half_done)

    def test_part_cut_by_somebody(self) -> None:
        """A part that was cut gets its length back, but its old bits are never believed again."""

        def prepare(house: Storehouse) -> None:
            self.half_done(house)
            house.disk.put(house.part, b"")

        self.crash_everywhere(one_file(), seeds=1, prepare=prepare)

    def test_part_removed_by_somebody(self) -> None:
        """Nor are they for a new part with the inode of the old one."""

        def prepare(house: Storehouse) -> None:
            self.half_done(house)
            house.disk.remove(house.part)

        self.crash_everywhere(one_file(), seeds=1, prepare=prepare)

    def test_part_cut_and_state_damaged(self) -> None:
        """Nor when the metadata beside them are written anew."""

        def prepare(house: Storehouse) -> None:
            self.half_done(house)
            house.disk.put(house.part, b"")
            house.disk.flip(house.state, 0)

        self.crash_everywhere(one_file(), seeds=1, prepare=prepare)

    def test_killed_before_the_data_was_synced(self) -> None:
        """Pieces found by hashing are synced before their bits: they may be in the cache only."""

        def prepare(house: Storehouse) -> None:
            store = self.result_of(house.create())
            self.result_of(store.write_piece(0, house.content.piece(0)))
            house.disk.kill()
            house.restart()
            house.disk.flip(house.state, 0)

        self.crash_everywhere(one_file(), seeds=1, prepare=prepare)

    def test_without_hard_links(self) -> None:
        """So does publishing by rename."""
        made = content({"small.bin": PIECE + 5})
        for step in range(STEPS_MAX):
            house = Storehouse(made)
            house.disk.unsupported.update({"link", "allocate"})
            life = Life(house)
            house.disk.crash_before = step
            try:
                life.begin()
                life.go_on()
            except PowerLost:
                house.disk.crash(lambda: 0.0)
                self.recover(life, f"crash before operation {step}")
            else:
                return

    def test_again_and_again(self) -> None:
        """Crashes in the middle of recovering from crashes do no harm either."""
        for seed in range(150):
            rng = random.Random(seed)
            life = Life(Storehouse(rng.choice((one_file(), one_file(zeros=(2,)), folder()))))
            disk = life.house.disk
            for _ in range(rng.randrange(1, 6)):
                disk.crash_before = rng.randrange(250)
                try:
                    life.begin()
                    life.go_on()
                except PowerLost:
                    pass
                if rng.random() < 0.3:
                    disk.kill()
                else:
                    disk.crash(any_share(rng))
                life.next_process()
            self.recover(life, f"seed {seed}")

    def test_killed_process(self) -> None:
        """A killed process loses nothing that was written, and no lock stays."""
        house = Storehouse(one_file())
        life = Life(house)
        life.begin()
        assert life.store is not None
        life.answer(life.store.write_piece(0, house.content.piece(0)))
        house.clock.advance(limits.SYNC_EVERY_S)
        house.disk.kill()
        house.restart()
        life.begin()
        self.assertEqual([0], list(life.store.have))
        self.assertEqual([], house.progress)


class FailureTests(CrashCase):
    """One operation fails, and all goes on."""

    def fail_everywhere(self, made: Content, code: int, tries: int = 6) -> None:
        """Let every operation fail in turn; then let the node try again."""
        for step in range(STEPS_MAX):
            what = f"{errno.errorcode[code]} in operation {step}"
            house = Storehouse(made)
            house.disk.failures[step] = code
            life = Life(house)
            for _ in range(tries):
                life.begin()
                if life.store is not None:
                    self.check_truth(life, what)
                    life.go_on()
                self.assertEqual(0, house.disk.open_handles, what)
                if house.disk.paths(DATA) == [f"{DATA}/{p}" for p in sorted(made.files())]:
                    break
            reached = step not in house.disk.failures
            self.assertLessEqual(len(life.trouble), 3, what)
            life.trouble.clear()
            self.assertEqual(made.data, life.held(), what)
            house.disk.failures.clear()
            self.check_finished(life, what, recorded=not reached)
            if not reached:
                return
        self.fail("the download does not end")

    def test_file_without_space(self) -> None:
        """ENOSPC anywhere is answered, and over with the next try."""
        self.fail_everywhere(one_file(), errno.ENOSPC)

    def test_file_with_io_errors(self) -> None:
        """So is EIO, in a sync as anywhere else."""
        self.fail_everywhere(one_file(), errno.EIO)

    def test_file_without_handles(self) -> None:
        """So is EMFILE."""
        self.fail_everywhere(one_file(zeros=(0,)), errno.EMFILE)

    def test_folder_with_io_errors(self) -> None:
        """So is EIO in a folder."""
        self.fail_everywhere(folder(), errno.EIO)

    def test_failure_then_crash(self) -> None:
        """A failed sync that is followed by a crash leaves no bit without data."""
        for seed in range(150):
            rng = random.Random(seed)
            life = Life(Storehouse(rng.choice((one_file(), folder()))))
            disk = life.house.disk
            disk.failures[rng.randrange(150)] = rng.choice((errno.EIO, errno.ENOSPC))
            disk.crash_before = rng.randrange(300)
            try:
                for _ in range(3):
                    life.begin()
                    life.go_on()
            except PowerLost:
                pass
            disk.crash(any_share(rng))
            self.recover(life, f"seed {seed}")


class SimDiskUse(TestCase):
    """The tests above do look where it matters."""

    def test_disk_is_asked_to_sync(self) -> None:
        """A download syncs data before it writes bits, and the folder around publishing."""
        house = Storehouse(one_file())
        life = Life(house)
        life.begin()
        house.disk.calls.clear()
        life.go_on()
        self.assertIsInstance(house.disk, SimDisk)
        kinds = [call.split()[0] for call in house.disk.calls]
        first_data_sync = kinds.index("sync_data")
        self.assertEqual("write", kinds[first_data_sync + 1])
        self.assertEqual("sync_data", kinds[first_data_sync + 2])
        link = kinds.index("link")
        self.assertIn("sync", kinds[link : kinds.index("unlink", link)])
