"""Tests of the initiator's lookup: its timeline, its offers, its end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address, Scope, limit_key, scope, subnet_key
from p2pdist.ids import NodeID, Topic
from p2pdist.overlay.lookup import (
    QUERY_BYTES,
    Action,
    AskEntries,
    Candidate,
    Iterate,
    Lookup,
    Pull,
    State,
    TryPeer,
    Walk,
    walk_cost,
)
from p2pdist.overlay.messages import (
    QID_BYTES,
    Flag,
    Offer,
)
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

TOPIC = Topic(bytes(20))
QUERY = b"q" * QUERY_BYTES
FINDER = Address("9.9.9.9", 7667)
LARGE = limits.SMALL_TABLE + 1


def candidate(away: int, host: str | None = None, srtt_s: float | None = 0.05) -> Candidate:
    """Return the neighbour at distance ``away`` from the topic."""
    host = host or f"10.{away >> 16}.{away >> 8 & 255}.{away & 255}"
    return Candidate(NodeID(away.to_bytes(20, "big")), Address(host, 7667), srtt_s, away)


def offer(*peers: Address, flags: int = 0, untold: int = 1) -> Offer:
    """Return an offer of some peers by a finder that knows ``untold`` more."""
    return Offer(
        qid=QUERY + b"\0",
        node_id=NodeID(b"f" * 20),
        cookie=b"c" * limits.COOKIE_BYTES,
        swarm=len(peers) + (flags & Flag.MEMBER != 0) + untold,
        flags=flags,
        peers4=tuple(peer for peer in peers if ":" not in peer.host),
        peers6=tuple(peer for peer in peers if ":" in peer.host),
    )


def tried(actions: Sequence[Action]) -> list[Address]:
    """Return the addresses that ``actions`` try."""
    return [action.address for action in actions if isinstance(action, TryPeer)]


class OrderTests(TestCase):
    """What makes a neighbour a good first hop."""

    def order(self, *candidates: Candidate, reach: float = 0.0) -> list[Candidate]:
        """Return them as a walk tries them."""
        return sorted(candidates, key=walk_cost(candidates, TOPIC, reach))

    def test_nearer_first(self):
        """Among equally quick ones the nearer goes first."""
        near, far = candidate(1), candidate(1 << 100)
        self.assertEqual([near, far], self.order(far, near))

    def test_quicker_first(self):
        """Among those equally near the quicker goes first."""
        slow, quick = candidate(5, srtt_s=0.3), candidate(5, "10.9.9.9", srtt_s=0.01)
        self.assertEqual([quick, slow], self.order(slow, quick))

    def test_within_reach_only_time_counts(self):
        """Once within the distance where storers live, being nearer gains nothing."""
        near, quick = candidate(1, srtt_s=0.05), candidate(1 << 50, srtt_s=0.04)
        self.assertEqual([quick, near], self.order(near, quick, reach=60.0))
        self.assertEqual([near, quick], self.order(near, quick, reach=0.0))

    def test_what_a_hop_is_worth(self):
        """Who surely stores the topic may be slower by the hop that who does not has to add."""
        sure, out = limits.WALK_STORER_BITS
        storer, other = candidate(int(2 ** (60 + sure))), candidate(int(2 ** (60 + out)))
        typical = 0.1
        filler = [candidate(1 << 90, f"9.9.9.{n}", typical) for n in range(9)]
        hop_s = typical * (limits.WALK_HOP_COST + out * limits.WALK_BIT_COST)
        for slower_s, first in ((0.9 * hop_s, storer), (1.1 * hop_s, other)):
            late = storer._replace(srtt_s=0.01 + 2 * slower_s)
            soon = other._replace(srtt_s=0.01)
            order = self.order(late, soon, *filler, reach=60.0)
            self.assertEqual(first.address, order[0].address)

    def test_what_a_bit_is_worth(self):
        """Of those far from all storers, the farther has to be quicker by so much for each bit."""
        near, far = candidate(1 << 80), candidate(1 << 90)
        typical = 0.1
        filler = [candidate(1 << 150, f"9.9.9.{n}", typical) for n in range(9)]
        bits_s = 10 * typical * limits.WALK_BIT_COST
        for slower_s, first in ((0.9 * bits_s, near), (1.1 * bits_s, far)):
            late, soon = near._replace(srtt_s=0.01 + 2 * slower_s), far._replace(srtt_s=0.01)
            order = self.order(late, soon, *filler, reach=60.0)
            self.assertEqual(first.address, order[0].address)

    def test_never_measured(self):
        """Who was never measured counts as typical; so does a node at the topic itself."""
        slow, unknown, quick = (
            candidate(3, srtt_s=0.9),
            candidate(2, srtt_s=None),
            candidate(1, srtt_s=0.01),
        )
        self.assertEqual([quick, unknown, slow], self.order(slow, unknown, quick))
        self.assertEqual([candidate(0, srtt_s=None)], self.order(candidate(0, srtt_s=None)))

    @given(st.lists(st.integers(0, 2**64), unique=True, max_size=10), st.randoms())
    def test_order_of_arrival_is_nothing(self, distances: list[int], chance: random.Random):
        """The order depends on the candidates, not on how they come."""
        candidates = [candidate(away) for away in distances]
        shuffled = list(candidates)
        chance.shuffle(shuffled)
        self.assertEqual(self.order(*candidates), self.order(*shuffled))


class LookupCase(TestCase):
    """One lookup, advanced from timer to timer."""

    table = LARGE

    def setUp(self):
        """Start one at time 100 with thirty neighbours at 50 ms."""
        self.start = 100.0
        self.now = self.start
        self.candidates = [candidate(1000 + number) for number in range(30)]
        self.lookup = Lookup(TOPIC, QUERY, self.start)

    def advance(self, now: float | None = None) -> list[Action]:
        """Let the lookup do what is due."""
        if now is not None:
            self.now = self.start + now
        return self.lookup.advance(self.now, self.candidates, 0.0, self.table)

    def walks(self, actions: Sequence[Action]) -> list[Walk]:
        """Return the walks among ``actions``."""
        return [action for action in actions if isinstance(action, Walk)]

    def run_out(self) -> list[tuple[float, list[Action]]]:
        """Advance from timer to timer until it is over; return what was done when."""
        story: list[tuple[float, list[Action]]] = []
        while True:
            story.append((round(self.now - self.start, 9), self.advance()))
            due = self.lookup.next_timer()
            if due is None:
                return story
            self.assertGreater(due, self.now)
            self.now = due


class TimelineTests(LookupCase):
    """What is done when."""

    def test_silent_network(self):
        """Two walks, two hedges by the round-trip time, more at 0.5 and 1.5 s, all, the end."""
        first, second = (round(0.05 * rtts, 9) for rtts in limits.HEDGE_RTTS)
        story = [
            (time, len(self.walks(actions)), any(isinstance(a, Iterate) for a in actions))
            for time, actions in self.run_out()
        ]
        self.assertEqual(
            [
                (0.0, limits.WALKS, False),
                (first, 1, False),
                (second, 1, False),
                (limits.BROADCAST_AFTER_S, 0, False),
                (limits.ITERATE_AFTER_S, limits.WALKS, True),
                (limits.ATTEMPT_3_S, limits.WALKS + 22, False),
                (limits.AROUND_S[1], 0, False),
                (limits.LOOKUP_S, 0, False),
            ],
            story,
        )
        self.assertIs(State.FAILED, self.lookup.state)
        self.assertEqual([], self.advance())
        self.assertEqual(30, self.lookup.asked)

    def test_pair(self):
        """The first PAIR_WALKS ask for two storers at their end: a second copy there is cheap."""
        walks = [walk for _, actions in self.run_out() for walk in self.walks(actions)]
        expected = [number < limits.PAIR_WALKS for number in range(len(walks))]
        self.assertEqual(expected, [walk.pair for walk in walks])

    def test_hedges_stay_in_their_range(self):
        """However quick or slow the neighbours are, hedges are neither hasty nor late."""
        for srtt, first, second in [
            (0.0001, limits.HEDGE_1_S[0], limits.HEDGE_2_S[0]),
            (9.0, limits.HEDGE_1_S[1], limits.HEDGE_2_S[1]),
            (None, limits.HEDGE_1_S[1], limits.HEDGE_2_S[1]),
        ]:
            self.setUp()
            self.candidates = [candidate(1000 + n, srtt_s=srtt) for n in range(9)]
            self.table = LARGE
            self.advance()
            planned = [time - self.start for time, step in self.lookup._steps if step == "hedge"]
            self.assertEqual([first, second], [round(time, 9) for time in planned])

    def test_walks_are_numbered(self):
        """Each walk has a qid of its own: the query, and a number in the last byte."""
        walks = [walk for _, actions in self.run_out() for walk in self.walks(actions)]
        self.assertEqual([QUERY + bytes([n]) for n in range(30)], [walk.qid for walk in walks])
        self.assertEqual({QID_BYTES}, {len(walk.qid) for walk in walks})
        self.assertEqual([False] * 4 + [True] * 26, [walk.wide for walk in walks])
        self.assertEqual([False] * 8 + [True] * 22, [walk.last_hop for walk in walks])

    def test_nobody_twice(self):
        """No neighbour is the first hop twice."""
        walks = [walk for _, actions in self.run_out() for walk in self.walks(actions)]
        self.assertEqual(len(walks), len({walk.address for walk in walks}))
        self.assertTrue(all(self.lookup.walked(walk.address) for walk in walks))
        self.assertFalse(self.lookup.walked(FINDER))

    def test_through_different_subnets(self):
        """The first two walks go through different subnets where there are some."""
        self.candidates = [
            candidate(1, "8.8.8.1"),
            candidate(2, "8.8.8.2"),
            candidate(3, "9.9.9.9"),
        ]
        first = self.walks(self.advance())
        self.assertEqual(["8.8.8.1", "9.9.9.9"], [walk.address.host for walk in first])
        self.setUp()
        self.candidates = [candidate(1, "8.8.8.1"), candidate(2, "8.8.8.2")]
        self.assertEqual(2, len(self.walks(self.advance())), "one subnet is better than none")

    def test_waits_for_a_neighbour(self):
        """Without neighbours it waits; the first one sets it going, its timeline counted then."""
        neighbours, self.candidates = self.candidates, []
        self.assertEqual([], self.advance(0.0))
        self.assertEqual([], self.advance(3.0))
        self.assertEqual(self.start + limits.LOOKUP_S, self.lookup.next_timer())
        self.candidates = neighbours
        self.assertEqual(limits.WALKS, len(self.walks(self.advance(4.0))))
        self.assertAlmostEqual(
            self.start + 4 + 0.05 * limits.HEDGE_RTTS[0], self.lookup.next_timer() or 0
        )
        self.advance(limits.LOOKUP_S)
        self.assertIs(State.FAILED, self.lookup.state)

    def test_found(self):
        """When a peer joined, it is over; nothing later changes that."""
        self.advance(0.0)
        self.lookup.joined()
        self.assertIs(State.FOUND, self.lookup.state)
        self.assertIsNone(self.lookup.next_timer())
        self.assertEqual([], self.advance(5.0))
        self.advance(50.0)
        self.assertIs(State.FOUND, self.lookup.state)

    def test_joined_after_the_end(self):
        """A peer that joins after the lookup failed does not revive it."""
        self.run_out()
        self.lookup.joined()
        self.assertIs(State.FAILED, self.lookup.state)


class BroadcastTests(LookupCase):
    """Asking everybody where that is cheap."""

    table = limits.SMALL_TABLE

    def test_small_table(self):
        """After a quarter of a second everybody not yet asked is asked for its own table."""
        self.advance(0.0)
        self.advance(0.2)
        walks = self.walks(self.advance(limits.BROADCAST_AFTER_S))
        self.assertEqual(len(self.candidates) - limits.WALKS - 2, len(walks))
        self.assertEqual({(True, True)}, {(walk.last_hop, walk.wide) for walk in walks})

    def test_bounded(self):
        """Even with more candidates than the table should hold, 64 are asked."""
        self.candidates = [candidate(1000 + number) for number in range(200)]
        self.advance(0.0)
        self.advance(0.2)
        walks = self.walks(self.advance(limits.BROADCAST_AFTER_S))
        self.assertEqual(limits.SMALL_TABLE, len(walks))

    def test_not_after_an_offer(self):
        """Once somebody offered, nobody else is bothered."""
        self.advance(0.0)
        self.advance(0.2)
        self.lookup.offered(offer(Address("10.0.0.1", 1)), FINDER)
        self.assertEqual([], self.advance(limits.BROADCAST_AFTER_S))


class RefusalTests(LookupCase):
    """First hops that say no."""

    def test_on_at_once(self):
        """A first hop that said no, or nothing, is replaced without waiting for a timer."""
        walks = self.walks(self.advance(0.0))
        for walk in walks:
            self.lookup.refused(walk.address)
            again = self.walks(self.advance(0.01))
            self.assertEqual([False], [walk.wide for walk in again])

    def test_two_where_much_is_lost(self):
        """From the LOSSES_ROUGH-th lost first hop on, two walks replace each."""
        walks = self.walks(self.advance(0.0))
        replaced = []
        for number in range(limits.LOSSES_ROUGH + 1):
            self.lookup.refused(walks.pop(0).address)
            again = self.walks(self.advance(0.001 * (number + 1)))
            replaced.append(len(again))
            walks += again
        self.assertEqual([1] * (limits.LOSSES_ROUGH - 1) + [2, 2], replaced)

    def test_hedges_wait_longer_each(self):
        """The second hedge comes after more round trips than the first."""
        first, second = limits.HEDGE_RTTS
        self.assertLess(first, second)

    def test_early_failure(self):
        """When everybody said no and the iteration came to its end, there is no point waiting."""
        self.candidates = self.candidates[:2]
        for walk in self.walks(self.advance(0.0)):
            self.lookup.refused(walk.address)
        self.assertEqual([], self.advance(0.01))
        self.assertIs(State.WALKING, self.lookup.state)
        self.assertEqual(self.start + limits.ITERATE_AFTER_S, self.lookup.next_timer())
        self.assertEqual([Iterate(), AskEntries()], self.advance(limits.ITERATE_AFTER_S))
        self.assertIs(State.WALKING, self.lookup.state)
        self.lookup.iterated()
        self.advance(0.6)
        self.assertIs(State.FAILED, self.lookup.state)
        self.assertIsNone(self.lookup.next_timer())

    def test_visited_nodes_are_waited_for(self):
        """A node met on the iteration may still offer after the iteration is done."""
        self.candidates = self.candidates[:2]
        for walk in self.walks(self.advance(0.0)):
            self.lookup.refused(walk.address)
        self.advance(limits.ITERATE_AFTER_S)
        self.lookup.visited(FINDER)
        self.lookup.iterated()
        self.advance(0.6)
        self.assertIs(State.WALKING, self.lookup.state)
        self.assertTrue(self.lookup.offered(offer(Address("8.8.8.8", 1)), FINDER))
        self.lookup.refused(FINDER)
        self.advance(0.7)
        self.assertIs(State.WALKING, self.lookup.state, "an offered peer may join")

    def test_new_neighbours_revive(self):
        """A neighbour that appears before the end is asked."""
        self.candidates = self.candidates[:2]
        for walk in self.walks(self.advance(0.0)):
            self.lookup.refused(walk.address)
        self.advance(0.1)
        self.candidates.append(candidate(7))
        again = self.walks(self.advance(0.2))
        self.assertEqual([candidate(7).address], [walk.address for walk in again])

    @given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 40)), max_size=60))
    def test_always_ends(self, events: list[tuple[float, int]]):
        """Whoever refuses whenever, it is over after ten seconds and asked each one once."""
        self.setUp()
        asked: list[Address] = []
        for passed, index in events:
            self.now += passed
            asked += [walk.address for walk in self.walks(self.advance())]
            if index < len(asked):
                self.lookup.refused(asked[index])
        self.now = max(self.now, self.start + limits.LOOKUP_S)
        self.assertEqual([], self.advance())
        self.assertIs(State.FAILED, self.lookup.state)
        self.assertEqual(len(asked), len(set(asked)))
        self.assertEqual(len(asked), self.lookup.asked)


class OfferTests(LookupCase):
    """What is believed of an offer."""

    def test_tries_and_pulls(self):
        """Offered peers are tried, and the finder is asked for more with its cookie."""
        peers = [Address("8.8.8.8", 1), Address("7.7.7.7", 2)]
        actions = self.lookup.offered(offer(*peers), FINDER)
        self.assertEqual(peers, tried(actions))
        self.assertEqual([Pull(FINDER, QUERY + b"\0", b"c" * 12)], actions[2:])
        self.assertEqual(1, self.lookup.offers)

    def test_member_finders_come_first(self):
        """A finder that is a peer itself is tried first, at the address it was seen at."""
        actions = self.lookup.offered(offer(Address("8.8.8.8", 1), flags=Flag.MEMBER), FINDER)
        self.assertEqual([FINDER, Address("8.8.8.8", 1)], tried(actions))

    def test_once_per_finder(self):
        """A second offer of the same finder changes nothing."""
        self.lookup.offered(offer(Address("8.8.8.8", 1)), FINDER)
        self.assertEqual([], self.lookup.offered(offer(Address("7.7.7.7", 1)), FINDER))
        self.assertEqual(1, self.lookup.offers)

    def test_finder_that_said_all_is_not_asked(self):
        """Nothing is pulled from a finder whose offer names everybody it knows."""
        self.advance()
        peers = [Address("8.8.8.8", 1), Address("8.8.4.4", 1)]
        for flags in (0, Flag.MEMBER):
            finder = Address(f"9.9.9.{flags}", 7667)
            actions = self.lookup.offered(offer(*peers, flags=flags, untold=0), finder)
            self.assertNotIn(Pull, {type(action) for action in actions})

    def test_finders_are_bounded(self):
        """So many finders are heard, and four of them pulled."""
        pulls = 0
        for number in range(40):
            finder = Address(f"9.9.{number}.9", 1)
            actions = self.lookup.offered(offer(), finder)
            pulls += sum(1 for action in actions if isinstance(action, Pull))
        self.assertEqual(limits.LOOKUP_FINDERS, pulls)
        self.assertEqual(limits.LOOKUP_CANDIDATES, self.lookup.offers)

    def test_candidates_are_bounded(self):
        """Sixteen addresses are tried at most, however many offers and pulled lists there are."""
        count = 0
        for number in range(20):
            peers = [Address(f"8.{number}.{n}.1", 1) for n in range(4)]
            count += len(tried(self.lookup.offered(offer(*peers), Address(f"9.9.{number}.9", 1))))
            count += len(tried(self.lookup.learned([Address(f"7.{number}.1.1", 1)], Scope.GLOBAL)))
        self.assertEqual(limits.LOOKUP_CANDIDATES, count)

    def test_walks_stop_when_candidates_are_full(self):
        """With as many candidates as may be tried, no more walks go out; the end stays."""
        self.advance(0.0)
        peers = [Address(f"8.8.{n}.1", 1) for n in range(limits.LOOKUP_CANDIDATES)]
        self.lookup.learned(peers, Scope.GLOBAL)
        self.assertEqual([], self.advance(0.1))
        self.assertEqual(self.start + limits.ITERATE_AFTER_S, self.lookup.next_timer())
        self.assertEqual([AskEntries()], self.advance(limits.ITERATE_AFTER_S))
        self.advance(limits.LOOKUP_S)
        self.assertIs(State.FAILED, self.lookup.state)

    def test_one_per_host(self):
        """A global host is tried at one port only, over all offers; local ones at each."""
        peers = [Address("8.8.8.8", port) for port in range(1, 9)]
        self.assertEqual(peers[:1], tried(self.lookup.offered(offer(*peers), FINDER)))
        self.assertEqual([], self.lookup.learned(peers, Scope.LOOPBACK))
        ipv6 = [Address(f"2600::{n}", 1) for n in range(1, 4)]
        self.assertEqual(ipv6[:1], tried(self.lookup.learned(ipv6, Scope.LOOPBACK)))
        local = [Address("127.0.0.1", port) for port in range(1, 5)]
        self.assertEqual(local, tried(self.lookup.learned(local, Scope.LOOPBACK)))

    def test_two_per_subnet_and_offer(self):
        """One offer gets two addresses of a global /24 tried: it is no way to flood a network."""
        peers = [Address(f"8.8.8.{n}", 1) for n in range(1, 9)]
        self.assertEqual(
            peers[: limits.SUBNET_PER_BUCKET], tried(self.lookup.offered(offer(*peers), FINDER))
        )
        others = self.lookup.offered(offer(*peers), Address("9.9.8.8", 1))
        self.assertEqual(peers[2:4], tried(others))

    def test_strangers_name_nobody_at_home(self):
        """Addresses of narrower scope than their finder's are left out."""
        peers = [Address("127.0.0.1", 1), Address("10.0.0.1", 1), Address("8.8.8.8", 1)]
        for finder, count in [("9.9.9.9", 1), ("10.0.0.9", 2), ("127.0.0.1", 3)]:
            self.lookup = Lookup(TOPIC, QUERY, 0.0)
            actions = self.lookup.offered(offer(*peers), Address(finder, 9))
            self.assertEqual(peers[3 - count :], tried(actions))

    def test_after_the_end(self):
        """After failure offers are ignored; after success they still bring further peers."""
        self.lookup.joined()
        self.assertTrue(self.lookup.offered(offer(Address("8.8.8.8", 1)), FINDER))
        self.lookup = Lookup(TOPIC, QUERY, self.start)
        self.run_out()
        self.assertEqual([], self.lookup.offered(offer(Address("8.8.8.8", 1)), FINDER))

    @given(
        st.lists(
            st.tuples(strategies.addresses(), st.lists(strategies.addresses(), max_size=13)),
            max_size=20,
        )
    )
    def test_bounds_hold(self, offers: list[tuple[Address, list[Address]]]):
        """Whatever is offered by whom: each host once, sixteen in all, nobody of narrower scope."""
        self.setUp()
        everyone: list[Any] = []
        for finder, peers in offers:
            new = tried(self.lookup.offered(offer(*peers), finder))
            self.assertTrue(all(scope(peer) >= scope(finder) for peer in new))
            subnets = [key for peer in new if (key := subnet_key(peer)) is not None]
            for subnet in subnets:
                self.assertLessEqual(subnets.count(subnet), limits.SUBNET_PER_BUCKET)
            everyone += new
        self.assertLessEqual(len(everyone), limits.LOOKUP_CANDIDATES)
        self.assertEqual(len(everyone), len({limit_key(peer) for peer in everyone}))
