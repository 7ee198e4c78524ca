"""Tests of carrying queries: whom they go to, what they may cost, when they are handed back."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID, Topic, distance
from p2pdist.overlay.lookup import Candidate
from p2pdist.overlay.messages import (
    Flag,
    GetPeers,
)
from p2pdist.overlay.relay import Query, Relay, stamp
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

TOPIC = Topic(bytes(20))
INITIATOR = Address("8.1.1.1", 1)
UPSTREAM = Address("8.2.2.2", 1)
LARGE = limits.SMALL_TABLE + 1
REACH = 0.0


def node_id(away: int) -> NodeID:
    """Return the id at distance ``away`` from the topic."""
    return NodeID(away.to_bytes(20, "big"))


OWN = node_id(1000)


def candidate(away: int, host: str | None = None, srtt_s: float | None = None) -> Candidate:
    """Return the neighbour at distance ``away`` from the topic."""
    host = host or f"9.{away >> 8}.{away & 255}.1"
    name = node_id(away)
    return Candidate(name, Address(host, 1), srtt_s, int.from_bytes(name, "big"))


def message(**more: Any) -> GetPeers:
    """Return a query on its way: two hops behind it."""
    facts: dict[str, Any] = {
        "node_id": OWN,
        "rid": b"r" * 8,
        "attempt": 1,
        "qid": b"q" * 12,
        "topic": TOPIC,
    }
    facts |= {"src": INITIATOR, "via": Address("8.3.3.3", 1), "hops": 2, **more}
    return GetPeers(**facts)


def taken(**more: Any) -> tuple[Relay, Query]:
    """Return a relay and the query it took from upstream."""
    relay = Relay(OWN)
    return relay, relay.take(message(**more), UPSTREAM, 0.0)


class StampTests(TestCase):
    """Addresses are written by whoever saw them in a UDP header (decision 14)."""

    @given(strategies.overlay_requests(), strategies.addresses())
    def test_who_writes_what(self, request: object, source: Address):
        """The first hop writes src, the second via; all others leave both alone."""
        if not isinstance(request, GetPeers):
            return
        stamped = stamp(request, source)
        if request.hops == 0:
            self.assertEqual((source, None), (stamped.src, stamped.via))
            kept = Flag.LAST | Flag.NAT | Flag.PAIR
            self.assertEqual(request.flags & kept, stamped.flags, "nobody asks for VIA")
        elif request.hops == 1:
            self.assertEqual((request.src, source), (stamped.src, stamped.via))
        else:
            self.assertEqual(request, stamped)
        self.assertEqual(request.units, stamped.units)
        self.assertEqual(request.hops, stamped.hops)


class MemoryTests(TestCase):
    """A query is carried once."""

    def test_remembered_for_a_while(self):
        """A query is known by its qid for 15 seconds: that ends loops and repeats."""
        relay, query = taken()
        self.assertIs(query, relay.get(b"q" * 12, limits.QUERY_CACHE_S - 0.1))
        self.assertIsNone(relay.get(b"q" * 12, limits.QUERY_CACHE_S))
        self.assertIsNone(relay.get(b"p" * 12, 0.0))

    def test_facts(self):
        """What it takes to refuse a query later is kept with it."""
        _, query = taken(units=2)
        self.assertEqual((UPSTREAM, b"r" * 8, 1), (query.upstream, query.rid, query.attempt))
        self.assertEqual((INITIATOR, False, 2), (query.src, query.first_hop, query.units))
        self.assertTrue(taken(hops=0)[1].first_hop)

    def test_bound(self):
        """So many queries are remembered, the oldest are forgotten first."""
        relay = Relay(OWN)
        for number in range(limits.QUERY_CACHE + 1):
            relay.take(message(qid=number.to_bytes(12, "big")), UPSTREAM, 0.0)
        self.assertEqual(limits.QUERY_CACHE, len(relay))
        self.assertIsNone(relay.get(bytes(12), 0.0))
        self.assertIsNotNone(relay.get((1).to_bytes(12, "big"), 0.0))

    def test_offers_go_through_via_when_flagged(self):
        """Only a query with the VIA flag is answered through the first hop."""
        self.assertIsNone(taken()[1].answer_through)
        self.assertEqual(Address("8.3.3.3", 1), taken(flags=Flag.VIA)[1].answer_through)


class NextHopTests(TestCase):
    """Whom a query goes to next."""

    def hop(
        self, candidates: list[Candidate], table: int = LARGE, **more: Any
    ) -> tuple[Address, GetPeers] | None:
        """Return the next hop of a fresh query."""
        relay, query = taken(**more)
        return relay.next_hop(query, candidates, REACH, table)

    def test_strictly_nearer(self):
        """In a large network a query only moves nearer to its topic, so it cannot loop."""
        self.assertIsNone(self.hop([candidate(1000), candidate(1001), candidate(5000)]))
        chosen = self.hop([candidate(5000), candidate(999)])
        assert chosen is not None
        self.assertEqual(candidate(999).address, chosen[0])

    def test_small_tables(self):
        """Where few are known the nearest other one is asked (the chain A, B, C; decision 11)."""
        others = [candidate(5000), candidate(1001)]
        chosen = self.hop(others, table=limits.SMALL_TABLE)
        assert chosen is not None
        self.assertEqual(candidate(1001).address, chosen[0])
        self.assertIsNone(self.hop(others, table=limits.SMALL_TABLE + 1))

    def test_latency_counts(self):
        """Among nearer ones a quick node a little farther away goes before a slow one."""
        chosen = self.hop([candidate(400, srtt_s=1.0), candidate(500, srtt_s=0.01)])
        assert chosen is not None
        self.assertEqual(candidate(500).address, chosen[0])

    def test_what_is_passed_on(self):
        """The copy is one hop further; origin, topic and qid are the same."""
        chosen = self.hop([candidate(1)], units=3)
        assert chosen is not None
        expected = attrs.evolve(message(), hops=3, units=2)
        self.assertEqual(expected, chosen[1])

    def test_never_back(self):
        """A query goes neither to its initiator, nor where it came from, nor to its first hop."""
        hosts = (INITIATOR, UPSTREAM, Address("8.3.3.3", 1))
        back = [Candidate(node_id(1), address, None, 1) for address in hosts]
        self.assertIsNone(self.hop(back, table=1))

    def test_hops_are_bounded(self):
        """After twelve hops it ends."""
        self.assertIsNotNone(self.hop([candidate(1)], hops=limits.HOPS - 1))
        self.assertIsNone(self.hop([candidate(1)], hops=limits.HOPS))

    def test_last_hop_and_no_units(self):
        """A query that asks for our own table only, or may cost nothing more, ends here."""
        self.assertIsNone(self.hop([candidate(1)], flags=Flag.LAST))
        self.assertIsNone(self.hop([candidate(1)], units=0))

    def test_candidates_are_bounded(self):
        """Four next hops are tried, each once, the nearest first where all else is equal."""
        relay, query = taken()
        tried = []
        candidates = [candidate(away) for away in range(1, 20)]
        query.units = 1
        while chosen := relay.next_hop(query, candidates, REACH, LARGE):
            tried.append(chosen[0])
            relay.handed_back(query, chosen[0], 5)
        self.assertEqual([c.address for c in candidates[: limits.WALK_CANDIDATES]], tried)
        self.assertEqual(1, query.units)


class PairTests(TestCase):
    """Two storers at the end of a walk that asks for them."""

    REACH = 8.0
    """Storers live up to 256 away."""

    def hops(self, away: list[int], **more: Any) -> list[tuple[Address, int]]:
        """Return the next hops, and their units, a fresh query has at once."""
        relay, query = taken(flags=Flag.PAIR, **more)
        candidates = [candidate(each) for each in away]
        chosen = [relay.next_hop(query, candidates, self.REACH, LARGE)]
        if query.pair:
            chosen.append(relay.next_hop(query, candidates, self.REACH, LARGE, second=True))
        return [(each[0], each[1].units) for each in chosen if each is not None]

    def test_two_storers(self):
        """The query goes to the two nearest within reach, which share its units."""
        expected = [(candidate(100).address, 2), (candidate(200).address, 1)]
        self.assertEqual(expected, self.hops([200, 100, 250], units=3))

    def test_one_pair(self):
        """The members of a pair are not asked for another; a node before the storers is."""
        for away, flags in ((100, Flag(0)), (500, Flag.PAIR)):
            relay, query = taken(flags=Flag.PAIR)
            chosen = relay.next_hop(query, [candidate(away)], self.REACH, LARGE)
            assert chosen is not None
            self.assertEqual(flags, chosen[1].flags)

    def test_storers_only(self):
        """Before the storers, or where there is but one, it goes to one."""
        self.assertEqual(1, len(self.hops([500, 600])))
        self.assertEqual(1, len(self.hops([100, 300])))

    def test_units_are_needed(self):
        """A query that may cause one offer more has no second copy."""
        self.assertEqual(1, len(self.hops([100, 200], units=1)))

    def test_on_demand(self):
        """One that does not ask for a pair goes to one."""
        relay, query = taken(units=3)
        relay.next_hop(query, [candidate(100), candidate(200)], self.REACH, LARGE)
        self.assertFalse(query.pair)


class ScopeTests(TestCase):
    """Who can be answered at all (decision 15)."""

    def hop(self, host: str, **more: Any) -> tuple[Address, GetPeers] | None:
        """Return the next hop when the only neighbour is at ``host``."""
        relay, query = taken(**more)
        return relay.next_hop(query, [candidate(1, host)], REACH, LARGE)

    def test_first_hop_sets_via(self):
        """The first hop of a narrower initiator takes the answers on itself."""
        for src, host, through in [
            ("10.0.0.1", "9.9.9.9", True),
            ("127.0.0.1", "10.0.0.2", True),
            ("10.0.0.1", "10.0.0.2", False),
            ("8.8.8.8", "9.9.9.9", False),
            ("8.8.8.8", "10.0.0.2", False),
        ]:
            chosen = self.hop(host, hops=0, src=Address(src, 1), via=None)
            assert chosen is not None
            self.assertEqual(through, bool(chosen[1].flags & Flag.VIA), (src, host))

    def test_initiator_behind_a_nat(self):
        """The first hop turns its wish into VIA; a later hop's flag means nothing."""
        for hops, flags in ((0, Flag.VIA), (2, Flag(0))):
            chosen = self.hop("9.9.9.9", hops=hops, flags=Flag.NAT)
            assert chosen is not None
            self.assertEqual(flags, chosen[1].flags)

    def test_later_hops(self):
        """Later a query goes only where src, or via if it is to be used, can be reached from."""
        private, public = Address("10.0.0.1", 1), Address("8.3.3.3", 1)
        cases: list[tuple[dict[str, Any], str, bool]] = [
            ({"src": private, "via": public}, "9.9.9.9", False),
            ({"src": private, "via": public, "flags": Flag.VIA}, "9.9.9.9", True),
            ({"src": private, "via": private, "flags": Flag.VIA}, "9.9.9.9", False),
            ({"src": private, "via": None, "flags": Flag.VIA}, "9.9.9.9", False),
            ({"src": private, "via": public}, "10.0.0.2", True),
            ({"src": public, "via": None}, "10.0.0.2", True),
            ({"src": public, "via": private, "flags": Flag.VIA}, "9.9.9.9", False),
        ]
        for facts, host, goes in cases:
            self.assertEqual(goes, self.hop(host, **facts) is not None, (facts, host))


class UnitTests(TestCase):
    """A query never causes more offers than its units (decisions 7 and 9)."""

    def test_split(self):
        """The larger half goes with the copy, the rest stays for a failover."""
        for units, given_on in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)]:
            relay, query = taken(units=units)
            chosen = relay.next_hop(query, [candidate(1)], REACH, LARGE)
            assert chosen is not None
            self.assertEqual((given_on, units - given_on), (chosen[1].units, query.units))

    def test_handed_back(self):
        """A next hop hands back what it did not spend, once, never more than it was given."""
        for claimed, left in [(0, 2), (1, 3), (3, 5), (99, 5)]:
            relay, query = taken(units=5)
            chosen = relay.next_hop(query, [candidate(1)], REACH, LARGE)
            assert chosen is not None
            self.assertTrue(relay.handed_back(query, chosen[0], claimed))
            self.assertEqual(left, query.units)
            self.assertFalse(relay.handed_back(query, chosen[0], claimed), "said before")
            self.assertFalse(relay.handed_back(query, UPSTREAM, claimed), "was given nothing")
            self.assertEqual(left, query.units)

    @given(
        st.integers(0, limits.GET_PEERS_WIDE_UNITS),
        st.lists(
            st.tuples(
                st.sampled_from(["refuse", "silent", "take"]),
                st.integers(0, 99),
                st.integers(1, 3),
            )
        ),
    )
    def test_no_units_out_of_nothing(self, units: int, fates: list[tuple[str, int, int]]):
        """Whatever next hops claim, what is out there and what is left is at most what came."""
        relay, query = taken(units=units)
        candidates = [candidate(away) for away in range(1, 30)]
        out = 0
        for fate, claimed, repeats in fates:
            chosen = relay.next_hop(query, candidates, REACH, 1)
            if chosen is None:
                break
            self.assertGreater(chosen[1].units, 0)
            out += chosen[1].units
            self.assertLessEqual(out + query.units, units)
            if fate == "refuse":
                out -= min(claimed, chosen[1].units)
                for _ in range(repeats):
                    relay.handed_back(query, chosen[0], claimed)
            self.assertLessEqual(out + query.units, units)
            if fate == "take":
                break

    @given(st.integers(0, 2**32), st.integers(3, 40), st.booleans())
    def test_every_walk_ends(self, seed: int, count: int, small: bool):
        """Passed from node to node, a query ends within its hops and never costs more units."""
        chosen_ids = [((seed + 7919 * n) * 2654435761) % 2**64 + 1 for n in range(count)]
        nodes = {Address(f"9.9.{n}.1", 1): node_id(away) for n, away in enumerate(chosen_ids)}
        relays = {address: Relay(own) for address, own in nodes.items()}
        everybody = [
            Candidate(own, address, None, int.from_bytes(own, "big"))
            for address, own in nodes.items()
        ]
        start = everybody[0].address
        waiting = [(INITIATOR, start, message(hops=0, units=limits.GET_PEERS_WIDE_UNITS))]
        carried = 0
        while waiting:
            source, here, query_in = waiting.pop()
            relay = relays[here]
            if relay.get(query_in.qid, 0.0) is not None:
                continue
            carried += 1
            self.assertLessEqual(carried, len(nodes))
            query = relay.take(stamp(query_in, source), source, 0.0)
            others = [c for c in everybody if c.address != here]
            passed = relay.next_hop(query, others, REACH, 1 if small else LARGE)
            if passed is None:
                continue
            address, copy = passed
            self.assertLessEqual(copy.hops, limits.HOPS)
            self.assertLessEqual(copy.units + query.units, query_in.units)
            if not small:
                nearer = distance(nodes[address], TOPIC) < distance(nodes[here], TOPIC)
                self.assertTrue(nearer)
            waiting.append((here, address, copy))
