"""Tests for :mod:`p2pdist.simulation.links`."""

from __future__ import annotations

import random

from twisted.internet.address import IPv4Address

from p2pdist.simulation.links import NOTSENT_LOWAT, Host, Stream, Terrain
from p2pdist.simulation.timeline import KERNEL, Timeline
from p2pdist.swarm.roundtrips import round_trip
from p2pdist.test.support import TestCase

RATE = 1_000_000.0
NAME = IPv4Address("TCP", "10.0.0.1", 1)


class Sink:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.data = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.data += data


class LinkTests(TestCase):
    """Streams over lines."""

    def setUp(self) -> None:
        """Begin at time 0."""
        self.timeline = Timeline(1)
        self.terrain = Terrain()

    def host(self, rate: float = RATE) -> Host:
        """Make a host with the same rate each way."""
        return Host(self.timeline, self.terrain, rate, rate)

    def stream(self, here: Host, there: Host) -> tuple[Stream, Sink]:
        """Make a stream and its end."""
        made, sink = Stream(here, there, NAME), Sink()
        made.receiver = sink
        return made, sink

    def test_bytes_arrive_in_order(self) -> None:
        """Everything arrives as it was written, losses or not, at nearly the line's rate."""
        there = self.host()
        sent = bytes(range(256)) * 2000
        pairs = [self.stream(self.host(), there) for _ in range(4)]
        for stream, _ in pairs:
            stream.write(sent)
        seconds = self.timeline.run_until(
            lambda: all(len(sink.data) == len(sent) for _, sink in pairs)
        )
        self.assertTrue(all(bytes(sink.data) == sent for _, sink in pairs))
        self.assertLess(0, there.lost_bytes)
        self.assertLess(4 * len(sent) / RATE, seconds)
        self.assertLess(seconds, 1.3 * 4 * len(sent) / RATE)

    def test_losses(self) -> None:
        """With lost packets everything arrives as well, at a small part of the line's rate."""
        self.terrain = Terrain(delay_s=0.04, loss=0.05)
        there = Host(self.timeline, self.terrain, RATE, RATE, random.Random(1))
        stream, sink = self.stream(self.host(), there)
        sent = bytes(range(256)) * 2000
        stream.write(sent)
        seconds = self.timeline.run_until(lambda: len(sink.data) == len(sent))
        self.assertEqual(sent, bytes(sink.data))
        self.assertLess(0, there.lost_bytes)
        self.assertLess(4 * len(sent) / RATE, seconds)

    def test_round_trips(self) -> None:
        """A stream's handle tells of its round trips, and of the queue that is in them."""
        there = self.host(RATE / 4)
        stream, sink = self.stream(self.host(), there)
        stream.write(bytes(1000))
        self.timeline.at(0.1, KERNEL, lambda: None)
        self.timeline.run_until(lambda: self.timeline.now >= 0.1)
        trip = round_trip(stream)
        assert trip is not None
        self.assertEqual(trip.smoothed, trip.shortest)
        self.assertLess(2 * self.terrain.delay_s, trip.shortest)
        stream.write(bytes(200_000))
        self.timeline.run_until(lambda: len(sink.data) == 201_000)
        queued = round_trip(stream)
        assert queued is not None
        self.assertEqual(trip.shortest, queued.shortest)
        self.assertLess(2 * trip.shortest, queued.smoothed)

    def test_uplink_is_shared(self) -> None:
        """Streams to different hosts get about the same of one uplink."""
        here = self.host()
        pairs = [self.stream(here, self.host()) for _ in range(2)]
        for stream, _ in pairs:
            stream.write(bytes(2_000_000))
        self.timeline.run(1.0)
        one, other = (len(sink.data) for _, sink in pairs)
        self.assertLess(0.8 * RATE, one + other)
        self.assertLess(abs(one - other), 0.2 * RATE)

    def test_receiver_bounds_the_flight(self) -> None:
        """A small window keeps the queue short: nothing is lost."""
        there = self.host()
        for _ in range(4):
            stream, _sink = self.stream(self.host(), there)
            stream.window_bytes = 12_000
            stream.write(bytes(500_000))
        self.timeline.run(1.0)
        self.assertEqual(0, there.lost_bytes)

    def test_kernel_takes_what_it_may(self) -> None:
        """With little allowed to wait, what is written later is not far behind."""
        stream, _sink = self.stream(self.host(), self.host())
        stream.setsockopt(6, NOTSENT_LOWAT, 16_384)
        self.assertEqual(16_384, stream.notsent_bytes)

    def test_dead_host(self) -> None:
        """Nothing leaves or reaches a host that was switched off."""
        here, there = self.host(), self.host()
        stream, sink = self.stream(here, there)
        stream.write(bytes(1_000_000))
        self.timeline.run(0.1)
        there.switch_off()
        before = len(sink.data)
        self.timeline.run(1.0)
        self.assertEqual(before, len(sink.data))
