"""A published content that the disk damaged (``storage.mending``), and the scrub that finds it."""

from __future__ import annotations

import errno
from random import Random
from typing import Any

from attrs import define, field

from p2pdist import limits
from p2pdist.errors import ContentConflict, StorageError
from p2pdist.ids import NodeID
from p2pdist.scrub import Scrub
from p2pdist.storage.store import Store
from p2pdist.swarm import masks
from p2pdist.swarm.masks import Tally
from p2pdist.swarm.uploader import Uploader
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station
from p2pdist.test.storehouse import DATA, PIECE, Content, Storehouse, content, folder, one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan, swarm

TARGET = f"{DATA}/file.bin"
PEER = NodeID(bytes(20))


class MendingTests(TestCase):
    """One store."""

    def setUp(self) -> None:
        """Publish a file."""
        self.begin(one_file())

    def begin(self, made: Content) -> None:
        """Publish a content."""
        self.house = Storehouse(made)
        self.store: Store = self.result_of(self.house.create())
        for index in range(made.count):
            self.result_of(self.store.write_piece(index, made.piece(index)))
        self.result_of(self.store.publish())
        self.disk = self.house.disk

    def write(self, index: int) -> None:
        """Fetch a piece again."""
        self.result_of(self.store.write_piece(index, self.house.content.piece(index)))

    def held(self) -> dict[str, bytes]:
        """Return the bytes of all files."""
        return {path: self.disk.get(f"{DATA}/{path}") for path in self.house.content.files()}

    def damage(self, path: str = TARGET, offset: int = PIECE + 7) -> None:
        """Rot a byte, and find that."""
        self.disk.flip(path, offset)
        for index in range(self.house.content.count):
            self.result_of(self.store.check(index))

    def test_damaged_piece_is_written_back(self) -> None:
        """In its place, with nothing left beside; then all is as it was, in files and folders."""
        for made, path in ((one_file(), TARGET), (folder(), f"{DATA}/tree/b/long")):
            self.begin(made)
            self.damage(path, PIECE)
            missing = list(self.store.have.missing())
            self.assertEqual(1, len(missing))
            self.result_of(self.store.mend())
            self.assertFalse(self.store.published)
            self.write(missing[0])
            self.result_of(self.store.publish())
            self.assertTrue(self.store.published)
            self.assertEqual(made.files(), self.held())
            self.assertEqual(
                [f"{DATA}/{path}" for path in sorted(made.files())], self.disk.paths(DATA)
            )
            self.house.restart()
            self.house.progress.clear()
            again = self.result_of(self.house.locate())
            assert again is not None
            self.assertTrue(again.published)
            self.assertEqual([], self.house.progress, "the new record is trusted")
            self.result_of(again.close())
            self.result_of(self.store.close())
            self.assertEqual(0, self.disk.open_handles)

    def test_pieces_are_served_meanwhile(self) -> None:
        """What is not damaged is read as ever."""
        self.damage()
        self.result_of(self.store.mend())
        self.assertEqual(self.house.content.piece(2), self.result_of(self.store.read(2, 0, PIECE)))
        self.error_of(self.store.read(1, 0, 5), StorageError)

    def test_change_is_not_mended(self) -> None:
        """Somebody's bytes stay, whether the change was seen in a read or is seen only now."""
        for seen in (True, False):
            self.begin(one_file())
            if not seen:
                self.damage()
            self.disk.flip(TARGET, 5)
            self.disk.touch(TARGET)
            if seen:
                self.error_of(self.store.read(0, 0, 5), StorageError)
            before = self.disk.get(TARGET)
            error = self.error_of(self.store.mend(), StorageError)
            self.assertIn(f"{TARGET} was changed after completion", str(error))
            lost = next(self.store.have.missing())
            self.error_of(self.store.write_piece(lost, bytes(PIECE)), StorageError)
            self.assertEqual(before, self.disk.get(TARGET))
            self.assertEqual([TARGET], self.disk.paths(DATA))

    def test_what_the_operator_named_is_not_written_to(self) -> None:
        """``seed --path`` only reads."""
        self.result_of(self.store.close())
        self.house.restart()
        store = self.result_of(self.house.locate(path=TARGET))
        assert store is not None
        self.store = store
        self.damage()
        self.assertIn("only read", str(self.error_of(store.mend(), StorageError)))

    def test_file_that_cannot_be_written_to(self) -> None:
        """Read-only media and running programs are said, served on, and left alone."""
        for code in (errno.EROFS, errno.ETXTBSY, errno.EACCES):
            self.begin(one_file())
            self.damage()
            self.disk.failing["open_file UPDATE"] = [code]
            self.error_of(self.store.mend(), StorageError)
            self.assertTrue(self.store.published)
            self.assertEqual([TARGET], self.disk.paths(DATA))
            self.result_of(self.store.read(0, 0, 5))

    def test_unreadable_sector_is_damage_too(self) -> None:
        """EIO withdraws the piece, and writing it anew may bring the sector back."""
        self.disk.failing["read"] = [errno.EIO]
        self.error_of(self.store.read(0, 0, 5), StorageError)
        self.result_of(self.store.mend())
        self.write(0)
        self.result_of(self.store.publish())

    def test_scrub_does_not_believe_the_cache(self) -> None:
        """It asks the device: the pages are dropped first."""
        self.disk.calls.clear()
        self.result_of(self.store.check(0))
        kinds = [call.split()[0] for call in self.disk.calls]
        self.assertLess(kinds.index("forget"), kinds.index("read"))

    def test_crash_while_mending(self) -> None:
        """Before any operation of it: the next start goes on, or finds the damage anew."""
        for survive in (0.0, 1.0):
            for step in range(200):
                self.begin(one_file())
                self.damage()
                self.disk.calls.clear()
                self.disk.crash_before = step
                done = False
                try:
                    self.result_of(self.store.mend())
                    self.write(1)
                    self.result_of(self.store.publish())
                    done = True
                except BaseException as error:  # noqa: BLE001 -- PowerLost, in a Deferred or not
                    self.assertIn("PowerLost", repr(error) + str(error))
                self.flushLoggedErrors()
                self.disk.crash(lambda kept=survive: kept)  # type: ignore[misc]
                self.house.restart()
                self.check_recovers(f"crash before {step}, {survive}")
                if done:
                    break
            else:
                self.fail("mending does not end")

    def check_recovers(self, what: str) -> None:
        """The next process mends what is left to mend."""
        store = self.result_of(self.house.locate())
        assert store is not None, what
        self.store = store
        for index in range(4):
            self.result_of(store.check(index))
        if not store.complete:
            self.assertEqual([1], list(store.have.missing()), what)
            self.result_of(store.mend())
            self.write(1)
            self.result_of(store.publish())
        self.assertTrue(store.published, what)
        self.assertEqual(self.house.content.files(), self.held(), what)
        self.assertEqual([TARGET], self.disk.paths(DATA), what)
        self.result_of(store.close())

    def test_change_during_a_crash_is_nobody_elses_to_mend(self) -> None:
        """More is wrong at the restart than was missing: then the file is somebody's, and stays."""
        self.damage()
        self.result_of(self.store.mend())
        self.house.clock.advance(0)
        self.disk.kill()
        self.house.restart()
        self.disk.flip(TARGET, 5)
        self.disk.touch(TARGET)
        self.error_of(self.house.locate(), ContentConflict)


class SwarmTests(TestCase):
    """Nodes whose disks rot."""

    def seeded(self, world: World, made: Content) -> tuple[Station, Station]:
        """Let one node fetch everything; return the seed and it."""
        _, seed, (leech,) = swarm(world, made, 1)
        world.run_until(lambda: leech.session.transfer.progress().waiting_for == "", 60)
        world.run_until(lambda: leech.holds(made), 60)
        return seed, leech

    def test_scrub_finds_and_mends(self) -> None:
        """A rotten piece of a complete node is found by the scrub and fetched from another."""
        world, made = lan(), content({"file.bin": 6 * PIECE + 9})
        _, leech = self.seeded(world, made)
        world.run(limits.SCRUB_FIRST_S - 120)
        leech.disk.flip(TARGET, 3 * PIECE)
        self.assertFalse(leech.holds(made))
        world.run_until(lambda: leech.holds(made), 600)
        world.run_until(lambda: leech.disk.paths(DATA) == [TARGET], 60)

    def test_silent_rot_of_a_seed(self) -> None:
        """One that rotted after it was verified hears from the peer, and has it mended.

        The peer bans it for a while; what it sent last is read again, so nobody gets it twice.
        """
        world, made = lan(), content({"file.bin": 6 * PIECE + 9})
        seed, first = self.seeded(world, made)
        first.stop()
        seed.disk.flip(TARGET, 3 * PIECE)
        late = Station.at(world, "10.0.1.9")
        late.run(seed.session.descriptor)
        store = seed.session.transfer.store
        assert store is not None
        world.run_until(lambda: list(store.have.missing()) == [3], 60)
        self.assertEqual(6 * PIECE + 9, late.session.transfer.progress().length)
        first.run(seed.session.descriptor)
        world.run_until(lambda: late.holds(made) and seed.holds(made), 2 * limits.BAN_S)

    def test_peers_that_ban_us_make_us_read_little(self) -> None:
        """``limits.DOUBTED_PIECES`` of those that this peer got, and no other."""
        book = Uploader(count=50, have=masks.full(50), availability=Tally(), rng=Random(1))
        book.add_peer(PEER, 0, interested=True)
        now = 0.0
        for _ in range(limits.DOUBTED_PIECES + 5):
            now += 1.0
            offer = book.next_offer(now)
            assert offer is not None
            book.accepted(PEER, offer.index, PIECE, now)
            assert book.next_start(now) is not None
            book.progressed(PEER, offer.index, PIECE, now)
            book.sent(PEER, offer.index, now)
            book.received(PEER, offer.index, now)
        self.assertEqual(limits.DOUBTED_PIECES, len(set(book.remove_peer(PEER))))


@define
class Peer:
    """A connection, as the scrub sees it."""

    useful_at: float = -1e9


@define
class Resting:
    """A session, and its transfer: all that the scrub looks at."""

    store: Store | None
    peers: list[Peer] = field(factory=list)

    @property
    def transfer(self) -> Resting:
        """Return what stands for it."""
        return self

    def connections(self) -> list[Peer]:
        """Return them."""
        return self.peers


class ScrubTests(TestCase):
    """What is read, and when."""

    def setUp(self) -> None:
        """Have a complete file of 40 pieces, and a rate of a piece a second."""
        self.patch(limits, "SCRUB_BYTES_PER_S", PIECE)
        house = Storehouse(content({"file.bin": 40 * PIECE}))
        house.put_target()
        store = self.result_of(house.locate())
        self.disk, self.clock = house.disk, house.clock
        self.session = Resting(store)
        sessions: Any = {house.content.hash_key: self.session}
        self.scrub = Scrub(sessions, house.clock)
        self.scrub.tick()

    def checked_in(self, seconds: float) -> int:
        """Return how many pieces are read from the device in so many seconds."""
        self.disk.calls.clear()
        for _ in range(round(seconds / limits.UPKEEP_EVERY_S)):
            self.clock.advance(limits.UPKEEP_EVERY_S)
            self.scrub.tick()
        return self.disk.count("forget")

    def test_it_begins_late(self) -> None:
        """Nothing is read before ``limits.SCRUB_FIRST_S``."""
        self.assertEqual(0, self.checked_in(limits.SCRUB_FIRST_S - limits.UPKEEP_EVERY_S))
        self.assertGreater(self.checked_in(limits.UPKEEP_EVERY_S), 0)

    def test_it_is_slow(self) -> None:
        """It keeps to ``limits.SCRUB_BYTES_PER_S``, each piece once."""
        self.clock.advance(limits.SCRUB_FIRST_S)
        self.assertEqual(20, self.checked_in(20))
        self.assertEqual(20, self.checked_in(100))

    def test_it_makes_room(self) -> None:
        """While pieces move it has ``limits.SCRUB_BUSY_SHARE`` of that."""
        self.clock.advance(limits.SCRUB_FIRST_S)
        self.session.peers.append(Peer(useful_at=1e9))
        self.assertLessEqual(self.checked_in(100), 1 + 100 * limits.SCRUB_BUSY_SHARE)
        self.assertGreater(self.checked_in(100), 0)

    def test_it_comes_again(self) -> None:
        """After a whole round it rests ``limits.SCRUB_EVERY_S``."""
        self.clock.advance(limits.SCRUB_FIRST_S)
        self.assertEqual(40, self.checked_in(300))
        self.clock.advance(limits.SCRUB_EVERY_S - 400)
        self.assertEqual(0, self.checked_in(20))
        self.clock.advance(400)
        self.assertEqual(5, self.checked_in(5))

    def test_another_store_begins_anew(self) -> None:
        """A content that was given up and taken again waits as at first; none is no trouble."""
        self.clock.advance(limits.SCRUB_FIRST_S)
        self.session.store = None
        self.assertEqual(0, self.checked_in(5))
