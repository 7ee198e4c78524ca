"""Tests of :mod:`p2pdist.swarm.line` and :mod:`p2pdist.storage.loan`, on real sockets and files."""

from __future__ import annotations

import fcntl
import functools
import os
import select
import socket
import sys
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorFDSet, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2pdist import limits
from p2pdist.storage.loan import Loan, Part
from p2pdist.swarm.line import Line, speed_up
from p2pdist.swarm.sender import BlockSender, Parcel
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import FakeSocket

_TCP_NOTSENT_LOWAT = 25
_SIOCOUTQNSD = 0x894B
"""Linux: tells how many bytes the kernel took and has not sent."""


@implementer(IReactorFDSet)
class Descriptors:
    """A reactor that only remembers who waits for what."""

    def __init__(self) -> None:
        self.readers: set[object] = set()
        self.writers: set[object] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard
        self.addWriter = self.writers.add
        self.removeWriter = self.writers.discard

    def removeAll(self) -> list[Any]:
        """See IReactorFDSet; not used."""
        raise NotImplementedError

    def getReaders(self) -> list[Any]:
        """See IReactorFDSet."""
        return list(self.readers)

    def getWriters(self) -> list[Any]:
        """See IReactorFDSet."""
        return list(self.writers)


def _answer(waiting: Deferred[bytes | Loan], _offset: int, _size: int) -> Deferred[bytes | Loan]:
    """Return what any read of a parcel returns."""
    return waiting


class Transport(FakeSocket):
    """A transport with a real socket beneath; ``told`` holds what it was told."""

    def __init__(self, handle: socket.socket, reactor: object) -> None:
        super().__init__()
        self.handle = handle
        self.reactor = reactor
        self.told: list[str] = []

    def getHandle(self) -> socket.socket:
        """Return the socket."""
        return self.handle

    def pauseProducing(self) -> None:
        """Record it."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """Record it."""
        self.told.append("resume")


@implementer(IPushProducer)
@define
class Both:
    """A producer and a receiver that record."""

    told: list[str] = field(factory=list)
    received: bytearray = field(factory=bytearray)
    where: memoryview | None = None

    def pauseProducing(self) -> None:
        """Record it."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """Record it."""
        self.told.append("resume")

    def stopProducing(self) -> None:
        """Record it."""
        self.told.append("stop")

    def place(self) -> memoryview | None:
        """Return the place the test made."""
        return self.where

    def placed(self, size: int) -> None:
        """Move it on."""
        assert self.where is not None
        self.where = self.where[size:] or None

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data


class LineTests(TestCase):
    """A line between two sockets."""

    def setUp(self) -> None:
        """Connect them."""
        ours, self.far = socket.socketpair()
        ours.setblocking(False)
        self.far.setblocking(False)
        self.reactor = Descriptors()
        self.transport = Transport(ours, self.reactor)
        self.ends = Both()
        line = speed_up(self.transport, self.ends)
        assert line is not None
        self.line: Line = line
        self.line.registerProducer(self.ends, True)
        self.addCleanup(self.far.close)
        self.addCleanup(ours.close)
        self.addCleanup(self.line.close)
        self.returned: list[str] = []

    def lend(self, *texts: bytes) -> Loan:
        """Lend the content of new files."""
        parts = []
        for text in texts:
            path = self.mktemp()
            handle = os.open(path, os.O_RDWR | os.O_CREAT)
            self.addCleanup(os.close, handle)
            os.write(handle, text)
            parts.append(Part(handle, 0, len(text)))
        return Loan(tuple(parts), lambda: self.returned.append("returned"))

    def drain(self) -> bytes:
        """Read at the far end until all is through."""
        got = bytearray()
        while True:
            try:
                data = self.far.recv(1 << 20)
            except BlockingIOError:
                if self.line not in self.reactor.writers:
                    return bytes(got)
                self.line.doWrite()
                continue
            if not data:
                return bytes(got)
            got += data

    def test_is_a_descriptor(self) -> None:
        """Reactors and senders can use it."""
        self.assertTrue(verifyObject(IReadWriteDescriptor, self.line))
        self.assertTrue(verifyObject(IPushProducer, self.ends))

    def test_takes_reading_over(self) -> None:
        """The transport stops reading, and the line reads instead."""
        self.assertEqual((["pause"], {self.line}), (self.transport.told, self.reactor.readers))

    def test_others_do_without(self) -> None:
        """TLS, sockets without a descriptor and reactors without any keep their transports."""
        self.assertIsNone(speed_up(FakeSocket(), self.ends))
        self.assertIsNone(speed_up(Transport(self.transport.handle, object()), self.ends))
        secured: Any = Transport(self.transport.handle, self.reactor)
        secured.TLS = True
        self.assertIsNone(speed_up(secured, self.ends))
        simulated: Any = Transport(self.transport.handle, self.reactor)
        simulated.handle = object()
        self.assertIsNone(speed_up(simulated, self.ends))

    def test_writes_in_order(self) -> None:
        """Headers, stretches of files and control frames leave in the order they came."""
        loan = self.lend(b"abc" * 200_000, b"xyz" * 200_000)
        whole = b"abc" * 200_000 + b"xyz" * 200_000
        self.line.write_file(b"one", loan.cut(0, 700_000))
        self.line.write(b"frame")
        self.line.write_file(b"two", loan.cut(700_000, 500_000))
        self.line.writeSequence([b"the", b"end"])
        loan.release()
        self.assertEqual([], self.returned)
        expected = b"one" + whole[:700_000] + b"frame" + b"two" + whole[700_000:] + b"theend"
        self.assertEqual(expected, self.drain())
        self.assertEqual(["returned"], self.returned)

    def test_back_pressure(self) -> None:
        """What the socket does not take pauses the producer until it is gone."""
        self.line.write(b"small")
        self.assertEqual([], self.ends.told)
        self.line.write(bytes(4 << 20))
        self.line.write(b"more")
        self.assertEqual((["pause"], {self.line}), (self.ends.told, self.reactor.writers))
        self.assertEqual(5 + (4 << 20) + 4, len(self.drain()))
        self.assertEqual((["pause", "resume"], set()), (self.ends.told, self.reactor.writers))

    def test_shrunk_file(self) -> None:
        """A frame whose file became too short cannot be finished: the connection is aborted."""
        loan = self.lend(b"abc")
        stretches = loan.cut(0, 3)
        os.ftruncate(stretches[0].handle, 1)
        self.line.write_file(b"header", stretches)
        loan.release()
        self.assertEqual("aborted", self.transport.state)
        self.assertEqual(["returned"], self.returned)

    def test_loans_end_with_the_line(self) -> None:
        """What was not sent is released when the connection is aborted, or gone."""
        for end in (self.line.abortConnection, self.line.close):
            loan = self.lend(bytes(4 << 20))
            self.line.write_file(b"", loan.cut(0, 4 << 20))
            loan.release()
            self.assertEqual([], self.returned)
            end()
            self.assertEqual(["returned"], self.returned)
            self.returned.clear()
        self.line.write(b"nothing happens")

    def test_reads_into_place(self) -> None:
        """Bytes whose place is known go there, what follows is handed over."""
        buffer = bytearray(10)
        self.ends.where = memoryview(buffer)
        self.far.send(b"01234")
        self.line.doRead()
        self.far.send(b"56789after")
        self.line.doRead()
        self.assertEqual((b"0123456789", b"after"), (buffer, self.ends.received))
        self.far.send(b"more")
        self.line.doRead()
        self.line.doRead()  # nothing there
        self.assertEqual(b"aftermore", self.ends.received)

    def test_reading_is_bounded(self) -> None:
        """No read exceeds ``bufferSize``, READ_BYTES, or READ_BEYOND_BYTES behind a place."""
        self.far.send(bytes(100_000))
        self.line.bufferSize = 10
        self.line.doRead()
        self.assertEqual(10, len(self.ends.received))
        self.ends.where = memoryview(bytearray(100))
        self.line.doRead()
        self.assertEqual((90, 10), (len(self.ends.where), len(self.ends.received)))
        self.line.bufferSize = limits.BLOCK_BYTES
        self.line.doRead()
        self.assertEqual(10 + limits.READ_BEYOND_BYTES, len(self.ends.received))
        self.line.doRead()
        self.assertEqual(10 + limits.READ_BEYOND_BYTES + limits.READ_BYTES, len(self.ends.received))

    def on_tcp(self) -> tuple[Line, socket.socket]:
        """Return a line over loopback, and its far end."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        far = socket.create_connection(listening.getsockname())
        self.addCleanup(far.close)
        ours = listening.accept()[0]
        ours.setblocking(False)
        self.addCleanup(ours.close)
        line = speed_up(Transport(ours, self.reactor), self.ends)
        assert line is not None
        self.addCleanup(line.close)
        return line, far

    def test_part_of_a_stretch_is_not_held_back(self) -> None:
        """The kernel sends what it took, also where that is less than a segment and more is due."""
        line, self.far = self.on_tcp()
        self.far.setblocking(False)
        self.line = line
        for _ in range(64):  # until half of the window is much more than a segment
            line.write(bytes(1 << 16))
            self.drain()
        os_socket = socket.socket(fileno=os.dup(line.fileno()))
        self.addCleanup(os_socket.close)
        os_socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, limits.NOTSENT_BYTES[0])
        loan = self.lend(bytes(200_000))
        line.write_file(b"header", loan.cut(1000, 150_000))
        loan.release()
        self.assertEqual({line}, self.reactor.writers)
        not_sent = fcntl.ioctl(os_socket, _SIOCOUTQNSD, bytes(4))
        self.assertEqual(0, int.from_bytes(not_sent, sys.byteorder))

    def test_wakes_once_for_the_rest_of_a_block(self) -> None:
        """While bytes of a place are missing, the kernel tells of them only when all are there."""
        line, far = self.on_tcp()
        wakes = select.poll()
        wakes.register(line.fileno(), select.POLLIN)
        self.ends.where = memoryview(bytearray(1000))
        for part, woken in ((100, True), (500, False), (399, False), (1, True), (1, True)):
            far.send(bytes(part))
            self.assertEqual(woken, bool(wakes.poll(5000 if woken else 0)), part)
            if woken:
                line.doRead()
        self.assertEqual((None, b"\0"), (self.ends.where, self.ends.received))

    def test_end_is_handed_back(self) -> None:
        """At the end of the stream, or when the socket breaks, the transport reads again."""
        self.far.close()
        self.line.doRead()
        self.assertEqual((["pause", "resume"], set()), (self.transport.told, self.reactor.readers))
        self.line.pauseProducing()
        self.line.resumeProducing()
        self.assertEqual(["pause", "resume"] * 2, self.transport.told)

    def test_broken_while_writing(self) -> None:
        """A write into a broken socket raises nothing and lets the transport find out."""
        self.far.close()
        self.line.write(b"into the void")
        self.line.connectionLost(Failure(OSError()))
        self.assertEqual(["pause", "resume"], self.transport.told)

    def test_sender_lends(self) -> None:
        """A sender with a line sends lent pieces in blocks, and returns what it does not send."""
        text = b"abcd" * 100_000
        for cancelled in (False, True):
            loan = self.lend(text)
            sender = BlockSender(self.line, lambda: 0.0, self.line)
            self.line.registerProducer(sender, True)
            waiting: Deferred[bytes | Loan] = Deferred()
            parcel = Parcel(
                size=len(text),
                header=lambda _offset, _size: b"",
                read=functools.partial(_answer, waiting),
                progressed=lambda _size: None,
                done=lambda: None,
                failed=lambda _failure: None,
            )
            sender.send(parcel)
            if cancelled:
                sender.cancel(parcel)
            waiting.callback(loan)
            self.assertEqual(b"" if cancelled else text, self.drain())
            self.assertEqual(["returned"], self.returned)
            self.returned.clear()

    def test_flow_of_reading(self) -> None:
        """Reading can be paused for the rate limits."""
        self.line.pauseProducing()
        self.assertEqual(set(), self.reactor.readers)
        self.line.resumeProducing()
        self.assertEqual({self.line}, self.reactor.readers)

    def test_lose_connection(self) -> None:
        """A polite close waits until all is sent, and takes nothing more."""
        self.line.write(bytes(4 << 20))
        self.line.loseConnection()
        self.line.resumeProducing()
        self.assertEqual(("open", set()), (self.transport.state, self.reactor.readers))
        self.drain()
        self.assertEqual("losing", self.transport.state)
