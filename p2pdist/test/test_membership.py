"""A node's part in a swarm: searching, joining, announcing, and what it forgets."""

from __future__ import annotations

import functools

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID
from p2pdist.keys import topic_of
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.membership import AGAIN_S, JoinedPeer
from p2pdist.overlay.messages import (
    Announce,
    Announced,
    Find,
    Forwarded,
    Found,
    GetPeers,
    Ping,
    Status,
    Verdict,
)
from p2pdist.overlay.network import NEIGHBOUR_PINGS
from p2pdist.overlay.routing import RoutingTable
from p2pdist.test.network import Host
from p2pdist.test.overlayworld import KEY, OverlayNode, lan
from p2pdist.test.stranger import Stranger
from p2pdist.test.support import TestCase

TOPIC = topic_of(KEY)


def fake_peer(number: int) -> JoinedPeer:
    """Return a joined peer that nobody is."""
    address = Address(f"10.1.{number // 200}.{number % 200 + 1}", 7667)
    return JoinedPeer(NodeID(number.to_bytes(20, "big")), address, Status.SEED)


def storer_on(host: Host, others: int) -> Stranger:
    """Return a node that knows nobody and counts ``others`` peers in every announce reply."""
    storer = Stranger(host)
    storer.polite = True
    storer.answers = {
        GetPeers: lambda m: Forwarded(
            rid=m.rid, attempt=m.attempt, verdict=Verdict.NO_ROUTE, units=m.units, token=b"t" * 8
        ),
        Find: lambda m: Found(rid=m.rid, attempt=m.attempt),
        Announce: lambda m: Announced(rid=m.rid, attempt=m.attempt, ttl_s=9, others=others),
    }
    return storer


def naming(nodes: tuple[NodeEntry, ...], asked: Find) -> Found:
    """Return the answer that names ``nodes``."""
    return Found(rid=asked.rid, attempt=asked.attempt, nodes4=nodes)


class MeetingTests(TestCase):
    """How members find each other."""

    def test_two_that_start_at_once_meet_through_the_announce_reply(self) -> None:
        """Both searches find nobody; the second announce hears of the first: joined in 2 s."""
        world, (b, x, y) = lan(count=3)
        bootstrap = OverlayNode.on(b)
        world.run(1)
        one, _ = OverlayNode.on(x, bootstrap).join()
        two, _ = OverlayNode.on(y, bootstrap).join()
        took = world.run_until(lambda: one.joined and two.joined, timeout=5)
        self.assertLess(took, 2)

    def test_announce_reply_that_knows_others_sets_off_a_search(self) -> None:
        """A storer that counts others is asked for them AGAIN_S later."""
        world, (a, b) = lan(count=2)
        storer = storer_on(b, others=1)
        OverlayNode.on(a, storer.address.host).join(Status.SEED)
        world.run_until(lambda: storer.heard(Announce), timeout=5)
        asked = len(storer.heard(GetPeers))
        took = world.run_until(lambda: len(storer.heard(GetPeers)) > asked, timeout=5)
        self.assertLess(abs(took - AGAIN_S), AGAIN_S * limits.RTO_JITTER + 0.01)

    def test_our_own_limits_are_no_silence(self) -> None:
        """A peer that could not be pinged for want of calls stays known."""
        world, (a, b) = lan(count=2)
        node = OverlayNode.on(a)
        member, _ = node.join()
        address = Address(b.addresses[0], 7667)
        node.network.peers.put(TOPIC, NodeID(b"p" * 20), address, Status.SEED, 1, world.now)
        self.patch(limits, "CALLS_OUTSTANDING", 0)
        member.candidate(address)
        self.assertTrue(node.network.peers.knows(TOPIC, address))

    def test_status_and_farewell_propagate(self) -> None:
        """Joined peers see leech, seed and left, storers forget who left."""
        world, (b, x, y) = lan(count=3)
        bootstrap = OverlayNode.on(b)
        node_x = OverlayNode.on(x, bootstrap)
        one, _ = node_x.join(Status.LEECH)
        two, seen = OverlayNode.on(y, bootstrap).join(Status.SEED)
        world.run_until(lambda: one.joined and two.joined, timeout=5)
        world.run(2)
        (peer,) = two.joined.values()
        self.assertEqual(Status.LEECH, peer.status)
        one.set_status(Status.SEED)
        world.run(1)
        self.assertEqual(Status.SEED, peer.status)
        stored = bootstrap.network.peers.get(TOPIC, node_x.address)
        assert stored is not None
        self.assertEqual(Status.SEED, stored.status)
        one.stop()
        one.stop()
        world.run(1)
        self.assertEqual("left", seen.events[-1][0])
        self.assertIsNone(bootstrap.network.peers.get(TOPIC, node_x.address))

    def test_status_does_not_overtake_the_reply_to_a_join(self) -> None:
        """A member that already holds the joiner's token does not lose it again at once."""
        world, (a, b) = lan(count=2)
        world.link(delay=0.01)
        member = OverlayNode.on(a)
        joiner = OverlayNode.on(b, member)
        world.run(1)
        world.wait_for(member.network.contact(joiner.address))
        theirs, _ = member.join(Status.SEED)
        world.run(1)
        joiner.network.peers.remove(TOPIC, member.address)  # as if others stored it
        ours, seen = joiner.join()
        world.run(5)
        self.assertEqual([("joined", "10.0.0.1", True)], seen.events)
        self.assertEqual([Status.SEED], [peer.status for peer in ours.joined.values()])
        self.assertEqual([Status.LEECH], [peer.status for peer in theirs.joined.values()])

    def test_restart_with_a_clock_set_back(self) -> None:
        """A crashed peer that counts from lower numbers is joined and believed again."""
        world, (b, x, y) = lan(count=3)
        bootstrap = OverlayNode.on(b)
        one, _ = OverlayNode.on(x, bootstrap).join(Status.SEED)
        node_y = OverlayNode.on(y, bootstrap)
        two, _ = node_y.join(Status.SEED)
        world.run_until(lambda: one.joined and two.joined, timeout=5)
        world.run(2)
        entry = one.network.peers.get(TOPIC, node_y.address)
        assert entry is not None
        entry.sequence = 10_000
        y.restart()
        again, _ = OverlayNode.on(y, bootstrap).join(Status.LEECH)
        world.run_until(lambda: again.joined, timeout=10)
        world.run(1)
        self.assertEqual([Status.LEECH], [peer.status for peer in one.joined.values()])
        stored = one.network.peers.entries(TOPIC)
        self.assertEqual([Status.LEECH], [peer.status for peer in stored])

    def test_storers_are_told_again(self) -> None:
        """Every ANNOUNCE_EVERY_S, give or take ANNOUNCE_JITTER, to at most STORERS nodes."""
        world, hosts = lan(count=2)
        storer = storer_on(hosts[1], others=0)
        node = OverlayNode.on(hosts[0], "10.0.0.2")
        membership, _ = node.join(Status.SEED)
        world.run(30)
        first = len(storer.heard(Announce))
        self.assertGreater(first, 0)
        world.run(limits.ANNOUNCE_EVERY_S * (1 - limits.ANNOUNCE_JITTER) - 60)
        self.assertEqual(first, len(storer.heard(Announce)))
        world.run(limits.ANNOUNCE_EVERY_S * 2 * limits.ANNOUNCE_JITTER + 120)
        self.assertGreater(len(storer.heard(Announce)), first)
        for number in range(limits.STORERS + 4):
            reply = Announced(rid=bytes(8), attempt=0, ttl_s=1, others=0)
            membership._cb_announced(reply, Address("10.2.0.1", 1000 + number))
        self.assertEqual(limits.STORERS, len(membership._storers))
        membership._neighbour_found(Address("10.2.0.9", 1))
        self.assertNotIn(Address("10.2.0.9", 1), membership._storers)

    def test_known_peers_are_tried_at_once(self) -> None:
        """Peers of an earlier run are pinged beside the search; at most SAVED_PEERS."""
        world, (x, y) = lan(count=2)
        node_x, node_y = OverlayNode.on(x), OverlayNode.on(y)
        node_y.join(Status.SEED)
        membership, seen = node_x.join()
        membership.stop()
        known = [node_y.address, *(fake_peer(n).address for n in range(limits.SAVED_PEERS + 6))]
        membership.start(tuple(known))
        world.run_until(lambda: membership.joined, timeout=0.1)
        world.run(20)
        self.assertEqual(set(known[: limits.SAVED_PEERS]), set(seen.offers))


class CandidateTests(TestCase):
    """Addresses somebody offered."""

    def setUp(self) -> None:
        """Start a member alone."""
        self.world, hosts = lan(count=4)
        self.hosts = hosts
        self.node = OverlayNode.on(hosts[0])
        self.membership, self.seen = self.node.join()

    def test_dead_candidates_are_forgotten(self) -> None:
        """A silent address leaves the PeerTable and is left alone for NEGATIVE_CACHE_S."""
        dead = Address("10.0.0.9", 7667)
        table = self.node.network.peers
        table.put(TOPIC, NodeID(b"d" * 20), dead, Status.SEED, 0, self.world.now)
        self.membership.candidate(dead)
        self.world.run(3)
        self.assertIsNone(table.get(TOPIC, dead))
        before = len(self.world.trace)
        self.membership.candidate(dead)
        self.assertEqual(before, len(self.world.trace))
        living = OverlayNode.on(self.hosts[1])
        living.join(Status.SEED)
        self.membership.candidate(living.address)
        self.world.run(limits.NEGATIVE_CACHE_S - 4)
        self.membership.candidate(dead)
        self.assertEqual([dead, living.address], self.seen.offers)
        self.world.run(4)
        self.membership.candidate(dead)
        self.assertEqual([dead, living.address, dead], self.seen.offers)

    def test_dead_candidates_are_asked_again_for_want_of_others(self) -> None:
        """Who has no peer at all sends a silent address one ping every LONELY_RETRY_S."""
        dead = Address("10.0.0.9", 7667)
        self.membership.candidate(dead)
        self.world.run(3)
        for _ in range(3):
            before = len(self.world.trace)
            self.membership.candidate(dead)
            self.assertEqual(before, len(self.world.trace))
            self.world.run(limits.LONELY_RETRY_S)
            self.membership.candidate(dead)
            self.world.run(3)
            asked = [r for r in self.world.trace[before:] if r.target[0] == dead.host]
            self.assertEqual([limits.PING_BYTES], [record.length for record in asked])

    def test_dead_candidates_are_asked_again_for_want_of_better_ones(self) -> None:
        """So does who has peers, but searches because they give nothing."""
        dead = Address("10.0.0.9", 7667)
        self.membership.candidate(dead)
        useless = OverlayNode.on(self.hosts[1])
        useless.join(Status.SEED)
        self.membership.candidate(useless.address)
        self.world.run(limits.LONELY_RETRY_S + 3)
        self.membership.candidate(dead)
        self.assertEqual([dead, useless.address], self.seen.offers)
        self.membership.search()
        self.membership.candidate(dead)
        self.world.run(3)
        self.membership.candidate(dead)
        self.assertEqual([dead, useless.address, dead], self.seen.offers)

    def test_once_heard_is_never_blacklisted(self) -> None:
        """An address that answered before is tried again at once: partitions end."""
        peer = OverlayNode.on(self.hosts[1])
        other, _ = peer.join(Status.SEED)
        self.membership.candidate(peer.address)
        self.world.run_until(lambda: self.membership.joined, timeout=1)
        self.world.partition([self.hosts[0]], [self.hosts[1]])
        self.result_of_check(peer)
        self.assertEqual({}, self.membership.joined)
        self.world.heal()
        self.membership.candidate(peer.address)
        self.world.run_until(lambda: self.membership.joined, timeout=1)
        del other

    def result_of_check(self, peer: OverlayNode) -> None:
        """Check a joined peer and wait."""
        self.world.wait_for(self.membership.check(peer.node.key.node_id))

    def test_check_of_a_broken_connection(self) -> None:
        """A peer that answers stays, an unknown one is nothing to do."""
        peer = OverlayNode.on(self.hosts[1])
        peer.join(Status.SEED)
        self.membership.candidate(peer.address)
        self.world.run_until(lambda: self.membership.joined, timeout=1)
        self.result_of_check(peer)
        self.assertEqual([peer.address], [p.address for p in self.membership.joined.values()])
        self.result_of(self.membership.check(NodeID(b"u" * 20)))

    def test_queue_is_worked_off(self) -> None:
        """PING_PARALLEL at once; what became pointless in the queue does not stop it."""
        addresses = [fake_peer(n).address for n in range(limits.PING_PARALLEL + 20)]
        for address in addresses:
            self.membership.candidate(address)
            self.membership.candidate(address)
        self.assertEqual(limits.PING_PARALLEL, len(self.seen.offers))
        for address in addresses[limits.PING_PARALLEL : -2]:
            self.node.network.guard.silent.add(address, self.world.now)
        self.world.run(5)
        expected = addresses[: limits.PING_PARALLEL] + addresses[-2:]
        self.assertEqual(expected, self.seen.offers)

    def test_queue_is_bounded(self) -> None:
        """At most SAVED_PEERS + LOOKUP_CANDIDATES addresses wait."""
        for number in range(200):
            self.membership.candidate(fake_peer(number).address)
        self.world.run(40)
        most = limits.PING_PARALLEL + limits.SAVED_PEERS + limits.LOOKUP_CANDIDATES
        self.assertEqual(most, len(self.seen.offers))

    def test_full_member_seeks_no_more(self) -> None:
        """With JOINED_PEERS joined, offers are not followed."""
        for number in range(limits.JOINED_PEERS):
            peer = fake_peer(number)
            self.membership.joined[peer.node_id] = peer
        self.membership.candidate(Address("10.0.0.3", 7667))
        self.assertEqual([], self.seen.offers)

    def test_second_address_of_a_joined_node(self) -> None:
        """A node joined already is not joined again under another address."""
        world = self.world
        host = world.host("10.0.0.50", "10.0.0.51")
        peer = OverlayNode.on(host)
        peer.join(Status.SEED)
        self.membership.candidate(Address("10.0.0.50", 7667))
        world.run_until(lambda: self.membership.joined, timeout=1)
        self.membership.candidate(Address("10.0.0.50", 7667))
        self.membership.candidate(Address("10.0.0.51", 7667))
        world.run(3)
        joined = [address.host for address in (p.address for p in self.membership.joined.values())]
        self.assertEqual(["10.0.0.50"], joined)

    def test_ourselves_is_no_peer(self) -> None:
        """An own address, or a node that bears our id, is not joined."""
        self.membership.candidate(self.node.address)
        stranger = Stranger(self.hosts[1])
        stranger.node_id = self.node.node.key.node_id
        stranger.polite = True
        self.membership.candidate(stranger.address)
        self.world.run(3)
        self.assertEqual({}, self.membership.joined)

    def test_no_peer_is_dropped(self) -> None:
        """A node that answers pings but has not the content is not joined."""
        OverlayNode.on(self.hosts[1])
        self.membership.candidate(Address("10.0.0.2", 7667))
        self.world.run(3)
        self.assertEqual([], self.seen.events)


class PatienceTests(TestCase):
    """When it searches again."""

    def setUp(self) -> None:
        """Start a member whose only entry knows nobody."""
        self.world, (a, b, self.spare) = lan(count=3)
        self.bootstrap = OverlayNode.on(b)
        self.node = OverlayNode.on(a, self.bootstrap)
        self.membership, self.seen = self.node.join()

    def test_searches_ever_more_rarely(self) -> None:
        """Failed lookups repeat after LOOKUP_RETRY_S, doubling up to its end, for ever."""
        self.world.run(60)
        early = len(self.seen.searches)
        self.assertIn(early, range(3, 8))
        self.world.run(3600)
        low, high = limits.LOOKUP_RETRY_S
        self.assertGreater(len(self.seen.searches), 3600 / (high * 1.3))
        self.assertLess(len(self.seen.searches), 3600 / high * 1.3 + 10 + 60 / low)
        self.assertEqual({False}, set(self.seen.searches))

    def test_news_does_not_put_a_search_off(self) -> None:
        """A stream of new neighbours brings the next search nearer, never further."""
        self.world.run(30)
        before = len(self.seen.searches)
        for _ in range(10):
            self.membership._neighbour_found(Address("10.3.0.1", 7))
            self.world.run(0.3)
        self.assertGreater(len(self.seen.searches), before)

    def test_search_on_demand(self) -> None:
        """``search`` begins at once, and not twice."""
        self.world.run(30)
        before = len(self.seen.searches)
        self.membership.search()
        self.membership.search()
        self.world.run(4)
        self.assertEqual(before + 1, len(self.seen.searches))
        self.membership.stop()
        self.membership.search()
        self.world.run(4)
        self.assertEqual(before + 1, len(self.seen.searches))

    def test_last_peer_gone_is_searched_for(self) -> None:
        """When the only joined peer dies, the status that meets silence starts a search."""
        spare = OverlayNode.on(self.spare, self.bootstrap)
        spare.join(Status.SEED)
        self.world.run_until(lambda: self.membership.joined, timeout=60)
        self.spare.crash()
        searches = len(self.seen.searches)
        self.membership.set_status(Status.SEED)
        self.world.run(30)
        self.assertEqual({}, self.membership.joined)
        self.assertGreater(len(self.seen.searches), searches)

    def test_stop_leaves_nothing(self) -> None:
        """After stop no timer of the membership or the node is left."""
        spare = OverlayNode.on(self.spare, self.bootstrap)
        other, _ = spare.join(Status.SEED)
        self.world.run_until(lambda: self.membership.joined, timeout=60)
        self.membership.stop()
        self.node.stop()
        other.stop()
        spare.bootstrap.stop()
        spare.node.stop()
        self.bootstrap.stop()
        for host in self.world.hosts.values():
            self.assertEqual(0, len(host.reactor.getDelayedCalls()), host.name)

    def test_stop_in_the_middle_leaves_nothing(self) -> None:
        """Stopping while searching, pinging and joining is as clean."""
        for steps in range(0, 40, 3):
            world, (a, b) = lan(seed=steps, count=2)
            peer = OverlayNode.on(b)
            peer.join(Status.SEED)
            node = OverlayNode.on(a, peer)
            membership, _ = node.join(Status.LEECH)
            for _ in range(steps):
                world.step()
            membership.stop()
            node.stop()
            self.assertEqual(0, len(a.reactor.getDelayedCalls()), steps)


class UpkeepTests(TestCase):
    """The network's own upkeep."""

    def test_silent_neighbours_are_pinged_and_dropped(self) -> None:
        """After NEIGHBOUR_PING_S of silence a ping; MISSES_DEAD unanswered ones end it."""
        self.patch(RoutingTable, "stale_buckets", lambda *_args: [])
        world, (a, b) = lan(count=2)
        node = OverlayNode.on(a)
        stranger = Stranger(b)
        stranger.befriend(node.address)
        stranger.polite = True
        for _ in range(int(limits.NEIGHBOUR_PING_S / limits.UPKEEP_EVERY_S)):
            node.node.upkeep()
            world.run(limits.UPKEEP_EVERY_S)
        self.assertEqual([], stranger.heard(Ping))
        node.node.upkeep()
        world.run(1)
        self.assertEqual(1, len(stranger.heard(Ping)))
        b.crash()
        world.run(limits.NEIGHBOUR_PING_S)
        for _ in range(limits.MISSES_DEAD):
            self.assertEqual(1, len(node.network.neighbours))
            node.node.upkeep()
            world.run(limits.UPKEEP_EVERY_S)
        self.assertEqual(0, len(node.network.neighbours))

    def test_few_pings_at_a_time(self) -> None:
        """At most NEIGHBOUR_PINGS neighbours are pinged in one step."""
        self.patch(RoutingTable, "stale_buckets", lambda *_args: [])
        world, (a,) = lan(count=1)
        node = OverlayNode.on(a)
        for number in range(30):
            peer = fake_peer(number)
            node.network.neighbours.verified(peer.node_id, peer.address, 0.0)
        world.run(limits.NEIGHBOUR_PING_S + 1)
        before = len(world.trace)
        node.node.upkeep()
        self.assertEqual(NEIGHBOUR_PINGS, len(world.trace) - before)

    def test_idle_buckets_are_refreshed(self) -> None:
        """A bucket without change for BUCKET_REFRESH_S is looked through, in both families."""
        world, (a, b) = lan(count=2)
        node = OverlayNode.on(a)
        other = OverlayNode.on(b)
        stranger = Stranger(world.host("10.0.0.9"))
        stranger.befriend(other.address)
        stranger.polite = True
        world.wait_for(node.network.contact(other.address))
        world.run(limits.BUCKET_REFRESH_S + 5)
        world.wait_for(node.network.contact(other.address))
        node.node.upkeep()
        world.run(5)
        for _ in range(200):
            node.node.upkeep()
            world.run(1)
        self.assertIsNotNone(node.network.neighbours.get(stranger.address))

    def test_whoever_a_refresh_is_told_of_is_contacted(self) -> None:
        """Not only the nearest, which are asked for more, if there is a place in the table."""
        world, (a, b, c) = lan(count=3)
        node = OverlayNode.on(a)
        named: list[JoinedPeer] = []
        for host in (b, c):
            storer = storer_on(host, others=0)
            told = [fake_peer(len(named) + number) for number in range(limits.REPLY_NODES)]
            named += told
            found = tuple(NodeEntry(peer.node_id, peer.address) for peer in told)
            storer.answers[Find] = functools.partial(naming, found)
            world.wait_for(node.network.contact(storer.address))
        start = len(world.trace)
        node.node.upkeep()
        world.run(1)
        reached = {r.target[0] for r in world.trace[start:]}
        self.assertEqual(set(), {peer.address.host for peer in named} - reached)

    def test_a_new_node_fills_its_table(self) -> None:
        """A network that begins at one moment knows itself a minute later."""
        world, hosts = lan(count=30)
        first = OverlayNode.on(hosts[0])
        nodes = [first, *[OverlayNode.on(host, first) for host in hosts[1:]]]
        for _ in range(12):
            for node in nodes:
                node.node.upkeep()
            world.run(limits.UPKEEP_EVERY_S)
        sizes = [len(node.network.neighbours) for node in nodes]
        self.assertGreater(sum(sizes) / len(sizes), 0.9 * (len(nodes) - 1), sizes)

    def test_expired_peers_go(self) -> None:
        """A peer that says nothing for PEER_TTL_S is forgotten."""
        world, (a,) = lan(count=1)
        node = OverlayNode.on(a)
        peer = fake_peer(1)
        node.network.peers.put(TOPIC, peer.node_id, peer.address, Status.SEED, 0, world.now)
        world.run(limits.PEER_TTL_S + 1)
        node.node.upkeep()
        self.assertEqual(0, node.network.peers.total)
