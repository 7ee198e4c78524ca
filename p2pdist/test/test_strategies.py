"""Tests of the base strategies: what they promise to give."""

from __future__ import annotations

from hypothesis import strategies as st

from p2pdist import addresses
from p2pdist.addresses import Address
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given


class StrategyTests(TestCase):
    """The base strategies."""

    @given(strategies.ip4_addresses(), strategies.ip6_addresses())
    def test_addresses_are_usable(self, v4: Address, v6: Address):
        """Both families give addresses that survive packing."""
        self.assertEqual((False, True), (addresses.is_ipv6(v4), addresses.is_ipv6(v6)))
        self.assertEqual(v4, addresses.unpack(addresses.pack(v4)))
        self.assertEqual(v6, addresses.unpack(addresses.pack(v6)))

    @given(st.data(), st.binary(max_size=50))
    def test_cut_streams_lose_nothing(self, data: st.DataObject, whole: bytes):
        """The chunks of a cut stream join to the stream."""
        chunks = data.draw(strategies.streams_cut_anywhere(whole))
        self.assertEqual(whole, b"".join(chunks))
        self.assertGreater(10, len(chunks))

    @given(st.data(), st.binary(min_size=1, max_size=50))
    def test_mutation_changes_one_byte(self, data: st.DataObject, whole: bytes):
        """A mutation differs in exactly one byte."""
        mutated = data.draw(strategies.mutations(whole))
        self.assertEqual(1, sum(a != b for a, b in zip(whole, mutated, strict=True)))

    @given(strategies.hostile_msgpack())
    def test_hostile_msgpack_is_bytes(self, packed: bytes):
        """Hostile bytes are made without tripping over themselves."""
        self.assertIsInstance(packed, bytes)
