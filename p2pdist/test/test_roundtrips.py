"""Tests for :mod:`p2pdist.swarm.roundtrips`."""

from __future__ import annotations

import socket
import sys

from attrs import define

from p2pdist import limits
from p2pdist.swarm.roundtrips import LineWatch, RoundTrip, round_trip
from p2pdist.test.support import TestCase

LONG = limits.LONG_WAY_S
CLEAR = RoundTrip(LONG, LONG)
QUEUED = RoundTrip(LONG * (1 + 2 * limits.QUEUE_SHARE), LONG)


@define
class FakePeer:
    """A connection that takes so long."""

    trip: RoundTrip | None
    useful_at: float = 0.0

    def round_trip(self) -> RoundTrip | None:
        """See ``Peer``."""
        return self.trip


@define
class Transport:
    """Something with a handle."""

    handle: object

    def getHandle(self) -> object:
        """See Twisted's ``ISystemHandle``."""
        return self.handle


class Short:
    """A socket of a system with a short answer."""

    def getsockopt(self, *_: int) -> bytes:
        """Return what an old kernel fills in."""
        return bytes(104)


class RoundTripTests(TestCase):
    """What one connection says."""

    def test_queue(self) -> None:
        """A long way is clear until its packets take a share longer than the quickest did."""
        self.assertTrue(CLEAR.is_clear)
        self.assertTrue(RoundTrip(LONG * (1 + 0.9 * limits.QUEUE_SHARE), LONG).is_clear)
        self.assertFalse(QUEUED.is_clear)

    def test_short_way(self) -> None:
        """A short way never counts."""
        self.assertFalse(RoundTrip(0.9 * LONG, 0.9 * LONG).is_clear)

    def test_kernel(self) -> None:
        """A socket's round trips are what the kernel has measured."""
        if sys.platform != "linux":
            self.skipTest("only Linux tells")
        server = socket.create_server(("127.0.0.1", 0))
        with server, socket.create_connection(server.getsockname()) as here:
            there, _ = server.accept()
            with there:
                for _ in range(10):
                    here.sendall(b"x")
                    there.recv(1)
                trip = round_trip(Transport(here))
        assert trip is not None
        self.assertTrue(0 < trip.shortest <= trip.smoothed < 60, trip)
        self.assertIsNone(round_trip(Transport(here)), "it is closed")

    def test_no_answer(self) -> None:
        """Without a socket, or with one that does not tell, there is none."""
        for transport in (None, object(), Transport(None), Transport(Short())):
            self.assertIsNone(round_trip(transport))


class LineWatchTests(TestCase):
    """What all say together."""

    def setUp(self) -> None:
        """Watch, and be told."""
        self.told: list[tuple[float, bool]] = []
        self.watch = LineWatch(self)

    def adapt(self, now: float, *, clear: bool) -> None:
        """See ``Book``."""
        self.told.append((now, clear))

    def test_most_decide(self) -> None:
        """More than half of those in use must be clear; who has no answer does not count."""
        for trips, clear in (
            ([CLEAR, CLEAR, QUEUED, None, None], True),
            ([CLEAR, QUEUED], False),
            ([None], False),
            ([], False),
        ):
            self.watch.look([FakePeer(trip) for trip in trips], 0.0)
            self.assertEqual([(0.0, clear)], self.told)
            self.setUp()

    def test_idle_ones_do_not_count(self) -> None:
        """A connection that has moved no piece for IN_USE_S says nothing."""
        idle = [FakePeer(QUEUED) for _ in range(9)]
        self.watch.look([*idle, FakePeer(CLEAR, limits.IN_USE_S)], limits.IN_USE_S)
        self.assertEqual([(limits.IN_USE_S, True)], self.told)

    def test_looks_once_a_span(self) -> None:
        """Sockets are asked once every UPLINK_SPAN_S, however often the exchange comes by."""
        for now in (0.0, 0.5 * limits.UPLINK_SPAN_S, limits.UPLINK_SPAN_S):
            self.watch.look([], now)
        self.assertEqual([0.0, limits.UPLINK_SPAN_S], [now for now, _ in self.told])
