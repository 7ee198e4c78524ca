"""Tests for :mod:`p2pdist.swarm.sender` and :mod:`p2pdist.swarm.haves`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from p2pdist import limits
from p2pdist.errors import StorageError
from p2pdist.ids import PieceIndex
from p2pdist.swarm.haves import HaveBatch
from p2pdist.swarm.messages import Block, Have, KeepAlive
from p2pdist.swarm.peerwire import PREFACE, PeerWire, block_header, encode
from p2pdist.swarm.sender import BlockSender, Parcel
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import FakeSocket


class Reads:
    """A slow disk: reads that the test answers."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []
        self._waiting: list[tuple[Deferred[bytes], bytes]] = []

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See :class:`Parcel`."""
        self.asked.append((offset, size))
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append((waiting, self.data[offset : offset + size]))
        return waiting

    def answer(self) -> None:
        """Finish the oldest read."""
        waiting, data = self._waiting.pop(0)
        waiting.callback(data)

    def fail(self) -> None:
        """Fail the oldest read."""
        self._waiting.pop(0)[0].errback(Failure(StorageError("disk on fire")))


class SenderTests(TestCase):
    """Parcels through a socket."""

    def setUp(self) -> None:
        """A sender on a socket."""
        self.clock = Clock()
        self.socket = FakeSocket()
        self.sender = BlockSender(self.socket, self.clock.seconds)
        self.socket.registerProducer(self.sender, True)
        self.told: list[object] = []

    def parcel(self, reads: Reads, index: int = 0) -> Parcel:
        """Return a parcel of all bytes that can be read."""
        return Parcel(
            size=len(reads.data),
            header=partial(block_header, index),
            read=reads.read,
            progressed=self.told.append,
            done=lambda: self.told.append("done"),
            failed=lambda failure: self.told.append(failure.value),
        )

    def sent(self) -> list[Block]:
        """Return the blocks written since the last call."""
        wire = PeerWire()
        list(wire.receive_data(PREFACE))
        wire.proved = True
        blocks = [b for b in wire.receive_data(self.socket.take()) if isinstance(b, Block)]
        return [Block(block.index, block.offset, bytes(block.data)) for block in blocks]

    def test_is_a_push_producer(self) -> None:
        """The sender is what Twisted's transports expect."""
        self.assertTrue(verifyObject(IPushProducer, self.sender))

    def test_whole_parcel_goes_out(self) -> None:
        """All bytes leave in order, in blocks of at most BLOCK_BYTES, and the owner is told."""
        reads = Reads(bytes(range(256)) * 4096)
        self.sender.send(self.parcel(reads))
        reads.answer()
        blocks = self.sent()
        self.assertEqual(reads.data, b"".join(bytes(block.data) for block in blocks))
        self.assertEqual(limits.BLOCK_BYTES, max(len(block.data) for block in blocks))
        self.assertEqual([len(block.data) for block in blocks] + ["done"], self.told)

    def test_read_ahead_is_bounded(self) -> None:
        """Without room in the socket at most SEND_BUFFER_BYTES are read and none is written."""
        reads = Reads(bytes(8 * limits.SEND_BUFFER_BYTES))
        self.sender.pauseProducing()
        self.sender.send(self.parcel(reads))
        reads.answer()
        self.assertEqual([(0, limits.SEND_BUFFER_BYTES)], reads.asked)
        self.assertEqual([], self.sent())

    def test_back_pressure(self) -> None:
        """Writing stops when the socket is full and goes on when it has room."""
        reads = Reads(bytes(4 * limits.BLOCK_BYTES))
        self.socket.room = limits.BLOCK_BYTES
        self.sender.send(self.parcel(reads))
        reads.answer()
        for _ in range(4):
            self.assertEqual(1, len(self.sent()))
            self.sender.resumeProducing()
        self.assertEqual("done", self.told[-1])

    def test_control_frames_fall_between_blocks(self) -> None:
        """What is written past a paused sender arrives between two whole blocks."""
        reads = Reads(bytes(2 * limits.BLOCK_BYTES))
        self.socket.room = limits.BLOCK_BYTES
        self.sender.send(self.parcel(reads))
        reads.answer()
        self.socket.write(encode(KeepAlive()))
        self.socket.room = 1 << 30
        self.sender.resumeProducing()
        wire = PeerWire()
        wire.proved = True
        kinds = [type(m).__name__ for m in wire.receive_data(PREFACE + self.socket.take())]
        self.assertEqual(["Block", "KeepAlive", "Block"], kinds)

    def test_blocks_shrink_on_slow_lines(self) -> None:
        """A block takes about BLOCK_S, between BLOCK_MIN_BYTES and BLOCK_BYTES."""
        self.socket.room = 1
        reads = Reads(bytes(limits.SEND_BUFFER_BYTES))
        self.sender.send(self.parcel(reads))
        reads.answer()
        self.clock.advance(100.0)
        self.sent()
        self.sender.resumeProducing()
        self.assertEqual([limits.BLOCK_MIN_BYTES], [len(block.data) for block in self.sent()])

    def test_blocks_follow_the_rate(self) -> None:
        """In between, a block is what the line carries in BLOCK_S."""
        self.socket.room = 1
        reads = Reads(bytes(limits.SEND_BUFFER_BYTES))
        self.sender.send(self.parcel(reads))
        reads.answer()
        self.sent()
        self.clock.advance(4 * limits.BLOCK_S)
        self.sender.resumeProducing()
        self.assertEqual([limits.BLOCK_BYTES // 4], [len(block.data) for block in self.sent()])

    def test_pace_is_told(self) -> None:
        """Who follows the block size learns it when it has doubled or halved, not before."""
        paces: list[int] = []
        self.sender.paced = paces.append
        self.socket.room = 1
        reads = Reads(bytes(limits.SEND_BUFFER_BYTES))
        self.sender.send(self.parcel(reads))
        reads.answer()
        for seconds in (limits.BLOCK_S, 0.0, 20 * limits.BLOCK_S):
            self.clock.advance(seconds)
            self.sent()
            self.sender.resumeProducing()
        self.assertEqual(limits.BLOCK_BYTES, paces[0])
        self.assertEqual(2, len(paces))
        self.assertLessEqual(2 * paces[1], paces[0])

    def test_one_block_waits(self) -> None:
        """The transport pauses the sender while a block waits in it; reading is not touched."""
        seen: list[int] = []
        before = self.socket.bufferSize
        write = self.socket.writeSequence

        def watch(data: Iterable[bytes]) -> None:
            seen.append(self.socket.bufferSize)
            write(data)

        self.socket.writeSequence = watch  # type: ignore[method-assign]
        reads = Reads(bytes(10))
        self.sender.send(self.parcel(reads))
        reads.answer()
        self.assertEqual([0], seen)
        self.assertEqual(before, self.socket.bufferSize)

    def test_one_after_the_other(self) -> None:
        """A second parcel begins when the first has been handed over whole."""
        first, second = Reads(b"a" * 10), Reads(b"b" * 10)
        self.sender.send(self.parcel(first, 1))
        self.sender.send(self.parcel(second, 2))
        self.assertEqual([], second.asked)
        first.answer()
        second.answer()
        self.assertEqual([1, 2], [block.index for block in self.sent()])

    def test_cancel(self) -> None:
        """A cancelled parcel sends nothing more and tells nobody, even if a read comes back."""
        reads, queued, last = Reads(b"a" * 10), Reads(b"b" * 10), Reads(b"c" * 10)
        parcels = [self.parcel(each) for each in (reads, queued, last)]
        for parcel in parcels:
            self.sender.send(parcel)
        self.sender.cancel(parcels[1])
        self.sender.cancel(parcels[0])
        reads.answer()
        last.answer()
        self.assertEqual([b"c" * 10], [block.data for block in self.sent()])
        self.assertEqual([10, "done"], self.told)

    def test_failed_read(self) -> None:
        """A read that fails ends its parcel, and the next one goes on."""
        reads, other = Reads(b"a" * 10), Reads(b"b" * 10)
        self.sender.send(self.parcel(reads))
        self.sender.send(self.parcel(other))
        reads.fail()
        other.answer()
        self.assertIsInstance(self.told[0], StorageError)
        self.assertEqual([b"b" * 10], [block.data for block in self.sent()])

    def test_stop(self) -> None:
        """After the connection is gone nothing is written or told, whatever comes back."""
        reads = Reads(b"a" * 10)
        self.sender.send(self.parcel(reads))
        self.sender.stopProducing()
        reads.answer()
        self.sender.resumeProducing()
        self.assertEqual(([], []), (self.sent(), self.told))


class HaveBatchTests(TestCase):
    """Telling of pieces."""

    def setUp(self) -> None:
        """A batch that records."""
        self.clock = Clock()
        self.sent: list[Have] = []
        self.batch = HaveBatch(self.clock, self.sent.append)

    def add(self, *indices: int) -> None:
        """Tell of pieces."""
        for index in indices:
            self.batch.add(PieceIndex(index))

    def test_first_at_once_then_together(self) -> None:
        """The first piece is told at once, those of the next HAVE_EVERY_S together."""
        self.add(1, 2, 3)
        self.assertEqual([(1,)], [have.indices for have in self.sent])
        self.clock.advance(limits.HAVE_EVERY_S)
        self.assertEqual([(1,), (2, 3)], [have.indices for have in self.sent])
        self.clock.advance(limits.HAVE_EVERY_S)
        self.add(4)
        self.assertEqual((4,), self.sent[-1].indices)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_no_more_than_a_few_wait(self) -> None:
        """HAVE_TOGETHER pieces are told at once, however soon they came."""
        self.add(*range(2 * limits.HAVE_TOGETHER + 2))
        counts = [len(have.indices) for have in self.sent]
        self.assertEqual([1, limits.HAVE_TOGETHER, limits.HAVE_TOGETHER], counts)
        self.clock.advance(limits.HAVE_EVERY_S)
        self.assertEqual((2 * limits.HAVE_TOGETHER + 1,), self.sent[-1].indices)
        self.batch.flush()
        self.assertEqual(4, len(self.sent))

    def test_stop(self) -> None:
        """After the end nothing is told and no timer is left."""
        self.add(1, 2)
        self.batch.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(1, len(self.sent))
