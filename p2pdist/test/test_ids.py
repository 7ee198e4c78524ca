"""Tests of identifiers and the XOR metric."""

from __future__ import annotations

from hypothesis import strategies as st

from p2pdist import ids
from p2pdist.ids import ID_BYTES, HashKey, NodeID
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given


class DistanceTests(TestCase):
    """The metric of Kademlia, section 2.1."""

    def test_values(self):
        """Distance is XOR, big-endian; equal ids have none."""
        self.assertEqual(0x0103, ids.distance(b"\x00\x01", b"\x01\x02"))
        self.assertEqual(0, ids.distance(bytes(ID_BYTES), bytes(ID_BYTES)))

    @given(strategies.node_ids(), strategies.node_ids(), strategies.node_ids())
    def test_is_a_metric(self, a: NodeID, b: NodeID, c: NodeID):
        """Symmetric, zero only to itself, and no way around is shorter."""
        self.assertEqual(ids.distance(a, b), ids.distance(b, a))
        self.assertEqual(a == b, ids.distance(a, b) == 0)
        self.assertLessEqual(ids.distance(a, c), ids.distance(a, b) + ids.distance(b, c))

    @given(strategies.node_ids(), st.integers(0, 8 * ID_BYTES - 1))
    def test_shared_prefix(self, a: NodeID, bit: int):
        """Ids that differ first in bit ``n`` share ``n`` bits; equal ones share all."""
        flipped = int.from_bytes(a, "big") ^ 1 << (8 * ID_BYTES - 1 - bit)
        self.assertEqual(bit, ids.shared_prefix_bits(a, flipped.to_bytes(ID_BYTES, "big")))
        self.assertEqual(8 * ID_BYTES, ids.shared_prefix_bits(a, a))


class HashKeyTests(TestCase):
    """The text form of hash_key."""

    @given(strategies.hash_keys())
    def test_round_trip(self, hash_key: HashKey):
        """What is written can be read; case does not matter."""
        text = ids.format_hash_key(hash_key)
        self.assertEqual(hash_key, ids.parse_hash_key(text))
        self.assertEqual(hash_key, ids.parse_hash_key("b3:" + text[3:].upper()))

    @given(st.text(max_size=80))
    def test_anything_else_is_refused(self, text: str):
        """Any other text is refused, in words that can be printed."""
        error = self.assertRaises(ValueError, ids.parse_hash_key, text)
        self.assertTrue(str(error).isprintable())

    def test_near_misses_are_refused(self):
        """Neither blanks nor line ends nor other digits pass."""
        good = "b3:" + "0" * 64
        for text in (
            f"{good}\n",
            f" {good}",
            good[:-1],
            f"{good}0",
            "b3:" + "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
            good.upper(),
        ):
            self.assertRaises(ValueError, ids.parse_hash_key, text)

    def test_short(self):
        """The first 8 digits stand for an id where people read it."""
        self.assertEqual("deadbeef", ids.short(bytes.fromhex("deadbeef00")))
