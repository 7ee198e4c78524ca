"""Ids next to a topic can be made at will: what holds when all nodes near it are an attacker's."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.ids import NodeID
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.iterate import Iteration
from p2pdist.overlay.lookup import AskEntries, Lookup, Walk
from p2pdist.overlay.membership import Membership
from p2pdist.overlay.messages import (
    Announce,
    Announced,
    Find,
    Flag,
    Forwarded,
    Found,
    GetPeers,
    Status,
    Verdict,
)
from p2pdist.overlay.network import Network
from p2pdist.test.network import Host
from p2pdist.test.overlayworld import KEY, OverlayNode, PeersSeen, lan
from p2pdist.test.stranger import Stranger
from p2pdist.test.support import TestCase
from p2pdist.test.test_lookup import FINDER, QUERY, TOPIC, LookupCase, candidate, offer, tried


def near(number: int, host: str) -> NodeEntry:
    """Return the node at distance ``number`` from a topic of zeros."""
    return NodeEntry(NodeID(number.to_bytes(20, "big")), Address(host, 7667))


class LastResortTests(LookupCase):
    """Whom a lookup asks when those near the topic brought nobody."""

    def fill(self) -> None:
        """Let liars use up the addresses that anybody may have tried."""
        for number in range(limits.LOOKUP_CANDIDATES):
            liar = Address(f"9.{number}.9.9", 1)
            self.lookup.offered(offer(Address(f"8.{number}.8.8", 1)), liar)

    def test_entries_are_asked_with_the_iteration(self) -> None:
        """The descriptor's nodes are asked at ITERATE_AFTER_S, not before."""
        asked = [time for time, actions in self.run_out() if AskEntries() in actions]
        self.assertEqual([limits.ITERATE_AFTER_S], asked)

    def test_neighbours_far_from_the_topic(self) -> None:
        """Two waves go to the farthest neighbours, for their own tables only."""
        self.candidates = [candidate(1000 + number) for number in range(100)]
        waves: dict[float, list[Walk]] = {}
        for time, actions in self.run_out():
            far = [a for a in actions if isinstance(a, Walk) and a.last_hop]
            if far:
                waves[time] = far
        self.assertEqual(list(limits.AROUND_S), list(waves))
        self.assertEqual([limits.AROUND] * 2, [len(wave) for wave in waves.values()])
        first = {walk.address for walk in waves[limits.AROUND_S[0]]}
        self.assertEqual({c.address for c in self.candidates[-limits.AROUND :]}, first)

    def test_liars_do_not_use_up_everything(self) -> None:
        """Last resorts are taken, and heard, when liars have filled the candidates."""
        self.advance(0.0)
        self.fill()
        self.assertEqual([], tried(self.lookup.offered(offer(Address("7.7.7.7", 1)), FINDER)))
        actions = self.advance(limits.ITERATE_AFTER_S)
        self.assertEqual([AskEntries()], actions, "walks stop")
        entry = Address("6.6.6.6", 1)
        self.assertTrue(self.lookup.entry(entry))
        peers = [Address(f"5.{number}.5.5", 1) for number in range(limits.ENTRY_PEERS + 1)]
        self.assertEqual(peers[:-1], tried(self.lookup.offered(offer(*peers), entry)))
        around = self.walks(self.advance(limits.AROUND_S[0]))
        member = around[0].address
        told = offer(Address("4.4.4.4", 1), flags=Flag.MEMBER)
        self.assertEqual([member], tried(self.lookup.offered(told, member)))
        self.assertEqual(1, limits.AROUND_PEERS)

    def test_refusals_of_last_resorts_start_no_walks(self) -> None:
        """A neighbour asked for its own table that has none is not replaced by another walk."""
        self.candidates = [candidate(1000 + number) for number in range(100)]
        self.advance(0.0)
        for walk in self.walks(self.advance(limits.AROUND_S[0])):
            if walk.last_hop:
                self.lookup.refused(walk.address)
        self.assertEqual([], self.advance())

    def test_entry_that_said_no(self) -> None:
        """Who was a first hop and has nobody is not asked again."""
        lookup = Lookup(TOPIC, QUERY, 0.0)
        lookup.refused(FINDER)
        self.assertFalse(lookup.entry(FINDER))


class SpreadTests(TestCase):
    """What one subnet can be."""

    def test_one_subnet_is_not_everybody(self) -> None:
        """Of one global /24 the nearest SUBNET_PER_TABLE are found, then others."""
        crawl = Iteration(bytes(20), b"o" * 20, limits.STORERS)
        crawl.learn(near(1 + number, f"8.8.8.{number + 1}") for number in range(30))
        crawl.learn(near(100 + number, f"9.9.{number}.1") for number in range(30))
        while asked := crawl.due(0.0):
            for entry in asked:
                crawl.answered(entry.address)
        self.assertTrue(crawl.done)
        own = [entry for entry in crawl.nearest() if entry.address.host.startswith("8.")]
        self.assertEqual(limits.SUBNET_PER_TABLE, len(own))
        self.assertEqual(limits.STORERS, len(crawl.nearest()))


def storer_on(host: Host) -> Stranger:
    """Return a node that takes queries and announces, and knows nobody."""
    storer = Stranger(host)
    storer.polite = True
    storer.answers = {
        GetPeers: lambda m: Forwarded(
            rid=m.rid, attempt=m.attempt, verdict=Verdict.TAKEN, units=0, token=b"t" * 8
        ),
        Find: lambda m: Found(rid=m.rid, attempt=m.attempt),
        Announce: lambda m: Announced(rid=m.rid, attempt=m.attempt, ttl_s=9, others=0),
    }
    return storer


class EntryTests(TestCase):
    """The descriptor's own nodes."""

    def setUp(self) -> None:
        """Start a node that knows one entry node, which is not its neighbour any more."""
        self.world, (a, b) = lan(count=2)
        self.storer = storer_on(b)
        self.node = OverlayNode.on(a, self.storer.address.host)
        self.world.run(1)
        self.named = (HostPort(self.storer.address.host, limits.DEFAULT_PORT),)
        for _ in range(limits.MISSES_DEAD):
            self.node.network.neighbours.missed(self.storer.address)
        self.assertEqual(0, len(self.node.network.neighbours))
        self.member = Membership(
            self.node.network,
            KEY,
            PeersSeen(),
            entries=lambda: self.node.bootstrap.answered(self.named),
        )

    def test_remembered_outside_the_routing_table(self) -> None:
        """An entry that answered is known though the table dropped it; not once it is silent."""
        answered = self.node.bootstrap.answered
        self.assertEqual([self.storer.address], answered(self.named))
        self.assertEqual([], answered((HostPort("10.0.0.77", 1),)))
        self.storer.host.crash()
        self.world.run(limits.TOKEN_REFRESH_S * 1.5)
        self.assertEqual([], answered(self.named))

    def test_announced_to_whatever_its_id(self) -> None:
        """It hears of us at start, on a change of status and every quarter of an hour."""
        self.patch(Network, "nearest", lambda *_args: [])
        self.member.start()
        self.world.run(limits.LOOKUP_S + 5)
        self.assertEqual(1, len(self.storer.heard(Announce)))
        self.member.set_status(Status.SEED)
        self.world.run(1)
        self.assertEqual(Status.SEED, self.storer.heard(Announce)[-1].status)
        self.world.run(limits.TOKEN_REFRESH_S * 1.5)  # then it is a neighbour again
        told = len(self.storer.heard(Announce))
        self.world.run(limits.ANNOUNCE_EVERY_S * (1 + limits.ANNOUNCE_JITTER))
        self.assertGreater(len(self.storer.heard(Announce)), told)

    def test_asked_by_a_lookup(self) -> None:
        """A lookup asks it for its own table at the iterate step, with nobody else to ask."""
        other = storer_on(self.world.host("10.0.0.3"))
        self.world.wait_for(self.node.network.contact(other.address))
        self.member.start()
        self.world.run(limits.ITERATE_AFTER_S - 0.05)
        self.assertEqual([], self.storer.heard(GetPeers))
        self.world.run(0.1)
        (asked,) = self.storer.heard(GetPeers)
        self.assertTrue(asked.flags & Flag.LAST)

    def test_few_are_asked(self) -> None:
        """At most ENTRY_NODES of a long descriptor are announced to and asked."""
        many = [Address(f"10.8.0.{number + 1}", 7667) for number in range(limits.ENTRY_NODES + 3)]
        self.member.entries = lambda: many
        other = storer_on(self.world.host("10.0.0.3"))
        self.world.wait_for(self.node.network.contact(other.address))
        start = len(self.world.trace)
        self.member.start()
        self.world.run(2 * limits.LOOKUP_S)
        reached = {r.target[0] for r in self.world.trace[start:]} & {a.host for a in many}
        self.assertEqual(limits.ENTRY_NODES, len(reached))
