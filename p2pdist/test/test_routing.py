"""Tests of the routing table, against a naive model and rule by rule."""

from __future__ import annotations

import math
import random

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address, subnet_key
from p2pdist.errors import LocalProtocolError
from p2pdist.ids import ID_BYTES, NodeID, shared_prefix_bits
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.routing import Neighbourhood, RoutingTable
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

OWN = NodeID(bytes(20))


def node_in(bucket: int, number: int) -> NodeID:
    """Return an id whose bucket in the table of :data:`OWN` is ``bucket``."""
    return NodeID(((1 << 159 - bucket) | number).to_bytes(20, "big"))


def local(number: int) -> Address:
    """Return a private address: no subnet caps."""
    return Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 7667)


def filled(bucket: int) -> RoutingTable:
    """Return a table whose bucket is full."""
    table = RoutingTable(OWN)
    size = limits.BUCKET_SIZES[min(bucket, len(limits.BUCKET_SIZES) - 1)]
    for number in range(size):
        assert table.verified(node_in(bucket, number), local(number), 0.0)
    return table


def network_of(count: int, seed: int) -> RoutingTable:
    """Return the table of a node of a network of ``count`` nodes of which it met every one."""
    chance = random.Random(seed)
    table = RoutingTable(NodeID(chance.randbytes(20)))
    for number in range(count - 1):
        table.verified(NodeID(chance.randbytes(20)), local(number), 0.0)
    return table


class ClosestTests(TestCase):
    """Which neighbours are nearest."""

    @given(
        st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60), st.booleans()), max_size=120),
        strategies.node_ids(),
        st.integers(1, limits.NEIGHBOURS),
    )
    def test_against_a_list(self, nodes: list[tuple[int, int, bool]], key: bytes, count: int):
        """Closest() is what sorting all neighbours by XOR distance gives."""
        table = RoutingTable(OWN)
        for bucket, number, answers in nodes:
            if answers:
                table.verified(node_in(bucket, number), local(bucket * 64 + number), 0.0)
            else:
                table.missed(local(bucket * 64 + number))
        everyone = sorted(
            (entry.node_id for entry in table),
            key=lambda node_id: [a ^ b for a, b in zip(node_id, key, strict=True)],
        )
        self.assertEqual(everyone[:count], [e.node_id for e in table.closest(key, count)])
        healthy = table.closest(key, count, lambda entry: not entry.suspect)
        wanted = [i for i in everyone if not any(e.node_id == i and e.misses for e in table)]
        self.assertEqual(wanted[:count], [entry.node_id for entry in healthy])

    def test_count_is_checked(self):
        """Asking for none, or more than a table holds, is a bug of ours."""
        table = RoutingTable(OWN)
        for count in (0, limits.NEIGHBOURS + 1):
            with self.assertRaises(LocalProtocolError):
                table.closest(OWN, count)


class BucketTests(TestCase):
    """Who comes in, who waits, who goes."""

    @given(
        st.lists(
            st.tuples(strategies.node_ids(), strategies.addresses(), st.integers(0, 4)),
            max_size=80,
        )
    )
    def test_invariants(self, seen: list[tuple[NodeID, Address, int]]):
        """Whatever answers and whatever is silent: caps hold, ids and addresses are unique."""
        table = RoutingTable(OWN)
        for node_id, address, misses in seen:
            inside = table.verified(node_id, address, 0.0)
            if node_id != OWN:
                self.assertEqual(inside, table.get(address) is not None)
            for _ in range(misses):
                table.missed(address)
        entries = list(table)
        self.assertEqual(len(table), len(entries))
        self.assertEqual(len(entries), len({entry.address for entry in entries}))
        self.assertEqual(len(entries), len({entry.node_id for entry in entries}))
        self.assertNotIn(OWN, [entry.node_id for entry in entries])
        self.assertTrue(all(entry.misses < limits.MISSES_DEAD for entry in entries))
        subnets = [subnet_key(entry.address) for entry in entries]
        for subnet in set(subnets) - {None}:
            self.assertLessEqual(subnets.count(subnet), limits.SUBNET_PER_TABLE)

    def test_bucket_sizes(self):
        """Buckets hold 64, 32, then 16 each."""
        for bucket, size in [(0, 64), (1, 32), (2, 16), (3, 16), (100, 16)]:
            table = filled(bucket)
            self.assertEqual(size, len(table))
            self.assertFalse(table.verified(node_in(bucket, 999), local(999), 0.0))
            self.assertTrue(table.verified(node_in(bucket + 1, 0), local(1000), 0.0))

    def test_nearest_id_has_a_bucket(self):
        """The id that differs in the last bit only has its place as well."""
        table = RoutingTable(OWN)
        self.assertTrue(table.verified(NodeID(bytes(19) + b"\1"), local(1), 0.0))
        self.assertFalse(table.verified(OWN, local(2), 0.0))

    def test_table_size(self):
        """A table holds 320 neighbours, however many buckets have room."""
        table = RoutingTable(OWN)
        for number in range(1000):
            table.verified(node_in(number % 60, number), local(number), 0.0)
        self.assertEqual(limits.NEIGHBOURS, len(table))

    def test_replacements(self):
        """When a neighbour dies, the newest of those that waited moves up; few may wait."""
        table = filled(5)
        count = limits.REPLACEMENTS + 3
        for number in range(count):
            self.assertFalse(table.verified(node_in(5, 100 + number), local(100 + number), 1.0))
        for victim in range(count):
            for _ in range(limits.MISSES_DEAD):
                table.missed(local(victim))
        waiting = {local(100 + number) for number in range(count)}
        moved = [entry.address for entry in table if entry.address in waiting]
        kept = [local(99 + count - age) for age in range(limits.REPLACEMENTS)]
        self.assertEqual(set(kept), set(moved))
        self.assertEqual(kept[0], moved[0], "the newest first")

    def test_waiting_neighbour_may_come_in_elsewhere(self):
        """A replacement whose address was taken meanwhile is passed over."""
        table = filled(5)
        table.verified(node_in(5, 100), local(100), 0.0)
        table.verified(node_in(5, 101), local(101), 0.0)
        self.assertTrue(table.verified(node_in(6, 0), local(101), 0.0))
        for _ in range(limits.MISSES_DEAD):
            table.missed(local(0))
        self.assertIsNotNone(table.get(local(100)))
        entry = table.get(local(101))
        assert entry is not None
        self.assertEqual(node_in(6, 0), entry.node_id)

    def test_suspect_and_healed(self):
        """One miss makes a neighbour suspect, an answer heals it, three misses in a row end it."""
        table = RoutingTable(OWN)
        table.verified(node_in(0, 1), local(1), 0.0)
        entry = table.get(local(1))
        assert entry is not None
        for _ in range(limits.MISSES_DEAD - 1):
            table.missed(local(1))
        self.assertTrue(entry.suspect)
        self.assertTrue(table.verified(node_in(0, 1), local(1), 9.0))
        self.assertEqual((False, 9.0), (entry.suspect, entry.seen_at))
        for _ in range(limits.MISSES_DEAD):
            table.missed(local(1))
        self.assertIsNone(table.get(local(1)))
        table.missed(local(1))

    def test_old_neighbours_stay(self):
        """Newcomers never push out a neighbour that answers (Kademlia, section 4.1)."""
        table = filled(0)
        before = {entry.node_id for entry in table}
        for number in range(500):
            table.verified(node_in(0, 1000 + number), local(1000 + number), 1.0)
        self.assertEqual(before, {entry.node_id for entry in table})

    def test_id_seen_elsewhere(self):
        """A node under a new address keeps its entry while the old one answers, then moves."""
        table = RoutingTable(OWN)
        node_id = node_in(0, 1)
        table.verified(node_id, local(1), 0.0)
        self.assertFalse(table.verified(node_id, local(2), 1.0))
        self.assertIsNotNone(table.get(local(1)))
        table.missed(local(1))
        self.assertTrue(table.verified(node_id, local(2), 2.0))
        self.assertEqual([local(2)], [entry.address for entry in table])

    def test_another_node_at_the_address(self):
        """An address belongs to who answered there last."""
        table = RoutingTable(OWN)
        table.verified(node_in(0, 1), local(1), 0.0)
        self.assertTrue(table.verified(node_in(3, 2), local(1), 1.0))
        self.assertEqual([node_in(3, 2)], [entry.node_id for entry in table])


class SubnetTests(TestCase):
    """One party with many addresses of one subnet."""

    def test_per_bucket_and_table(self):
        """Two of a global /24 per bucket, ten in all; the cap frees up with the neighbour."""
        for template in ("8.8.8.{}", "2600:0:0:{}::1"):
            table = RoutingTable(OWN)
            taken = 0
            for bucket in range(20):
                inside = [
                    table.verified(
                        node_in(bucket, number), Address(template.format(bucket * 9 + number), 1), 0
                    )
                    for number in range(1, 9)
                ]
                self.assertLessEqual(sum(inside), limits.SUBNET_PER_BUCKET)
                taken += sum(inside)
            self.assertEqual(limits.SUBNET_PER_TABLE, taken)
            for _ in range(limits.MISSES_DEAD):
                table.missed(Address(template.format(1), 1))
            self.assertEqual(limits.SUBNET_PER_TABLE, len(table), "a replacement moved up")
            other = Address("9.9.9.9", 1) if "." in template else Address("2601::1", 1)
            self.assertTrue(table.verified(node_in(50, 1), other, 0.0))

    def test_subnet_is_forgotten(self):
        """When all of a subnet are gone, it counts as new."""
        table = RoutingTable(OWN)
        for _ in range(3):
            for number in range(limits.SUBNET_PER_BUCKET):
                address = Address(f"8.8.8.{number + 1}", 1)
                self.assertTrue(table.verified(node_in(0, number), address, 0.0))
            for number in range(limits.SUBNET_PER_BUCKET):
                for _ in range(limits.MISSES_DEAD):
                    table.missed(Address(f"8.8.8.{number + 1}", 1))
            self.assertEqual(0, len(table))

    def test_local_networks_are_not_capped(self):
        """A /24 of a private network may fill a bucket."""
        self.assertEqual(limits.BUCKET_SIZES[0], len(filled(0)))


class NatTests(TestCase):
    """Neighbours behind NATs: guests, while nobody else needs the place."""

    def test_callable_while_its_binding_is_open(self):
        """An open node can always be called, one behind a NAT for NAT_BINDING_S after its word."""
        table = RoutingTable(OWN)
        for number, nat in enumerate((False, True)):
            table.verified(node_in(0, number), local(number), 100.0, nat)
        for later, callable_then in ((0.0, True), (limits.NAT_BINDING_S, False)):
            self.assertEqual([True, callable_then], [e.callable_at(100.0 + later) for e in table])

    def test_what_it_says_last_counts(self):
        """A node may turn; who says nothing of NATs stays what it is, also where it moves."""
        table = RoutingTable(OWN)
        for nat, now_nat in ((None, False), (True, True), (None, True), (False, False)):
            self.assertTrue(table.verified(node_in(0, 1), local(1), 0.0, nat))
            (entry,) = table
            self.assertEqual(now_nat, entry.nat)
        table.verified(node_in(0, 1), local(1), 0.0, True)
        self.assertFalse(table.verified(node_in(0, 1), local(2), limits.NAT_BINDING_S - 1))
        self.assertTrue(table.verified(node_in(0, 1), local(2), limits.NAT_BINDING_S))
        (entry,) = table
        self.assertEqual((local(2), True), (entry.address, entry.nat))

    def test_open_newcomer_replaces_one_behind_a_nat(self):
        """In a full bucket the longest unheard of them goes; when none is left, nobody does."""
        table = filled(3)
        size = len(table)
        for number, seen in ((0, 20.0), (1, 10.0)):
            table.verified(node_in(3, number), local(number), seen, True)
        gone = []
        for newcomer in range(100, 103):
            before = {entry.address for entry in table}
            entered = table.verified(node_in(3, newcomer), local(newcomer), 30.0)
            gone += [entered, *(before - {entry.address for entry in table})]
        self.assertEqual([True, local(1), True, local(0), False], gone)
        self.assertEqual(size, len(table))

    def test_one_behind_a_nat_pushes_nobody_out(self):
        """It finds no place in a full bucket, and none among the replacements."""
        table = filled(3)
        self.assertFalse(table.verified(node_in(3, 100), local(100), 1.0, True))
        for _ in range(limits.MISSES_DEAD):
            table.missed(local(0))
        self.assertIsNone(table.get(local(100)))
        self.assertTrue(table.verified(node_in(3, 100), local(100), 1.0, True))

    def test_bound(self):
        """NAT_PER_TABLE of them at most, whether they come so or turn so."""
        table = RoutingTable(OWN)
        for number in range(limits.NAT_PER_TABLE):
            depth, number_in = divmod(number, limits.BUCKET_SIZES[-1])
            place = node_in(depth, number_in)
            self.assertTrue(table.verified(place, local(number), 0.0, True))
        self.assertFalse(table.verified(node_in(9, 0), local(9999), 0.0, True))
        self.assertTrue(table.verified(node_in(9, 0), local(9999), 0.0))
        self.assertFalse(table.verified(node_in(9, 0), local(9999), 0.0, True))
        self.assertIsNone(table.get(local(9999)))
        self.assertEqual(limits.NAT_PER_TABLE, len(table))

    def test_subnet_caps_make_way_too(self):
        """An open node is not kept out because its subnet is full of nodes behind one NAT."""
        table = RoutingTable(OWN)
        for number in range(limits.SUBNET_PER_BUCKET):
            address = Address("50.1.0.1", 40001 + number)
            self.assertTrue(table.verified(node_in(0, number), address, 0.0, True))
        other = Address("50.2.0.1", 40001)
        self.assertTrue(table.verified(node_in(0, 8), other, -1.0, True))
        self.assertFalse(table.verified(node_in(0, 9), Address("50.1.0.9", 7667), 0.0, True))
        self.assertTrue(table.verified(node_in(0, 9), Address("50.1.0.9", 7667), 0.0))
        self.assertIsNotNone(table.get(other), "its place would not have helped")
        self.assertEqual(limits.SUBNET_PER_BUCKET + 1, len(table))


class UpkeepTests(TestCase):
    """What is due, and how large the network seems."""

    def test_stale_buckets(self):
        """A full bucket is due when nothing changed for a while; all to the deepest one in use."""
        table = filled(2)
        for depth in (0, 1):
            for _ in range(9):
                table.refreshed(depth, 50.0 * depth)
        self.assertEqual([], table.stale_buckets(limits.BUCKET_REFRESH_S - 1))
        self.assertEqual([0, 2], table.stale_buckets(limits.BUCKET_REFRESH_S))
        self.assertEqual([0, 1, 2], table.stale_buckets(50.0 + limits.BUCKET_REFRESH_S))
        table.refreshed(2, limits.BUCKET_REFRESH_S)
        self.assertEqual([0], table.stale_buckets(limits.BUCKET_REFRESH_S))
        self.assertEqual([], RoutingTable(OWN).stale_buckets(1e9))

    def test_growing_buckets(self):
        """With free places it is due at once, soon again while that fills some, else ever later."""
        table = RoutingTable(OWN)
        now = 100.0
        for number in range(3):
            table.verified(node_in(0, number), local(number), now)
            self.assertEqual([0], table.stale_buckets(now))
            table.refreshed(0, now)
            now += limits.BUCKET_GROW_S
        pauses = []
        for _ in range(6):
            table.refreshed(0, now)
            self.assertEqual([], table.stale_buckets(now))
            pause = next(p for p in range(2000) if table.stale_buckets(now + p))
            pauses.append(pause)
            now += pause
        self.assertEqual([40, 160, 640, 900, 900, 900], pauses)

    def test_whom_it_wants(self):
        """An unknown node whose bucket has a free place is wanted."""
        table = filled(2)
        self.assertFalse(table.wants(NodeEntry(node_in(2, 999), local(999))))
        self.assertTrue(table.wants(NodeEntry(node_in(3, 999), local(999))))
        self.assertFalse(table.wants(NodeEntry(node_in(3, 999), local(1))), "known by address")
        table.verified(node_in(3, 1), local(500), 0.0)
        self.assertFalse(table.wants(NodeEntry(node_in(3, 1), local(999))), "known by id")

    def test_size_estimate(self):
        """The median guess of many tables is within a factor of 1.5 of the network's size."""
        for count in (30, 300, 3000):
            guesses = sorted(network_of(count, seed).size_estimate() for seed in range(21))
            self.assertLess(count / 1.5, guesses[10])
            self.assertLess(guesses[10], count * 1.5)

    def test_size_of_nothing(self):
        """Alone in the world, the network has one node; it never has fewer than we know."""
        self.assertEqual(1.0, RoutingTable(OWN).size_estimate())
        for count in (2, 5, 50):
            table = network_of(count, 1)
            self.assertGreaterEqual(table.size_estimate(), len(table))

    def test_reach(self):
        """In a network of 16 times the storers, a sixteenth of the space holds them all."""
        self.assertAlmostEqual(160 + math.log2(limits.STORERS), RoutingTable(OWN).log2_reach())
        reaches = sorted(network_of(limits.STORERS * 16, seed).log2_reach() for seed in range(21))
        self.assertLess(abs(156 - reaches[10]), 0.6)


class NeighbourhoodTests(TestCase):
    """Both families as one."""

    def test_families_apart(self):
        """Each family has its table; the whole is both."""
        both = Neighbourhood(OWN)
        ipv4, ipv6 = local(1), Address("fd00::1", 1)
        for address in (ipv4, ipv6):
            self.assertTrue(both.verified(node_in(0, 1), address, 0.0))
        self.assertEqual((2, 1, 1), (len(both), len(both.ipv4), len(both.ipv6)))
        self.assertEqual([ipv4, ipv6], [entry.address for entry in both])
        self.assertIs(both.ipv6, both.table(ipv6))
        both.missed(ipv6)
        entry4, entry6 = both.get(ipv4), both.get(ipv6)
        assert entry4 is not None
        assert entry6 is not None
        self.assertEqual((False, True), (entry4.suspect, entry6.suspect))

    @given(strategies.node_ids(), strategies.node_ids())
    def test_buckets_are_shared_prefixes(self, own: NodeID, other: NodeID):
        """A node's bucket is the number of leading bits it shares with us."""
        table = RoutingTable(own)
        table.verified(other, local(1), 0.0)
        shared = min(shared_prefix_bits(own, other), ID_BYTES * 8 - 1)
        deepest = max(table.stale_buckets(1e9), default=None)
        self.assertEqual(None if own == other else shared, deepest)
