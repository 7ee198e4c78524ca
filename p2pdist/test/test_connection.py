"""Tests for :mod:`p2pdist.swarm.connection` and :mod:`p2pdist.swarm.assembly`."""

from __future__ import annotations

import socket

from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.errors import MalformedMessage, RemoteProtocolError, UnexpectedMessage
from p2pdist.ids import HashKey, PieceIndex
from p2pdist.swarm.assembly import Assembly, AssemblyBudget
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.handshake import Acceptor, Dialler
from p2pdist.swarm.messages import (
    Block,
    Bye,
    ByeReason,
    Cancel,
    Grant,
    Have,
    Interest,
    KeepAlive,
    Message,
    Received,
    Reject,
    RejectReason,
    Request,
)
from p2pdist.swarm.peerwire import PREFACE, PeerWire, encode
from p2pdist.test.strategies import control_messages, data_messages, mutations
from p2pdist.test.support import TestCase, given
from p2pdist.test.swarmfakes import FakeSocket, node_key

HASH_KEY = HashKey(b"h" * 32)
OURS, THEIRS = node_key(1), node_key(2)
ZERO, ONE = PieceIndex(0), PieceIndex(1)


class Recorder:
    """Watcher and owner: takes every proved connection and writes down what it says."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.refuse: RemoteProtocolError | None = None

    def connection_proved(self, peer: PeerConnection) -> None:
        """Take it."""
        self.told.append(("proved", peer.node_id))
        peer.attach(self)

    def connection_ended(self, peer: PeerConnection, reason: str) -> None:
        """Record it."""
        self.told.append(("ended", peer.address, reason))

    def message_received(self, peer: PeerConnection, message: Message) -> None:
        """Record it, or refuse."""
        self.told.append((message, peer.address))
        if self.refuse is not None:
            raise self.refuse

    def piece_bytes_received(self, peer: PeerConnection, size: int) -> None:
        """Record it."""
        self.told.append(("bytes", size, peer.address))

    def piece_received(self, peer: PeerConnection, index: PieceIndex, data: bytearray) -> None:
        """Record it."""
        self.told.append(("piece", index, bytes(data), peer.address))

    def connection_closed(self, peer: PeerConnection, reason: str) -> None:
        """Record it."""
        self.told.append(("closed", reason, peer.is_open))

    def connection_gone(self, peer: PeerConnection) -> None:
        """Record it."""
        self.told.append(("gone", peer.address))

    def kinds(self) -> list[object]:
        """Return the first word of everything told."""
        return [event[0] for event in self.told]


class ConnectionCase(TestCase):
    """A connection that was called, and a peer played by hand."""

    def setUp(self) -> None:
        """A connection in its handshake."""
        self.clock = Clock()
        self.recorder = Recorder()
        self.socket = FakeSocket()
        acceptor = Acceptor(OURS, b"a" * 32, lambda _: HASH_KEY)
        self.connection = PeerConnection(
            clock=self.clock, handshake=acceptor, watcher=self.recorder, outgoing=False
        )
        self.connection.makeConnection(self.socket)
        self.theirs = Dialler(HASH_KEY, THEIRS, b"d" * 32)
        self.wire = PeerWire()

    def prove(self) -> None:
        """Finish the handshake."""
        self.connection.dataReceived(PREFACE + encode(self.theirs.start()))
        for message in self.wire.receive_data(self.socket.take()):
            self.connection.dataReceived(encode(self.theirs.receive(message)))
        self.wire.proved = True
        self.recorder.told.clear()

    def say(self, *messages: Message) -> None:
        """The peer sends messages."""
        self.connection.dataReceived(b"".join(map(encode, messages)))

    def heard(self) -> list[Message]:
        """Return what the peer has been sent since the last call."""
        return list(self.wire.receive_data(self.socket.take()))

    def lose(self) -> None:
        """The socket is gone."""
        self.connection.connectionLost(Failure(ConnectionDone()))

    def assert_refused(self, reason: ByeReason = ByeReason.PROTOCOL) -> None:
        """Fail unless the connection was closed with this word."""
        self.assertIn(Bye(reason), self.heard())
        self.assertEqual("losing", self.socket.state)
        self.assertFalse(self.connection.is_open)


class HandshakeTests(ConnectionCase):
    """Until the peer is proved."""

    def test_proved(self) -> None:
        """After three messages the watcher learns who called, and the deadline is off."""
        self.connection.dataReceived(PREFACE + encode(self.theirs.start()))
        for message in self.wire.receive_data(self.socket.take()):
            self.connection.dataReceived(encode(self.theirs.receive(message)))
        self.assertEqual([("proved", THEIRS.node_id)], self.recorder.told)
        self.assertEqual(Address("10.0.0.9", 4000), self.connection.address)
        self.assertTrue(self.connection.is_open)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_deadline_is_absolute(self) -> None:
        """HANDSHAKE_S after the start an unproved peer is gone, however busy it was."""
        hello = PREFACE + encode(self.theirs.start())
        for second in range(int(limits.HANDSHAKE_S) - 1):
            self.connection.dataReceived(hello[second : second + 1])
            self.clock.advance(1.0)
        self.assertEqual("open", self.socket.state)
        self.clock.advance(1.0)
        self.assertEqual("aborted", self.socket.state)

    def test_wrong_version(self) -> None:
        """A peer of another version is told so."""
        self.connection.dataReceived(PREFACE[:-1] + b"\x09")
        self.assert_refused(ByeReason.VERSION)

    def test_self(self) -> None:
        """Our own node at the other end is told so."""
        ourselves = Dialler(HASH_KEY, OURS, b"d" * 32)
        self.connection.dataReceived(PREFACE + encode(ourselves.start()))
        self.assert_refused(ByeReason.SELF)

    @given(st.binary(max_size=300))
    def test_junk(self, junk: bytes) -> None:
        """Whatever a stranger sends, nothing is raised and nobody is proved."""
        self.setUp()
        self.connection.dataReceived(junk)
        self.assertNotIn("proved", self.recorder.kinds())
        self.lose()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_socket_is_tuned(self) -> None:
        """Small frames are sent at once, and the kernel takes part of a block ahead, in bounds."""

        class Tunable(FakeSocket):
            options: list[object] = []  # noqa: RUF012 -- one test

            def setTcpNoDelay(self, on: bool) -> None:
                self.options.append(on)

            def getHandle(self) -> Tunable:
                return self

            def setsockopt(self, *option: int) -> None:
                self.options.append(option)
                raise OSError("not on this system")

        handshake = Acceptor(OURS, b"a" * 32, lambda _: HASH_KEY)
        connection = PeerConnection(
            clock=Clock(), handshake=handshake, watcher=self.recorder, outgoing=False
        )
        tunable = Tunable()
        connection.makeConnection(tunable)
        least, most = limits.NOTSENT_BYTES
        for size in (0, 8 * least, 8 * most):  # a quarter of a block
            connection.sender.paced(size)
        sizes = (least, least, 2 * least, most)
        lowat = [(socket.IPPROTO_TCP, 25, size) for size in sizes]
        self.assertEqual([True, *lowat], tunable.options)


class ExchangeTests(ConnectionCase):
    """After the proof."""

    def setUp(self) -> None:
        """An open connection."""
        super().setUp()
        self.prove()

    def test_messages_reach_the_owner(self) -> None:
        """Messages are handed on in order; keep-alives are not."""
        self.say(Interest(True), KeepAlive(), Have((ONE,)))
        self.assertEqual([Interest(True), Have((ONE,))], self.recorder.kinds())

    def test_piece_is_assembled(self) -> None:
        """The bytes of a requested piece come together in any cut, and are confirmed."""
        self.connection.request(ONE, 10)
        self.assertEqual([Request(ONE)], self.heard())
        stream = encode(Block(ONE, 0, b"abcdef")) + encode(Block(ONE, 6, b"ghij"))
        for byte in stream:
            self.connection.dataReceived(bytes([byte]))
        self.assertEqual("piece", self.recorder.kinds()[-1])
        self.assertEqual(b"abcdefghij", self.recorder.told[-1][2])
        self.assertEqual([Received(ONE)], self.heard())

    def test_piece_is_read_into_its_place(self) -> None:
        """The rest of a block that is under way can be read past ``dataReceived``."""
        self.assertIsNone(self.connection.place())
        self.connection.request(ONE, 10)
        stream = encode(Block(ONE, 0, b"abcdef")) + encode(Block(ONE, 6, b"ghij"))
        self.connection.dataReceived(stream[:15])
        place = self.connection.place()
        assert place is not None
        place[:] = b"cdef"
        self.connection.placed(4)
        self.assertIsNone(self.connection.place())
        self.connection.dataReceived(stream[19:])
        self.assertEqual(b"abcdefghij", self.recorder.told[-1][2])
        self.assertEqual([Request(ONE), Received(ONE)], self.heard())

    def test_wrong_bytes_have_no_place(self) -> None:
        """What was not asked for, was cancelled or is out of order has no place."""
        self.connection.request(ONE, 10)
        self.connection.request(ZERO, 10)
        self.connection.cancel(ZERO)
        for block in (Block(PieceIndex(2), 0, b"ab"), Block(ONE, 1, b"ab"), Block(ZERO, 0, b"ab")):
            self.connection.dataReceived(encode(block)[:13])
            self.assertIsNone(self.connection.place())
            self.connection.dataReceived(encode(Block(ZERO, 0, b"ab"))[13:])

    def test_unrequested_data(self) -> None:
        """A block of a piece nobody asked for closes the connection; nothing is reported."""
        self.connection.request(ONE, 10)
        self.heard()
        self.say(Block(ZERO, 0, b"abc"))
        self.assert_refused()
        self.assertEqual(["closed"], self.recorder.kinds())

    def test_wrong_ranges(self) -> None:
        """Bytes out of order, twice or beyond the piece close the connection."""
        for block in (Block(ONE, 5, b"x"), Block(ONE, 0, b"x" * 11), Block(ONE, 1 << 23, b"x")):
            self.setUp()
            self.connection.request(ONE, 10)
            self.heard()
            self.say(block)
            self.assert_refused()
        self.setUp()
        self.connection.request(ONE, 10)
        self.heard()
        self.say(Block(ONE, 0, b"abc"), Block(ONE, 0, b"abc"))
        self.assert_refused()

    def test_piece_is_accepted_once(self) -> None:
        """A second copy of a piece that was delivered closes the connection."""
        self.connection.request(ONE, 3)
        self.say(Block(ONE, 0, b"abc"))
        self.heard()
        self.say(Block(ONE, 0, b"abc"))
        self.assert_refused()

    def test_cancelled_bytes_are_dropped(self) -> None:
        """After a cancel bytes may still come; nobody hears of them, and the reject ends it."""
        self.connection.request(ONE, 10)
        self.say(Block(ONE, 0, b"abc"))
        self.connection.cancel(ONE)
        self.connection.cancel(ONE)
        self.assertEqual([Request(ONE), Cancel(ONE)], self.heard())
        self.recorder.told.clear()
        self.assertFalse(self.connection.may_request(ONE))
        self.say(Block(ONE, 3, b"def"), Reject(ONE, RejectReason.CANCELLED))
        self.assertEqual([Reject(ONE, RejectReason.CANCELLED)], self.recorder.kinds())
        self.assertTrue(self.connection.may_request(ONE))

    def test_cancel_crosses_the_last_block(self) -> None:
        """A piece that was complete before the cancel came is confirmed, and then forgotten."""
        self.connection.request(ONE, 3)
        self.connection.cancel(ONE)
        self.heard()
        self.say(Block(ONE, 0, b"abc"))
        self.assertEqual([Received(ONE)], self.heard())
        self.assertEqual([], self.recorder.kinds())

    def test_unrequested_reject(self) -> None:
        """A reject of what was not requested closes the connection."""
        self.say(Reject(ONE, RejectReason.GONE))
        self.assert_refused()

    def test_requests_are_bounded(self) -> None:
        """No more than REQUESTS_MAX requests, cancelled ones included, are open at a peer."""
        for index in range(limits.REQUESTS_MAX):
            self.assertTrue(self.connection.may_request(PieceIndex(index)))
            self.connection.request(PieceIndex(index), 10)
            self.connection.cancel(PieceIndex(index))
        self.assertFalse(self.connection.may_request(PieceIndex(limits.REQUESTS_MAX)))

    def test_owner_refuses(self) -> None:
        """A rule broken in the owner's eyes closes the connection; what follows is not read."""
        self.recorder.refuse = UnexpectedMessage("no-grant")
        self.say(Grant(ONE), Grant(ZERO))
        self.assert_refused()
        self.assertEqual([Grant(ONE), "closed"], self.recorder.kinds())

    @given(st.lists((control_messages() | data_messages()).map(encode).flatmap(mutations)))
    def test_mutated_frames(self, frames: list[bytes]) -> None:
        """Whatever a proved peer sends, nothing is raised and no piece appears."""
        self.setUp()
        self.connection.request(ONE, 1 << 20)
        for frame in frames:
            self.connection.dataReceived(frame)
        self.assertNotIn("piece", self.recorder.kinds())

    def test_bye(self) -> None:
        """A peer's goodbye ends the connection with its reason."""
        self.say(Bye(ByeReason.DONE), Interest(True))
        self.assertEqual(ByeReason.DONE, self.connection.remote_bye)
        self.assertEqual([("closed", "closed by peer: done", False)], self.recorder.told)
        self.assertEqual("aborted", self.socket.state)

    def test_unknown_bye(self) -> None:
        """A later version's reason is shown as its code."""
        self.say(Bye(99))
        self.assertEqual([("closed", "closed by peer: code 99", False)], self.recorder.told)


class CloseTests(ConnectionCase):
    """The end."""

    def setUp(self) -> None:
        """An open connection."""
        super().setUp()
        self.prove()

    def test_polite_close(self) -> None:
        """A close says why, tells the owner at once, and again when the socket is gone."""
        self.connection.close(ByeReason.DONE)
        self.connection.close(ByeReason.IDLE)
        self.assertEqual([Bye(ByeReason.DONE)], self.heard())
        self.assertEqual(["closed"], self.recorder.kinds())
        self.lose()
        self.assertEqual(["closed", "gone", "ended"], self.recorder.kinds())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_close_is_cut_short(self) -> None:
        """A peer that does not read the goodbye is cut off CLOSE_S later."""
        self.connection.close(ByeReason.DONE)
        self.clock.advance(limits.CLOSE_S - 0.1)
        self.assertEqual("losing", self.socket.state)
        self.clock.advance(0.2)
        self.assertEqual("aborted", self.socket.state)

    def test_nothing_follows_a_close(self) -> None:
        """After a close nothing is sent and nothing heard."""
        self.connection.close(ByeReason.DONE)
        self.heard()
        self.connection.send(Interest(True))
        self.say(Interest(True))
        self.assertEqual(([], ["closed"]), (self.heard(), self.recorder.kinds()))
        self.assertIsNone(self.socket.producer)

    def test_lost(self) -> None:
        """A connection that breaks tells owner and watcher why."""
        self.lose()
        self.assertEqual(["closed", "gone", "ended"], self.recorder.kinds())

    def test_shed(self) -> None:
        """A connection that must make room says so."""
        self.connection.shed()
        self.assert_refused(ByeReason.FULL)

    def test_idle(self) -> None:
        """A peer silent for IDLE_S is let go."""
        self.clock.advance(limits.IDLE_S - 1)
        self.connection.tick(self.clock.seconds())
        self.assertTrue(self.connection.is_open)
        self.clock.advance(1)
        self.connection.tick(self.clock.seconds())
        self.assert_refused(ByeReason.IDLE)
        self.connection.tick(self.clock.seconds())

    def test_keepalive(self) -> None:
        """We break our own silence every KEEPALIVE_S."""
        self.clock.advance(limits.KEEPALIVE_S - 1)
        self.connection.tick(self.clock.seconds())
        self.assertEqual([], self.heard())
        self.clock.advance(1)
        self.connection.tick(self.clock.seconds())
        self.connection.tick(self.clock.seconds())
        self.assertEqual([KeepAlive()], self.heard())

    def test_refuse(self) -> None:
        """An owner can close for a rule broken earlier."""
        self.connection.refuse(MalformedMessage("bitfield-size"))
        self.assert_refused()


class AssemblyTests(TestCase):
    """Memory for pieces on their way in."""

    def test_memory_is_taken_late(self) -> None:
        """A buffer is made when the first byte comes, and given up by a cancel."""
        assembly = Assembly(ZERO, 1000)
        self.assertEqual(0, len(assembly.data))
        assembly.add(0, b"x")
        self.assertEqual(1000, len(assembly.data))
        assembly.cancel()
        self.assertEqual(0, len(assembly.data))
        self.assertTrue(assembly.add(1, bytes(999)))

    def test_place(self) -> None:
        """The next bytes can be put into their place; any others have none."""
        assembly = Assembly(ZERO, 10)
        for offset, size in ((1, 2), (0, 11)):
            self.assertIsNone(assembly.place(offset, size))
        place = assembly.place(0, 10)
        assert place is not None
        place[:] = b"0123456789"
        self.assertFalse(assembly.placed(4))
        self.assertIsNone(assembly.place(0, 10))
        self.assertTrue(assembly.placed(6))
        self.assertEqual(b"0123456789", assembly.data)
        assembly.cancel()
        self.assertIsNone(assembly.place(10, 0))

    def test_buffers_serve_again(self) -> None:
        """A buffer of the right size is used again, within the budget, until all is given back."""
        budget = AssemblyBudget(limit_bytes=30)
        budget.take(20)
        first = budget.buffer(10)
        self.assertEqual("result", budget.recycle("result", first))
        self.assertIs(first, budget.buffer(10))
        budget.recycle(None, first)
        self.assertEqual(5, len(budget.buffer(5)))
        self.assertIsNot(first, budget.buffer(10))
        budget.recycle(None, first)
        budget.recycle(None, bytearray(10))
        budget.recycle(None, bytearray(10))  # more than the budget
        budget.buffer(10)
        budget.buffer(10)
        self.assertIsNot(first, budget.buffer(10))
        budget.recycle(None, first)
        budget.give(20)
        self.assertIsNot(first, budget.buffer(10))

    def test_budget(self) -> None:
        """The budget of ASSEMBLY_BYTES is shared; who waits is told once when some comes back."""
        budget, told = AssemblyBudget(), []
        self.assertTrue(budget.fits(limits.ASSEMBLY_BYTES))
        budget.take(limits.ASSEMBLY_BYTES)
        self.assertFalse(budget.fits(1))
        first, second = object(), object()
        budget.when_freed(first, lambda: told.append("first"))
        budget.when_freed(first, lambda: told.append("again"))
        budget.when_freed(second, lambda: told.append("second"))
        budget.forget(second)
        budget.give(10)
        budget.give(10)
        self.assertEqual((["again"], limits.ASSEMBLY_BYTES - 20), (told, budget.used_bytes))
