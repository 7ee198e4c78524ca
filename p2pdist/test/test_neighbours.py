"""Tests of what a node remembers of others: written by us, read as if a stranger had."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.ids import HashKey, format_hash_key
from p2pdist.neighbours import Remembered, decode, encode
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

KEY = HashKey(b"k" * 32)


def addresses(count: int) -> tuple[Address, ...]:
    """Return ``count`` addresses."""
    return tuple(Address("10.0.0.1", 1 + number) for number in range(count))


def json_values() -> st.SearchStrategy[Any]:
    """Any JSON."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["neighbours", "peers", format_hash_key(KEY)])
                | st.text(max_size=3),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )


class NeighboursTests(TestCase):
    """The ``neighbours`` file."""

    @given(
        st.lists(strategies.addresses(), unique=True, max_size=8),
        st.dictionaries(
            strategies.hash_keys(), st.lists(strategies.addresses(), unique=True, max_size=8)
        ),
    )
    def test_round_trip(self, nodes: list[Address], peers: dict[HashKey, list[Address]]):
        """What was written is read."""
        remembered = Remembered(
            tuple(HostPort(*node) for node in nodes),
            {key: tuple(found) for key, found in peers.items()},
        )
        self.assertEqual(remembered, decode(encode(remembered)))

    def test_bounds(self):
        """So many neighbours and peers of each content are written, and read."""
        many = addresses(200)
        written = Remembered(tuple(HostPort(*node) for node in many), {KEY: many})
        read = decode(encode(written))
        self.assertEqual(many[: limits.SAVED_NEIGHBOURS], read.neighbours)
        self.assertEqual(many[: limits.SAVED_PEERS], read.peers[KEY])
        swollen = {
            "neighbours": [str(node) for node in many],
            "peers": {format_hash_key(KEY): [str(node) for node in many]},
        }
        self.assertEqual(read, decode(json.dumps(swollen).encode()))

    def test_size(self):
        """Contents are left out until the file is small enough; neighbours stay."""
        peers = {HashKey(n.to_bytes(32, "big")): addresses(limits.SAVED_PEERS) for n in range(200)}
        data = encode(Remembered((HostPort("10.0.0.1", 1),), peers))
        self.assertLessEqual(len(data), limits.SAVED_FILE_BYTES)
        read = decode(data)
        self.assertEqual((HostPort("10.0.0.1", 1),), read.neighbours)
        self.assertTrue(0 < len(read.peers) < 200)

    def test_largest_neighbours_fit(self):
        """As many neighbours with the longest names as may be kept fit the file."""
        name = ".".join(["x" * 60] * 4)
        nodes = tuple(HostPort(name, 65535 - n) for n in range(limits.SAVED_NEIGHBOURS))
        data = encode(Remembered(nodes))
        self.assertLessEqual(len(data), limits.SAVED_FILE_BYTES)
        self.assertEqual(limits.SAVED_NEIGHBOURS, len(json.loads(data)["neighbours"]))

    def test_bad_entries_are_left_out(self):
        """Names, bad ports, other types and unusable addresses are left out, the rest stays."""
        entries = ["name:1", "10.0.0.1:0", 7, None, "224.0.0.1:1", "10.0.0.1:9", "[fd00::1]:9", ""]
        data = {"neighbours": entries, "peers": {"b3:short": entries, format_hash_key(KEY): 7}}
        read = decode(json.dumps(data).encode())
        self.assertEqual((HostPort("10.0.0.1", 9), HostPort("fd00::1", 9)), read.neighbours)
        self.assertEqual({KEY: ()}, read.peers)

    def test_damaged_files(self):
        """A file that is cut off, too large, or no object says nothing."""
        good = encode(Remembered((HostPort("10.0.0.1", 1),)))
        for data in (b"", good[:-1], b"[]", b"7", b"\xff\xfe\x00", b"[" * 60000, good + b"x"):
            self.assertEqual(Remembered(), decode(data))
        self.assertEqual(Remembered(), decode(good + b" " * limits.SAVED_FILE_BYTES))
        self.assertNotEqual(Remembered(), decode(good + b" "))

    @given(st.binary(max_size=60) | json_values().map(lambda value: json.dumps(value).encode()))
    def test_any_bytes(self, data: bytes):
        """Any bytes give something usable."""
        read = decode(data)
        self.assertEqual(read, decode(encode(read)))
