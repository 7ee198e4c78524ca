"""Rate limits on a clock, at connections, and in whole services in the simulated network."""

from __future__ import annotations

import struct
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.content import Metadata, hash_piece
from p2pdist.descriptor import Descriptor
from p2pdist.ids import HashKey, PieceIndex
from p2pdist.stages import Stage
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.handshake import Acceptor, Dialler
from p2pdist.swarm.messages import Grant
from p2pdist.swarm.peerwire import PREFACE, PeerWire, block_header, encode
from p2pdist.swarm.sender import Parcel
from p2pdist.swarm.shaper import Shaper
from p2pdist.swarm.throttle import UNLIMITED, RateLimits
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import Content, content
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import FakeSocket, node_key
from p2pdist.test.test_connection import Recorder

RATE = 1_000_000
MEASURED_S = 10.0
EXACT = 0.05


def skipped(size: int) -> bytes:
    """Return a frame of a type that nobody knows, ``size`` bytes long."""
    return struct.pack(">IB", size - 4, 0xFF) + bytes(size - 5)


class ClockTests(TestCase):
    """The timer."""

    def setUp(self) -> None:
        """A process with a limit."""
        self.clock = Clock()
        self.shaper = Shaper(self.clock)
        self.shaper.set_limits(RateLimits(upload=RATE))
        self.share = self.shaper.share()
        self.called: list[float] = []

    def resumed(self) -> None:
        """Note that more may go."""
        self.called.append(self.clock.seconds())

    def test_idle(self) -> None:
        """While nobody waits there is no timer, limit or not."""
        self.share.upload_gate(self.resumed)
        self.assertEqual(UNLIMITED, self.share.download_gate(self.resumed).room())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_waiting(self) -> None:
        """Who has no room is called once there is, and then no timer is left."""
        gate = self.share.upload_gate(self.resumed)
        self.assertEqual(0, gate.room())
        self.assertEqual(0, gate.room())
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.clock.advance(limits.BLOCK_S)
        self.assertEqual([limits.BLOCK_S], self.called)
        self.assertEqual(RATE * limits.BLOCK_S, gate.room())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_closed(self) -> None:
        """Who is closed while waiting is not called, and leaves no timer."""
        gate = self.share.upload_gate(self.resumed)
        gate.room()
        gate.close()
        gate.close()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.clock.advance(1.0)
        self.assertEqual([], self.called)

    def test_turns_are_not_too_often(self) -> None:
        """However high the limit, the timer runs once in TURNS_S at most."""
        self.shaper.set_limits(RateLimits(upload=10**10))
        self.share.upload_gate(self.resumed).room()
        (timer,) = self.clock.getDelayedCalls()
        self.assertEqual(limits.TURNS_S, timer.getTime())

    def test_earlier_turn(self) -> None:
        """A turn of another transfer that is due sooner brings the timer forward."""
        slow = self.shaper.share()
        slow.set_limits(RateLimits(upload=limits.RATE_LIMIT_MIN))
        slow.upload_gate(self.resumed).room()
        self.share.upload_gate(self.resumed).room()
        (timer,) = self.clock.getDelayedCalls()
        self.assertEqual(limits.BLOCK_S, timer.getTime())

    def test_limits_are_told(self) -> None:
        """What was set is what is said, for the process and for each transfer."""
        self.assertEqual(RateLimits(upload=RATE), self.shaper.limits)
        self.assertEqual(RateLimits(), self.share.limits)
        self.share.set_limits(RateLimits(download=2 * RATE))
        self.assertEqual(RateLimits(download=2 * RATE), self.share.limits)
        self.assertEqual(RateLimits(), self.shaper.share().limits)

    def test_lifted(self) -> None:
        """When a limit goes, who waits is called at once, and no timer is left."""
        gate = self.share.upload_gate(self.resumed)
        gate.room()
        self.shaper.set_limits(RateLimits())
        self.assertEqual([0.0], self.called)
        self.assertEqual(UNLIMITED, gate.room())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_asks_for_what_comes_soon(self) -> None:
        """Under a download limit, the pieces asked for are what comes within ASKED_S."""
        whole = AssemblyBudget()
        one, two = self.share.within(whole), self.shaper.share().within(whole)
        self.assertTrue(one.fits(limits.ASSEMBLY_BYTES))
        self.share.set_limits(RateLimits(download=RATE))
        asked = int(RATE * limits.ASKED_S)
        self.assertFalse(one.fits(asked + 1))
        one.take(asked)
        self.assertEqual((False, True), (one.fits(1), two.fits(asked)))
        self.shaper.set_limits(RateLimits(download=RATE))
        self.assertFalse(two.fits(1))
        told: list[str] = []
        two.when_freed(self, lambda: told.append("two"))
        one.when_freed(one, lambda: told.append("one"))
        one.forget(one)
        one.give(asked)
        self.assertEqual(["two"], told)
        self.assertTrue(two.fits(asked))
        self.assertEqual(0, whole.used_bytes)


class ConnectionTests(TestCase):
    """What a connection does at its gates."""

    def setUp(self) -> None:
        """A proved connection, and limits of both directions."""
        self.clock = Clock()
        self.socket = FakeSocket()
        ours, theirs, key = node_key(1), node_key(2), HashKey(b"h" * 32)
        self.connection = PeerConnection(
            clock=self.clock,
            handshake=Acceptor(ours, b"a" * 32, lambda _: key),
            watcher=Recorder(),
            outgoing=False,
        )
        self.connection.makeConnection(self.socket)
        dialler, wire = Dialler(key, theirs, b"d" * 32), PeerWire()
        self.connection.dataReceived(PREFACE + encode(dialler.start()))
        for message in wire.receive_data(self.socket.take()):
            self.connection.dataReceived(encode(dialler.receive(message)))
        self.socket.take()
        shaper = Shaper(self.clock)
        shaper.set_limits(RateLimits(upload=RATE, download=RATE))
        self.share = shaper.share()
        self.connection.obey(self.share)

    def send(self, size: int) -> None:
        """Send a piece."""

        def read(_offset: int, length: int) -> Deferred[bytes]:
            return succeed(bytes(length))

        self.connection.sender.send(
            Parcel(
                size=size,
                header=lambda offset, length: block_header(0, offset, length),
                read=read,
                progressed=lambda _: None,
                done=lambda: None,
                failed=lambda _: None,
            )
        )

    def test_blocks_wait(self) -> None:
        """A piece goes out at the limit, its headers counted, and not before its turn."""
        self.send(10 * RATE)
        self.assertEqual(b"", self.socket.take())
        for _ in range(1000):
            self.clock.advance(limits.TURNS_S)
        sent = len(self.socket.take())
        self.assertLess(abs(sent / (RATE * 1000 * limits.TURNS_S) - 1), EXACT)

    def test_control_frames_do_not_wait(self) -> None:
        """A control frame goes out at once while blocks wait, and they pay for it."""
        self.send(RATE)
        for _ in range(100):
            self.connection.send(Grant(PieceIndex(1)))
        frames = self.socket.take()
        self.assertEqual(encode(Grant(PieceIndex(1))) * 100, frames)
        self.clock.advance(limits.BLOCK_S)
        self.assertEqual(b"", self.socket.take(), "paid first")
        self.clock.advance(limits.TURNS_S)
        self.assertNotEqual(b"", self.socket.take())

    def test_reading_pauses(self) -> None:
        """What came is counted: reading stops, goes on at its turn, and takes no more than that."""
        self.clock.advance(1.0)
        read = 0
        started = self.clock.seconds()
        for _ in range(1000):
            while self.socket.reading:
                self.assertLessEqual(self.socket.bufferSize, limits.READ_BYTES)
                size = self.socket.bufferSize
                self.connection.dataReceived(skipped(size))
                read += size
                self.assertTrue(self.connection.is_open)
            self.clock.advance(limits.TURNS_S)
        allowed = RATE * (self.clock.seconds() - started + limits.BURST_S)
        self.assertLess(abs(read / allowed - 1), EXACT)

    def test_reading_is_unbound_without_limits(self) -> None:
        """Without a limit reading never pauses, READ_BYTES at a time."""
        self.share = Shaper(self.clock).share()
        self.connection.obey(self.share)
        for _ in range(100):
            self.connection.dataReceived(skipped(limits.READ_BYTES))
        self.assertTrue(self.socket.reading)
        self.assertEqual(limits.READ_BYTES, self.socket.bufferSize)

    def test_closed(self) -> None:
        """A connection that is gone leaves no timer behind, and is not read again."""
        self.send(RATE)
        self.connection.dataReceived(skipped(limits.READ_BYTES))
        self.assertFalse(self.socket.reading)
        self.connection.abort("enough")
        self.assertEqual([], self.clock.getDelayedCalls())
        self.clock.advance(10.0)
        self.assertFalse(self.socket.reading)


def sent(world: World, station: Station) -> dict[str, float]:
    """Run for MEASURED_S and return bytes per second that a kernel sent over TCP, by receiver."""
    start, own = len(world.trace), station.host.addresses[0]
    world.run(MEASURED_S)
    rates: dict[str, float] = {}
    for record in world.trace[start:]:
        if record.kind == "tcp" and record.source[0] == own:
            other = record.target[0]
            rates[other] = rates.get(other, 0.0) + record.length / MEASURED_S
    return rates


def read(world: World, station: Station) -> float:
    """Run for MEASURED_S and return bytes per second of pieces that a process read.

    Its kernel takes what was asked for as soon as it comes, so what it was sent comes in leaps.
    """
    before = station.session.transfer.progress().downloaded_bytes
    world.run(MEASURED_S)
    return (station.session.transfer.progress().downloaded_bytes - before) / MEASURED_S


def big_pieces(pieces: int) -> Content:
    """Return a file of pieces that take longer than PIECE_PROGRESS_S at the limits here."""
    length = 16 * limits.PIECE_LENGTH_MIN
    made = content({"big.bin": pieces * length})
    hashes = b"".join(
        hash_piece(made.data[start : start + length]) for start in range(0, len(made.data), length)
    )
    return Content(Metadata(length, made.metadata.files, hashes), made.data)


class ServiceTests(TestCase):
    """The production service at its limits."""

    def setUp(self) -> None:
        """A quick network, and one machine that all know."""
        self.world = World(7)
        self.world.link(delay=(0.001, 0.003), bandwidth=50_000_000)
        self.first = Station.at(self.world, "10.0.0.1")
        self.first.run()

    def seed(self, number: int, *made: Content, **settings: Any) -> Station:
        """Start a machine that has contents."""
        station = Station.at(self.world, f"10.0.1.{number}")
        for each in made:
            station.store(each)
        station.run(*(self.describe(each) for each in made), **settings)
        return station

    def leech(self, number: int, *made: Content, **settings: Any) -> Station:
        """Start a machine that wants contents."""
        station = Station.at(self.world, f"10.0.2.{number}")
        station.run(*(self.describe(each) for each in made), **settings)
        return station

    def describe(self, made: Content) -> Descriptor:
        """Return the descriptor that all get."""
        return evolve(pointing(made, self.first), piece_length=made.metadata.piece_length)

    def moving(self, *stations: Station) -> None:
        """Wait until machines move something."""
        self.world.run_until(
            lambda: all(station.session.stage is Stage.LEECHING for station in stations)
        )
        self.world.run(2.0)

    def assert_exact(self, rate: int, moved: float) -> None:
        """Fail unless bytes per second are within EXACT of a limit."""
        self.assertLess(abs(moved / rate - 1), EXACT, (rate, moved))

    def test_upload(self) -> None:
        """In 10 s a seed's kernel sends what its limit says, to one or to five."""
        for rate, count in ((50_000, 1), (50_000, 5), (1_000_000, 1), (2_000_000, 5)):
            self.setUp()
            made = content({"file.bin": max(15 * rate, 4_000_000)})
            seed = self.seed(1, made, rates=RateLimits(upload=rate))
            self.moving(*(self.leech(number, made) for number in range(count)))
            self.assert_exact(rate, sum(sent(self.world, seed).values()))

    def test_download(self) -> None:
        """In 10 s a process reads what its limit says, from one or from five."""
        for rate, count in ((50_000, 1), (50_000, 5), (1_000_000, 1), (2_000_000, 5)):
            self.setUp()
            made = content({"file.bin": max(20 * rate, 4_000_000)})
            for number in range(count):
                self.seed(number, made)
            leech = self.leech(1, made, rates=RateLimits(download=rate))
            self.moving(leech)
            self.assert_exact(rate, read(self.world, leech))

    def test_contents_have_their_own(self) -> None:
        """A content's limit holds within the process's, and the rest is for the others."""
        one, two = (content({f"{seed}.bin": 20_000_000}, seed=seed) for seed in (1, 2))
        seed = self.seed(1, one, two, rates=RateLimits(upload=1_000_000))
        assert seed.service is not None
        session = seed.service.contents.sessions[one.hash_key]
        session.set_limits(RateLimits(upload=200_000))
        self.assertEqual(RateLimits(upload=200_000), session.limits)
        self.moving(self.leech(1, one), self.leech(2, two))
        rates = sent(self.world, seed)
        self.assert_exact(1_000_000, sum(rates.values()))
        self.assert_exact(200_000, rates["10.0.2.1"])

    def test_same_content_again(self) -> None:
        """A second descriptor of a content changes its limits only if it brings some."""
        made = content({"file.bin": 100_000})
        seed = self.seed(1, made)
        assert seed.service is not None
        self.assertEqual(RateLimits(), seed.session.limits)
        seed.service.add(made.descriptor(), rates=RateLimits(upload=50_000))
        seed.service.add(made.descriptor())
        self.assertEqual(RateLimits(upload=50_000), seed.session.limits)

    def test_changed_while_it_runs(self) -> None:
        """A limit set, changed and lifted while pieces move holds from then on."""
        made = content({"file.bin": 40_000_000})
        seed, leech = self.seed(1, made), self.leech(1, made)
        assert seed.service is not None and leech.service is not None
        seed.service.set_limits(RateLimits(upload=100_000))
        self.moving(leech)
        seed.service.set_limits(RateLimits(upload=500_000))
        self.assert_exact(500_000, sum(sent(self.world, seed).values()))
        seed.service.set_limits(RateLimits())
        leech.service.set_limits(RateLimits(download=400_000))
        self.assertEqual(RateLimits(download=400_000), leech.service.contents.limits)
        self.world.run(1.0)
        self.assert_exact(400_000, read(self.world, leech))
        leech.service.set_limits(RateLimits())
        self.world.run_until(lambda: leech.session.stage is Stage.SEEDING, timeout=10)

    def test_slow_is_not_stalled(self) -> None:
        """With pieces that take longer than PIECE_PROGRESS_S nobody is dropped for it."""
        for settings, others in (
            ({"rates": RateLimits(upload=50_000)}, {}),
            ({}, {"rates": RateLimits(download=50_000)}),
        ):
            self.setUp()
            made = big_pieces(12)
            seeds = [self.seed(number, made, **settings) for number in range(3)]
            leeches = [self.leech(number, made, **others) for number in range(3)]
            self.moving(*leeches)
            started = len(self.world.trace)
            self.world.run(6 * limits.PIECE_PROGRESS_S)
            ended = [r for r in self.world.trace[started:] if r.kind in {"fin", "rst"}]
            self.assertEqual([], ended)
            for leech in leeches:
                moved = leech.session.transfer.progress().downloaded_bytes
                self.assertGreater(moved, 3 * limits.PIECE_PROGRESS_S * 50_000)
            for station in (*seeds, *leeches, self.first):
                station.stop()
