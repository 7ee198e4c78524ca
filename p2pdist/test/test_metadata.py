"""Tests for :mod:`p2pdist.swarm.metadata`."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred

from p2pdist import limits
from p2pdist.errors import UnexpectedMessage
from p2pdist.ids import NodeID
from p2pdist.swarm.messages import MetadataPart
from p2pdist.swarm.metadata import MetadataFetch, metadata_parcel
from p2pdist.test.support import TestCase
from p2pdist.test.test_picker import A, B

SLOW = limits.METADATA_PROGRESS_S


class FetchTests(TestCase):
    """Fetching from peers of all kinds."""

    def setUp(self) -> None:
        """A fetch without sources."""
        self.fetch = MetadataFetch(random.Random(1))

    def asked(self, now: float = 0.0) -> NodeID:
        """Return who is asked now."""
        peer = self.fetch.ask(now)
        assert peer is not None
        return peer

    def test_whole_from_one_peer(self) -> None:
        """The parts of the peer that is asked make the metadata; nobody else is asked meanwhile."""
        self.assertIsNone(self.fetch.ask(0.0))
        self.fetch.add_source(A)
        self.fetch.add_source(B)
        peer = self.asked()
        self.assertIsNone(self.fetch.ask(0.0))
        self.assertIsNone(self.fetch.part(peer, MetadataPart(6, 0, b"abc"), 0.0))
        self.assertEqual(b"abcdef", self.fetch.part(peer, MetadataPart(6, 3, b"def"), 0.0))

    def test_wrong_parts(self) -> None:
        """Parts unasked, out of order, or of another total break the protocol."""
        self.fetch.add_source(A)
        with self.assertRaises(UnexpectedMessage):
            self.fetch.part(A, MetadataPart(3, 0, b"a"), 0.0)
        self.asked()
        with self.assertRaises(UnexpectedMessage):
            self.fetch.part(A, MetadataPart(3, 1, b"b"), 0.0)
        self.fetch.part(A, MetadataPart(3, 0, b"a"), 0.0)
        with self.assertRaises(UnexpectedMessage):
            self.fetch.part(A, MetadataPart(4, 1, b"b"), 0.0)

    def test_next_peer_after_a_failure(self) -> None:
        """When what came was wrong the other peer is asked next."""
        self.fetch.add_source(A)
        self.fetch.add_source(B)
        first = self.asked()
        self.fetch.part(first, MetadataPart(1, 0, b"x"), 0.0)
        self.assertNotEqual(first, self.asked())

    def test_stall(self) -> None:
        """A source that brings nothing for METADATA_PROGRESS_S is given up."""
        self.fetch.add_source(A)
        self.fetch.add_source(B)
        first = self.asked()
        self.assertIsNone(self.fetch.stalled(SLOW - 0.1))
        self.assertEqual(first, self.fetch.stalled(SLOW))
        self.assertNotEqual(first, self.asked(SLOW))

    def test_drips(self) -> None:
        """Progress is 16 KiB or a sixteenth of what was promised, whichever is more."""
        total = limits.METADATA_BYTES
        for size, given_up in ((total // 16 - 1, True), (total // 16, False)):
            fetch = MetadataFetch(random.Random(1))
            fetch.add_source(A)
            fetch.ask(0.0)
            fetch.part(A, MetadataPart(total, 0, bytes(size)), 9.0)
            self.assertEqual(given_up, fetch.stalled(SLOW) == A)
        small = MetadataFetch(random.Random(1))
        small.add_source(A)
        small.ask(0.0)
        small.part(A, MetadataPart(20_000, 0, bytes(limits.PIECE_PROGRESS_BYTES)), 9.0)
        self.assertIsNone(small.stalled(SLOW))

    def test_second_round_is_more_patient(self) -> None:
        """When every source has failed all get another chance, and twice the time."""
        self.fetch.add_source(A)
        self.asked(0.0)
        self.assertEqual(A, self.fetch.stalled(SLOW))
        self.asked(SLOW)
        self.assertIsNone(self.fetch.stalled(SLOW + 2 * SLOW - 0.1))
        self.assertEqual(A, self.fetch.stalled(SLOW + 2 * SLOW))

    def test_source_goes(self) -> None:
        """When the asked source disconnects its bytes are dropped and the next one starts anew."""
        self.fetch.add_source(A)
        self.asked()
        self.fetch.part(A, MetadataPart(2, 0, b"a"), 0.0)
        self.fetch.remove_source(A)
        self.fetch.add_source(B)
        self.assertEqual(B, self.asked())
        self.assertEqual(b"xy", self.fetch.part(B, MetadataPart(2, 0, b"xy"), 0.0))
        self.assertEqual(1, self.fetch.sources)

    def test_serving(self) -> None:
        """What is served is the encoded metadata, in parts that name their place."""
        parcel = metadata_parcel(b"abcdef")
        self.assertEqual(6, parcel.size)
        reading: Deferred[Any] = parcel.read(2, 2)
        self.assertEqual(b"cd", self.result_of(reading))
        parcel.progressed(2)
        parcel.done()
