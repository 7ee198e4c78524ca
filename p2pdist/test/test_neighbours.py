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
TAG = b"\1\2\3\xff"


def written(remembered: Remembered) -> bytes:
    """Return the file of a node of one network."""
    return encode({TAG: remembered})


def read_back(data: bytes) -> Remembered:
    """Return what a file says of that network."""
    return decode(data)[TAG]


def file_of(part: Any) -> bytes:
    """Return a file with one network's part."""
    return json.dumps({"networks": {TAG.hex(): part}}).encode()


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
                st.sampled_from(
                    ["networks", TAG.hex(), "neighbours", "peers", format_hash_key(KEY)]
                )
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
        both = {TAG: remembered, bytes(4): Remembered()}
        self.assertEqual(both, decode(encode(both)))

    def test_bounds(self):
        """So many neighbours and peers of each content are written, and read."""
        many = addresses(200)
        remembered = Remembered(tuple(HostPort(*node) for node in many), {KEY: many})
        read = read_back(written(remembered))
        self.assertEqual(many[: limits.SAVED_NEIGHBOURS], read.neighbours)
        self.assertEqual(many[: limits.SAVED_PEERS], read.peers[KEY])
        swollen = {
            "neighbours": [str(node) for node in many],
            "peers": {format_hash_key(KEY): [str(node) for node in many]},
        }
        self.assertEqual(read, read_back(file_of(swollen)))

    def test_networks_are_bounded(self):
        """So many networks are written, and read; their neighbours give way to the file's size."""
        nodes = tuple(
            HostPort("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 60000 + n) for n in range(64)
        )
        many = {bytes([1, 2, 3, n]): Remembered(nodes) for n in range(limits.NETWORKS + 3)}
        data = encode(many)
        self.assertLessEqual(len(data), limits.SAVED_FILE_BYTES)
        self.assertEqual(list(many)[: limits.NETWORKS], list(decode(data)))
        self.assertGreater(len(decode(data)[bytes([1, 2, 3, 0])].neighbours), 32)
        parts = {tag.hex(): {"neighbours": ["10.0.0.1:1"]} for tag in many}
        swollen = json.dumps({"networks": parts}).encode()
        self.assertEqual(limits.NETWORKS, len(decode(swollen)))

    def test_size(self):
        """Contents are left out until the file is small enough; neighbours stay."""
        peers = {HashKey(n.to_bytes(32, "big")): addresses(limits.SAVED_PEERS) for n in range(200)}
        data = written(Remembered((HostPort("10.0.0.1", 1),), peers))
        self.assertLessEqual(len(data), limits.SAVED_FILE_BYTES)
        read = read_back(data)
        self.assertEqual((HostPort("10.0.0.1", 1),), read.neighbours)
        self.assertTrue(0 < len(read.peers) < 200)

    def test_largest_neighbours_fit(self):
        """As many neighbours with the longest names as may be kept fit the file."""
        name = ".".join(["x" * 60] * 4)
        nodes = tuple(HostPort(name, 65535 - n) for n in range(limits.SAVED_NEIGHBOURS))
        data = written(Remembered(nodes))
        self.assertLessEqual(len(data), limits.SAVED_FILE_BYTES)
        self.assertEqual(
            limits.SAVED_NEIGHBOURS, len(json.loads(data)["networks"][TAG.hex()]["neighbours"])
        )

    def test_bad_entries_are_left_out(self):
        """Names, bad ports, other types and unusable addresses are left out, the rest stays."""
        entries = ["name:1", "10.0.0.1:0", 7, None, "224.0.0.1:1", "10.0.0.1:9", "[fd00::1]:9", ""]
        data = {"neighbours": entries, "peers": {"b3:short": entries, format_hash_key(KEY): 7}}
        read = read_back(file_of(data))
        self.assertEqual((HostPort("10.0.0.1", 9), HostPort("fd00::1", 9)), read.neighbours)
        self.assertEqual({KEY: ()}, read.peers)

    def test_damaged_files(self):
        """A file that is cut off, too large, or no object says nothing."""
        good = written(Remembered((HostPort("10.0.0.1", 1),)))
        for data in (b"", good[:-1], b"[]", b"7", b"\xff\xfe\x00", b"[" * 60000, good + b"x"):
            self.assertEqual({}, decode(data))
        self.assertEqual({}, decode(good + b" " * limits.SAVED_FILE_BYTES))
        self.assertNotEqual({}, decode(good + b" "))

    def test_bad_tags_are_left_out(self):
        """What is no tag, or no table, is no network."""
        for tag in ("", "0102030", "0102030g", "010203FF", "01020304ff"):
            self.assertEqual({}, decode(json.dumps({"networks": {tag: {}}}).encode()))
        self.assertEqual({}, decode(file_of(7)))

    @given(st.binary(max_size=60) | json_values().map(lambda value: json.dumps(value).encode()))
    def test_any_bytes(self, data: bytes):
        """Any bytes give something usable."""
        read = decode(data)
        self.assertEqual(read, decode(encode(read)))
