"""Discovery in the simulated network: the production overlay, many nodes, real datagrams."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.ids import NodeID
from p2pdist.keys import PUBLIC_NETWORK, NodeKey, topic_of
from p2pdist.overlay.bootstrap import Bootstrap
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.membership import Membership
from p2pdist.overlay.messages import (
    Find,
    Flag,
    Forwarded,
    Found,
    GetPeers,
    Offer,
    Status,
    Verdict,
)
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node
from p2pdist.stages import Stage
from p2pdist.test.network import Host, World
from p2pdist.test.overlayworld import KEY, OverlayNode, PeersSeen, lan
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import one_file
from p2pdist.test.stranger import Stranger
from p2pdist.test.support import TestCase

TOPIC = topic_of(KEY)


def met(world: World, *memberships: Membership) -> float:
    """Run until each has joined a peer; return how long that took."""
    return world.run_until(lambda: all(member.joined for member in memberships), timeout=400)


class ChainTests(TestCase):
    """The scenario the whole idea began with."""

    def test_finder_answers_the_initiator_directly(self):
        """A knows B, B knows C, C knows of D and the dead E: A pings both, joins D, drops E."""
        world, (a, b, c, d, e) = lan(count=5)
        node_c = OverlayNode.on(c)
        node_b = OverlayNode.on(b, node_c)
        node_d, node_e = OverlayNode.on(d), OverlayNode.on(e)
        _, seen_d = node_d.join(Status.SEED)
        membership_e, _ = node_e.join(Status.SEED)
        topic = membership_e.topic
        for node in (node_d, node_e):
            table = node_c.network.peers
            table.put(topic, node.node.key.node_id, node.address, Status.SEED, 0, world.now)
        e.crash()
        world.run(5)

        node_a = OverlayNode.on(a, node_b)
        membership, seen = node_a.join(Status.IDLE)
        start = len(world.trace)
        world.run_until(lambda: seen.events, timeout=5)
        world.run(4)

        hops = [(r.source[0][-1], r.target[0][-1]) for r in world.trace[start:]]
        self.assertLess(hops.index(("1", "2")), hops.index(("2", "3")), "A asks B, B asks C")
        self.assertLess(hops.index(("2", "3")), hops.index(("3", "1")), "C answers A directly")
        self.assertIn(("1", "5"), hops, "A pings E, which is dead")
        self.assertEqual([("joined", "10.0.0.4", True)], seen.events, "A joins D and drops E")
        self.assertEqual(["10.0.0.4"], [p.address.host for p in membership.joined.values()])
        self.assertEqual([("joined", "10.0.0.1", False)], seen_d.events)
        d_knows = node_d.network.peers.entries(topic)
        self.assertEqual([(node_a.address, Status.IDLE)], [(p.address, p.status) for p in d_knows])


class LatencyTests(TestCase):
    """Exact times, with 10 ms one way and nothing lost."""

    one_way_s = 0.01

    def first_offer(self, *, warm: bool) -> float:
        """Return how long the first peer took a newcomer that knows a member's neighbour."""
        world = World(1)
        world.link(delay=self.one_way_s)
        hosts = [world.host(f"10.0.0.{number}") for number in range(1, 4)]
        bootstrap = OverlayNode.on(hosts[0])
        OverlayNode.on(hosts[1], bootstrap).join(Status.SEED)
        world.run(10)
        node = OverlayNode.on(hosts[2], bootstrap)
        if warm:
            world.run(10)
        start = world.now
        _, seen = node.join()
        world.run_until(lambda: seen.offers, timeout=5)
        self.assertEqual("10.0.0.2", seen.offers[0].host)
        return world.now - start

    def test_known_contact_brings_peers_in_one_round_trip(self):
        """Query there, offer back: two ways."""
        self.assertEqual(round(2 * self.one_way_s, 6), round(self.first_offer(warm=True), 6))

    def test_cold_start_takes_two_round_trips(self):
        """Ping and pong come first: four ways."""
        self.assertEqual(round(4 * self.one_way_s, 6), round(self.first_offer(warm=False), 6))


class CrowdTests(TestCase):
    """More nodes, worse weather."""

    def test_bootstrap_that_holds_nothing_is_enough(self):
        """A node that is no member leads a late newcomer to the only seed."""
        world, (b, s, x) = lan(count=3)
        bootstrap = OverlayNode.on(b)
        OverlayNode.on(s, bootstrap).join(Status.SEED)
        world.run(400)
        membership, _ = OverlayNode.on(x, bootstrap).join()
        took = world.run_until(lambda: membership.joined, timeout=5)
        self.assertLess(took, 0.1)
        self.assertEqual({}, bootstrap.network.join_servers)

    def crowd(self, seed: int, count: int, loss: float) -> tuple[World, list[Membership]]:
        """Start nodes a little apart through one bootstrap; return their memberships."""
        world = World(seed)
        world.link(loss=loss, delay=(0.001, 0.02))
        bootstrap = OverlayNode.on(world.host("10.0.0.1"))
        memberships = []
        for number in range(count):
            node = OverlayNode.on(world.host(f"10.0.1.{number + 1}"), bootstrap)
            memberships.append(node.join()[0])
            world.run(0.01)
        return world, memberships

    def test_fifty_nodes_join_in_spite_of_loss(self):
        """With every twentieth datagram lost, all of fifty have a peer within seconds."""
        world, memberships = self.crowd(7, 50, 0.05)
        took = world.run_until(lambda: all(m.joined for m in memberships), timeout=30)
        self.assertLess(took, 10)

    def test_same_seed_same_trace(self):
        """The overlay is deterministic: one seed, one trace; another seed, another."""

        def run(seed: int) -> str:
            world, _ = self.crowd(seed, 12, 0.05)
            world.run(30)
            return world.trace_hash()

        self.assertEqual(run(3), run(3))
        self.assertNotEqual(run(3), run(4))

    def test_live_peers_are_found_among_the_dead(self):
        """Three in ten announced peers are dead: everybody joins a live one all the same."""
        world, hosts = lan(seed=2, count=21)
        bootstrap = OverlayNode.on(hosts[0])
        for host in hosts[1:]:
            OverlayNode.on(host, bootstrap).join(Status.SEED)
        world.run(20)
        dead = hosts[1:7]
        for host in dead:
            host.crash()
        addresses = {address for host in dead for address in host.addresses}
        for number in range(10):
            node = OverlayNode.on(world.host(f"10.0.2.{number + 1}"), bootstrap)
            membership, _ = node.join()
            took = met(world, membership)
            self.assertLess(took, 1)
            world.run(5)
            joined = {peer.address.host for peer in membership.joined.values()}
            self.assertEqual(set(), joined & addresses)

    def test_simultaneous_starters_meet(self):
        """Two nodes that start at the same instant meet, whatever the seed."""
        for seed in range(20):
            world, (b, x, y) = lan(seed=seed, count=3)
            world.link(delay=(0.001, 0.05), loss=0.05)
            bootstrap = OverlayNode.on(b)
            one, _ = OverlayNode.on(x, bootstrap).join()
            two, _ = OverlayNode.on(y, bootstrap).join()
            took = met(world, one, two)
            self.assertLess(took, 8, seed)


class FamilyTests(TestCase):
    """IPv6, and both."""

    def test_ipv6_only(self):
        """The overlay works where there is no IPv4 at all."""
        world = World(1)
        world.link(delay=0.002)
        hosts = [world.host(f"fd00::{number}") for number in range(1, 4)]
        bootstrap = OverlayNode.on(hosts[0], interface="::")
        OverlayNode.on(hosts[1], bootstrap, interface="::").join(Status.SEED)
        world.run(5)
        membership, _ = OverlayNode.on(hosts[2], bootstrap, interface="::").join()
        world.run_until(lambda: membership.joined, timeout=5)
        self.assertEqual(["fd00::2"], [p.address.host for p in membership.joined.values()])

    def test_dual_stack_node_meets_both(self):
        """A node with both families joins an IPv4-only and an IPv6-only peer through one entry."""
        world = World(1)
        world.link(delay=0.002)
        bootstrap = OverlayNode.on(world.host("10.0.0.1", "fd00::1"), interface="::")
        OverlayNode.on(world.host("10.0.0.2"), "10.0.0.1").join(Status.SEED)
        OverlayNode.on(world.host("fd00::3"), "fd00::1", interface="::").join(Status.SEED)
        world.run(5)
        both = world.host("10.0.0.4", "fd00::4")
        membership, _ = OverlayNode.on(both, "10.0.0.1", "fd00::1", interface="::").join()
        world.run_until(lambda: len(membership.joined) == 2, timeout=15)
        joined = {peer.address.host for peer in membership.joined.values()}
        self.assertEqual({"10.0.0.2", "fd00::3"}, joined)
        self.assertEqual(0, bootstrap.node.dropped["bug"])


class ScopeTests(TestCase):
    """An initiator that others cannot see."""

    def test_initiator_on_loopback_is_answered_through_its_first_hop(self):
        """Its origin means nothing elsewhere: offers are relayed, and the peer is joined."""
        world, (here, there) = lan(count=2)
        first_hop = OverlayNode.on(here)
        OverlayNode.on(there, first_hop).join(Status.SEED)
        world.run(5)
        first_hop.network.peers.remove(TOPIC, Address("10.0.0.2", limits.DEFAULT_PORT))
        node, network = second_node(here, "127.0.0.1", "10.0.0.1")
        bootstrap = Bootstrap(network, here.reactor, here.rng, here.resolver.resolve)
        bootstrap.add((HostPort("127.0.0.1", limits.DEFAULT_PORT),))
        bootstrap.start()
        seen = PeersSeen()
        membership = Membership(network, KEY, seen)
        start = len(world.trace)
        membership.start()
        world.run_until(lambda: membership.joined, timeout=1)
        self.assertEqual("10.0.0.2", seen.offers[0].host)
        ways = [(r.source, r.target) for r in world.trace[start:]]
        offer = (("10.0.0.2", 7667), ("10.0.0.1", 7667))
        relayed = (("127.0.0.1", 7667), ("127.0.0.1", 8001))
        self.assertIn(offer, ways)
        self.assertIn(relayed, ways[ways.index(offer) :])
        self.assertEqual(0, node.dropped["bug"])

    def test_query_says_that_its_origin_is_narrower(self):
        """The first hop flags a narrower origin; the second stamps where offers go."""
        world, (here, there) = lan(count=2)
        first_hop = OverlayNode.on(here)
        finder = Stranger(there)
        finder.befriend(first_hop.address)
        finder.polite = True
        _, network = second_node(here, "127.0.0.1")
        world.wait_for(network.contact(Address("127.0.0.1", limits.DEFAULT_PORT)))
        seen = PeersSeen()
        Membership(network, KEY, seen).start()
        world.run_until(lambda: finder.heard(GetPeers), timeout=5)
        query = finder.heard(GetPeers)[0]
        self.assertEqual(Address("127.0.0.1", 8001), query.src)
        self.assertTrue(query.flags & Flag.VIA)
        offer = Offer(
            qid=query.qid,
            node_id=finder.node_id,
            cookie=b"",
            swarm=1,
            peers4=(Address("10.0.0.9", 7667), Address("127.0.0.1", 22)),
        )
        finder.send(first_hop.address, offer)
        world.run(0.1)
        self.assertEqual([Address("10.0.0.9", 7667)], seen.offers)


def second_node(host: Host, *interfaces: str) -> tuple[Node, Network]:
    """Start a second node on a host, on port 8001."""
    clock = host.reactor
    node = Node(NodeKey.from_seed(bytes(32)), clock, host.rng, host.entropy, clock.seconds)
    network = node.add_network(PUBLIC_NETWORK)
    for interface in interfaces:
        host.reactor.listenUDP(8001, node.add_socket(interface), interface=interface)
    return node, network


class FaultTests(TestCase):
    """Things that break and heal."""

    def test_partition_heals(self):
        """A node that lost the others finds them again soon after the network heals."""
        for seed in range(5):
            world, (b, x, y) = lan(seed=seed, count=3)
            bootstrap = OverlayNode.on(b)
            one, _ = OverlayNode.on(x, bootstrap).join(Status.SEED)
            node_y = OverlayNode.on(y, bootstrap)
            two, _ = node_y.join()
            met(world, one, two)
            world.partition([b, x], [y])
            two.set_status(Status.SEED)
            one.set_status(Status.LEECH)
            for _ in range(60):
                world.run(5)
                node_y.node.upkeep()
                bootstrap.node.upkeep()
            self.assertEqual(({}, {}), (one.joined, two.joined))
            world.heal()
            took = met(world, one, two)
            self.assertLess(took, limits.CONTACT_RETRY_MAX_S * 1.2 + 5, seed)

    def test_late_link_is_used(self):
        """A node cut off from the start joins within a retry of the link coming up."""
        world, (b, x, y) = lan(count=3)
        world.partition([b, x], [y])
        bootstrap = OverlayNode.on(b)
        OverlayNode.on(x, bootstrap).join(Status.SEED)
        membership, _ = OverlayNode.on(y, bootstrap).join()
        world.run(300)
        world.heal()
        took = world.run_until(lambda: membership.joined, timeout=200)
        self.assertLess(took, limits.CONTACT_RETRY_MAX_S * (1 + limits.RTO_JITTER) + 2)

    def test_first_hop_that_swallows_queries(self):
        """A neighbour that takes every query and drops it costs ITERATE_AFTER_S, not the search."""
        world, (b, s, hole_host, x) = lan(count=4)
        bootstrap = OverlayNode.on(b)
        OverlayNode.on(s, bootstrap).join(Status.SEED)
        world.run(5)
        hole = Stranger(hole_host)
        hole.polite = True
        named = NodeEntry(bootstrap.node.key.node_id, bootstrap.address)
        hole.answers = {
            GetPeers: lambda m: Forwarded(
                rid=m.rid, attempt=m.attempt, verdict=Verdict.TAKEN, units=0, token=b"t" * 8
            ),
            Find: lambda m: Found(rid=m.rid, attempt=m.attempt, nodes4=(named,)),
        }
        membership, _ = OverlayNode.on(x, "10.0.0.3").join()
        took = world.run_until(lambda: membership.joined, timeout=10)
        self.assertGreater(took, limits.ITERATE_AFTER_S)
        self.assertLess(took, limits.ITERATE_AFTER_S + 0.5)

    def test_liar_that_offers_nobody_real(self):
        """Made-up peers are pinged, LOOKUP_CANDIDATES at most, and do not hide the real one."""
        world, (b, s, x) = lan(count=3)
        bootstrap = OverlayNode.on(b)
        OverlayNode.on(s, bootstrap).join(Status.SEED)
        world.run(5)
        for number in range(200):
            fake = Address(f"10.9.{number // 100}.{number % 100 + 1}", 7667)
            node_id = NodeID(number.to_bytes(20, "big"))
            bootstrap.network.peers.put(TOPIC, node_id, fake, Status.LEECH, 0, world.now)
        membership, seen = OverlayNode.on(x, bootstrap).join()
        took = world.run_until(lambda: membership.joined, timeout=5)
        self.assertLess(took, 1, "seeds are named first")
        world.run(10)
        self.assertLessEqual(len(seen.offers), limits.LOOKUP_CANDIDATES)


class StormTests(TestCase):
    """Everything at once: loss, copies, disorder, flipped bits, crashes, partitions, departures."""

    def storm(self, seed: int) -> None:
        """Let ten members live through a storm; then all must find each other again."""
        world = World(seed)
        world.link(loss=0.1, delay=(0.001, 0.08), duplicate=0.1, reorder=0.2, corrupt=0.02)
        chance = world.chance("storm")
        bootstrap = OverlayNode.on(world.host("10.0.0.1"))
        hosts = [world.host(f"10.0.1.{number}") for number in range(1, 11)]
        lives: dict[Host, tuple[OverlayNode, Membership]] = {}

        def start(host: Host) -> None:
            node = OverlayNode.on(host, bootstrap)
            lives[host] = node, node.join()[0]

        for host in hosts:
            start(host)
        for _ in range(50):
            world.run(chance.random() * 6)
            host = chance.choice(hosts)
            node, membership = lives[host]
            node.node.upkeep()
            draw = chance.random()
            if draw < 0.3:
                host.restart()
                start(host)
            elif draw < 0.45:
                membership.stop()
                membership.start()
            elif draw < 0.7:
                world.partition([host], [bootstrap.host, *(h for h in hosts if h is not host)])
            elif draw < 0.9:
                world.heal()
            else:
                membership.set_status(chance.choice([Status.LEECH, Status.SEED]))
        world.heal()
        world.link(loss=0.02, delay=(0.001, 0.02))
        memberships = [membership for _, membership in lives.values()]
        self.assertLess(met(world, *memberships), limits.LOOKUP_RETRY_S[1] * 1.2 + 15)
        for node, membership in lives.values():
            membership.stop()
            node.stop()
            self.assertEqual(0, node.node.dropped["bug"])
            self.assertEqual(0, len(node.host.reactor.getDelayedCalls()))
        self.assertEqual(0, bootstrap.node.dropped["bug"])

    def test_all_meet_after_a_storm(self):
        """No exception, no timer left, and everybody has a peer within a search's longest pause."""
        for seed in range(4):
            self.storm(seed)


class ServiceTests(TestCase):
    """Whole services."""

    def test_saved_neighbours_replace_dead_bootstraps(self):
        """A restarted machine finds the swarm again though every ``nodes`` entry is dead."""
        made = one_file()
        world = World(3)
        world.link(delay=(0.001, 0.003), bandwidth=20_000_000)
        bootstrap = Station.at(world, "10.0.0.1")
        bootstrap.run()
        seed = Station.at(world, "10.0.0.2")
        seed.store(made)
        seed.run(pointing(made, bootstrap))
        leech = Station.at(world, "10.0.0.3")
        leech.run(pointing(made, bootstrap))
        world.run_until(lambda: leech.session.stage is Stage.SEEDING, timeout=60)
        world.run(30)
        leech.stop()
        bootstrap.host.crash()
        world.run(5)
        leech.run(pointing(made, bootstrap))
        took = world.run_until(lambda: leech.session.membership.joined, timeout=60)
        self.assertLess(took, 5)
        late = Station.at(world, "10.0.0.4")
        late.run(pointing(made, leech))
        world.run_until(lambda: late.session.stage is Stage.SEEDING, timeout=60)
        self.assertTrue(late.holds(made))
