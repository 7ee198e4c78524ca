"""Nodes behind NATs in the simulated network: found out, served, kept open, named to nobody."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import ID_BYTES, NodeID
from p2pdist.keys import PUBLIC_NETWORK, topic_of
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.messages import NO_TOKEN, Find, Found, GetPeers, Ping, Pong, Status
from p2pdist.overlay.reach import State
from p2pdist.test.network import World
from p2pdist.test.overlayworld import KEY, OverlayNode
from p2pdist.test.servicesworld import Station
from p2pdist.test.simnat import NAT
from p2pdist.test.stranger import Stranger
from p2pdist.test.support import TestCase

TOPIC = topic_of(KEY)
ONE_WAY_S = 0.01
PORT = limits.DEFAULT_PORT


class NatCase(TestCase):
    """A world of public hosts, each in a subnet of its own, and one host behind a NAT."""

    full_cone = False

    def setUp(self):
        self.world = World(1)
        self.world.link(delay=ONE_WAY_S)
        self.nodes: list[OverlayNode] = []
        self.inside = self.world.host("192.168.1.2")
        self.nat = NAT(self.world, "50.1.0.1", self.inside, full_cone=self.full_cone)

    def public(self, number: int, *known: OverlayNode | str) -> OverlayNode:
        """Start a node with a public address that knows the given ones."""
        node = OverlayNode.on(self.world.host(f"20.0.{number}.1"), *known)
        self.look_around(node)
        return node

    def behind(self, *known: OverlayNode | str) -> OverlayNode:
        """Start the node behind the NAT."""
        return OverlayNode.on(self.inside, *known)

    def look_around(self, node: OverlayNode) -> None:
        """Have a node look for its own id soon and kept up, as a service does."""
        self.nodes.append(node)
        own = node.network.node_id
        node.host.reactor.callLater(0.5, node.network.converge, own, limits.STORERS)

    def live(self, seconds: float) -> None:
        """Let time pass, with the upkeep a service does."""
        until = self.world.now + seconds
        while self.world.now < until:
            self.world.run(min(limits.UPKEEP_EVERY_S, until - self.world.now))
            for node in self.nodes:
                node.node.upkeep()

    def seen(self, node: OverlayNode | None = None, nat: NAT | None = None) -> Address:
        """Return where a node behind a NAT is seen."""
        host = self.inside if node is None else node.host
        outside = (nat or self.nat).outside(host, PORT)
        assert outside is not None
        return Address(*outside)

    def known_from(self, node: OverlayNode, target: bytes) -> list[NodeEntry]:
        """Return whom ``node`` names to a stranger as near to ``target``."""
        stranger = Stranger(self.world.host(f"40.0.{len(self.world.hosts)}.1"))
        find = Find(node_id=stranger.node_id, target=target)
        found = stranger.ask(node.address, find, token=stranger.token(node.address))
        assert isinstance(found, Found)
        return list(found.nodes4)


class DetectionTests(NatCase):
    """Whether a node finds out that it is behind a NAT."""

    def states(self, node: OverlayNode) -> tuple[State, bool]:
        """Return what a node knows, and whether it asks through its first hop."""
        side = node.network.reach.ipv4
        return side.state, side.masked

    def test_two_subnets(self):
        """Two entry points in two subnets that see the same foreign host are enough."""
        entries = [self.public(number) for number in (1, 2)]
        node = self.behind(*entries)
        self.world.run(1)
        self.assertEqual((State.NATED, True), self.states(node))
        self.assertEqual("50.1.0.1", node.network.reach.ipv4.translated)
        for entry in entries:
            self.assertEqual(State.UNKNOWN, entry.network.reach.ipv4.state)

    def test_one_subnet(self):
        """Two entry points in one subnet flag nobody; walks are careful all the same."""
        first = self.public(1)
        second = OverlayNode.on(self.world.host("20.0.1.2"))
        node = self.behind(first, second)
        self.world.run(1)
        self.assertEqual(2, len(node.network.neighbours))
        self.assertEqual((State.UNKNOWN, True), self.states(node))

    def test_public_nodes_are_open(self):
        """Who is seen at its own address is open."""
        first = self.public(1)
        second = self.public(2, first)
        self.world.run(1)
        self.assertEqual((State.OPEN, False), self.states(second))

    def test_one_lying_observer(self):
        """A liar flags nobody, and the first honest observer ends even the doubt."""
        liar = Stranger(self.world.host("66.0.0.1"))
        liar.answers[Ping] = lambda ping: Pong(
            rid=ping.rid,
            attempt=ping.attempt,
            node_id=liar.node_id,
            token=b"l" * limits.TOKEN_BYTES,
            observed=Address("66.66.0.9", 9),
        )
        node = self.public(1, "66.0.0.1")
        self.world.run(1)
        self.assertEqual((State.UNKNOWN, True), self.states(node))
        honest = self.public(2)
        node.network.contact(honest.address)
        self.world.run(1)
        self.assertEqual((State.OPEN, False), self.states(node))

    def test_private_network(self):
        """Where all addresses are private nobody is ever flagged, NAT or not."""
        world = World(1)
        inside = world.host("192.168.1.2")
        NAT(world, "172.16.0.1", inside)
        others = [OverlayNode.on(world.host(f"10.0.{number}.1")) for number in range(3)]
        node = OverlayNode.on(inside, *others)
        world.run(1)
        self.assertEqual(3, len(node.network.neighbours))
        self.assertEqual((State.UNKNOWN, False), self.states(node))

    def test_forwarded_port(self):
        """The first stranger who calls ends the flag; from then on everybody names the node."""
        self.nat.forward(PORT, self.inside)
        entries = [self.public(number) for number in (1, 2)]
        node = self.behind(*entries)
        self.world.run(1)
        self.assertEqual(State.NATED, node.network.reach.ipv4.state)
        self.assertEqual([], self.known_from(entries[0], node.node.key.node_id))
        self.public(3, "50.1.0.1")
        self.world.run(1)
        self.assertEqual((State.OPEN, False), self.states(node))
        for entry in entries:
            named = self.known_from(entry, node.node.key.node_id)
            self.assertIn(NodeEntry(node.node.key.node_id, Address("50.1.0.1", PORT)), named)
        self.live(1000)
        self.assertEqual((State.OPEN, False), self.states(node))

    def test_answered_calls_prove_nothing(self):
        """Who calls back through a binding we opened is no stranger, though he lost our token."""
        entries = [self.public(number) for number in (1, 2)]
        node = self.behind(*entries)
        self.world.run(1)
        entries[0].host.restart()
        again = OverlayNode.on(entries[0].host)
        self.world.wait_for(again.network.contact(self.seen()))
        self.assertEqual(State.NATED, node.network.reach.ipv4.state)

    def test_token_of_an_earlier_life_proves_nothing(self):
        """Who pings with a token knew us before a restart: a binding towards him may be open."""
        self.nat.forward(PORT, self.inside)
        node = self.behind(self.public(1), self.public(2))
        self.world.run(1)
        caller = Stranger(self.world.host("40.0.0.1"))
        for token, state in ((b"earlier!", State.NATED), (NO_TOKEN, State.OPEN)):
            caller.ask(self.seen(), Ping(node_id=caller.node_id), token=token)
            self.assertEqual(state, node.network.reach.ipv4.state)


class InitiatorTests(NatCase):
    """A node behind a NAT looks for peers."""

    def setUp(self):
        super().setUp()
        self.entry = self.public(1)
        self.finder = self.public(2, self.entry)
        self.seed = self.public(3)
        self.world.run(1)
        self.world.wait_for(self.entry.network.contact(self.finder.address))
        self.seed.join(Status.SEED)
        self.finder.network.peers.put(
            TOPIC, self.seed.node.key.node_id, self.seed.address, Status.SEED, 0, self.world.now
        )

    def first_offer(self, *, warm: bool) -> float:
        """Return how long the first peer took, found by a finder we never spoke to."""
        node = self.behind(self.entry)
        if warm:
            self.world.run(1)
        start = self.world.now
        membership, self.peers_seen = node.join()
        self.world.run_until(lambda: self.peers_seen.offers, timeout=5)
        self.assertEqual([self.seed.address], self.peers_seen.offers)
        took = self.world.now - start
        self.world.run_until(lambda: membership.joined, timeout=5)
        return round(took, 6)

    def test_first_walk_brings_peers(self):
        """Query, query, offer, relayed offer: one way more than in the open, and no timeout."""
        self.assertEqual(round(4 * ONE_WAY_S, 6), self.first_offer(warm=True))
        self.assertEqual([], self.nat.dropped)

    def test_cold_start(self):
        """The ping before it brings all that is needed: one observer is enough to be careful."""
        self.assertEqual(round(6 * ONE_WAY_S, 6), self.first_offer(warm=False))
        self.assertEqual([], self.nat.dropped)

    def test_finder_hears_of_the_initiator(self):
        """A finder whose offer said all is not asked for more; it hears of us by the announce."""
        self.first_offer(warm=True)
        self.world.run(1)
        known = [peer.address for peer in self.finder.network.peers.entries(TOPIC)]
        self.assertIn(self.seen(), known)

    def test_finder_behind_another_nat(self):
        """A finder behind a NAT answers through the first hop too; what it names is joined."""
        other = self.world.host("192.168.2.2")
        nat = NAT(self.world, "50.2.0.1", other)
        entries = [self.public(number) for number in (8, 9)]
        self.finder.network.peers.remove(TOPIC, self.seed.address)
        finder = OverlayNode.on(other, self.entry, *entries)
        self.look_around(finder)
        self.live(limits.NAT_BINDING_S)
        finder.network.peers.put(
            TOPIC, self.seed.node.key.node_id, self.seed.address, Status.SEED, 0, self.world.now
        )
        for passing in (self.finder, *entries):  # only the entry can tell of the finder
            passing.host.crash()
        self.assertLess(self.first_offer(warm=True), limits.ITERATE_AFTER_S)
        self.assertEqual([], nat.dropped, "nobody calls a finder that no call can reach")

    def test_first_hop_behind_a_nat(self):
        """It cannot relay strangers' offers, so the query goes one hop further and no more."""
        other = self.world.host("192.168.2.2")
        nat = NAT(self.world, "50.2.0.1", other)
        nat.forward(8001, other)  # another port: the node on 7667 stays hidden
        hidden = OverlayNode.on(other, self.entry, self.seed)
        self.world.run(1)
        self.assertEqual(State.NATED, hidden.network.reach.ipv4.state)
        initiator = Stranger(self.world.host("40.0.0.1"))
        hidden.network.contact(initiator.address).addErrback(lambda _failure: None)
        self.world.run(1)
        where = self.seen(hidden, nat)
        start = len(self.world.trace)
        query = GetPeers(node_id=initiator.node_id, qid=initiator.qid(), topic=TOPIC, flags=8)
        initiator.ask(where, query, token=initiator.token(where))
        sizes = [r for r in self.world.trace[start:] if r.length == limits.GET_PEERS_BYTES]
        sources = [record.source[0] for record in sizes]
        self.assertIn("50.2.0.1", sources)
        self.assertNotIn(self.entry.address.host, sources)


class AdoptionTests(NatCase):
    """Others know a node behind a NAT, use it while they can, and name it to nobody."""

    def setUp(self):
        super().setUp()
        self.entries = [self.public(1)]
        self.entries += [self.public(number, self.entries[0]) for number in range(2, 6)]
        self.world.run(1)
        self.node = self.behind(*self.entries)
        self.look_around(self.node)
        self.node_id = self.node.node.key.node_id

    def test_it_is_named_to_nobody(self):
        """No find reply ever holds it, from its first datagram on."""
        for seconds in (0.1, 1, 10, 100):
            self.live(seconds)
            for entry in self.entries:
                named = [n.node_id for n in self.known_from(entry, self.node_id)]
                self.assertNotIn(self.node_id, named)
                known = entry.network.neighbours.get(self.seen())
                assert known is not None
                self.assertTrue(known.nat)

    def test_it_stores_nothing(self):
        """A member announces to the others only."""
        self.live(1)
        self.entries[0].join(Status.SEED)
        self.live(30)
        self.assertEqual(1, len(self.entries[1].network.peers.entries(TOPIC)))
        self.assertEqual([], self.node.network.peers.entries(TOPIC))

    def test_newcomer_stores_nothing(self):
        """Nor does a member with few storers announce to one that it meets later."""
        member = self.public(9)
        other = self.world.host("192.168.2.2")
        NAT(self.world, "50.2.0.1", other)
        membership, _ = member.join(Status.SEED)
        self.world.run(12)
        self.assertEqual({}, membership.joined)
        opened = self.public(10, member)
        hidden = OverlayNode.on(other, *self.entries, member)
        self.look_around(hidden)
        self.world.run(5)
        self.assertEqual(2, len(member.network.neighbours))
        stores = [len(node.network.peers.entries(TOPIC)) for node in (opened, hidden)]
        self.assertEqual([1, 0], stores)

    def test_one_entry_point_says_it_too(self):
        """A node with a single observer is not named either, once it has asked for peers."""
        other = self.world.host("192.168.2.2")
        nat = NAT(self.world, "50.2.0.1", other)
        entry = self.public(9)
        node = OverlayNode.on(other, entry)
        node.join()
        self.world.run(0.1)
        self.assertEqual(State.UNKNOWN, node.network.reach.ipv4.state)
        known = entry.network.neighbours.get(self.seen(node, nat))
        assert known is not None
        self.assertTrue(known.nat)
        self.assertEqual([], self.known_from(entry, node.node.key.node_id))

    def test_bindings_stay_open(self):
        """Ten minutes later its neighbours still reach it, and a walk through it finds peers."""
        self.live(600)
        self.assertEqual(
            {entry.address for entry in self.entries}, set(self.node.network.bindings.pinned)
        )
        self.assertEqual([], self.nat.dropped)
        seen = self.seen()
        for entry in self.entries:
            self.assertIn(seen, [c.address for c in entry.network.walk_candidates()])
        seed = self.public(20)
        seed.join(Status.SEED)
        self.node.network.peers.put(
            TOPIC, seed.node.key.node_id, seed.address, Status.SEED, 0, self.world.now
        )
        first, *others = self.entries
        for entry in others:  # the only way on from its first hop is the node behind the NAT
            for _ in range(limits.MISSES_DEAD):
                first.network.neighbours.missed(entry.address)
        newcomer = OverlayNode.on(self.world.host("20.0.21.1"), first)
        membership, found = newcomer.join()
        took = self.world.run_until(lambda: membership.joined, timeout=5)
        self.assertEqual([seed.address], found.offers)
        self.assertLess(took, limits.ITERATE_AFTER_S)

    def test_silent_bindings_are_not_used(self):
        """NAT_BINDING_S after its last word no walk goes to it; the entry itself stays a while."""
        self.live(1)
        network = self.entries[0].network
        seen = self.seen()
        self.inside.pause()
        self.world.run(limits.NAT_BINDING_S - 2)
        self.assertIn(seen, [c.address for c in network.walk_candidates()])
        self.world.run(3)
        self.assertNotIn(seen, [c.address for c in network.walk_candidates()])
        self.assertIsNotNone(network.neighbours.get(seen))

    def test_new_mapping_replaces_the_old(self):
        """A node whose NAT gave it another port is taken there once the old binding is gone."""
        self.live(1)
        old = self.seen()
        self.inside.pause()
        self.world.run(limits.NAT_BINDING_S + 1)
        self.inside.resume()
        self.live(limits.NAT_BINDING_S)
        new = self.seen()
        self.assertNotEqual(old, new)
        for entry in self.entries:
            known = entry.network.neighbours.get(new)
            assert known is not None
            self.assertTrue(known.nat)
            self.assertIsNone(entry.network.neighbours.get(old))


class PairTests(NatCase):
    """Two members behind two NATs, and a seed in the open."""

    def run_both(self, *, full_cone: bool) -> tuple[set[str], set[str]]:
        """Return the hosts each of the two has joined after two minutes."""
        entries = [self.public(1), self.public(2)]
        entries[0].join(Status.SEED)
        other = self.world.host("192.168.2.2")
        NAT(self.world, "50.2.0.1", other, full_cone=full_cone)
        first, second = self.behind(*entries), OverlayNode.on(other, *entries)
        self.look_around(second)
        theirs, _ = second.join()
        self.live(10)
        self.look_around(first)
        mine, _ = first.join()
        self.live(120)
        self.reach = second.network.reach.ipv4
        one, two = ({p.address.host for p in m.joined.values()} for m in (mine, theirs))
        return one, two

    def test_both_port_restricted(self):
        """Both join the open seed; each other they cannot reach, and nothing breaks."""
        mine, theirs = self.run_both(full_cone=False)
        self.assertEqual(({"20.0.1.1"}, {"20.0.1.1"}), (mine, theirs))
        self.assertEqual(State.NATED, self.reach.state)
        for node in self.nodes:
            self.assertEqual(0, node.node.dropped["bug"])

    def test_full_cone(self):
        """A NAT that lets everybody in is found out, and its node joined like any other."""
        mine, theirs = self.run_both(full_cone=True)
        self.assertEqual({"20.0.1.1", "50.2.0.1"}, mine)
        self.assertEqual({"20.0.1.1", "50.1.0.1"}, theirs)
        self.assertEqual(State.OPEN, self.reach.state)
        self.assertEqual("50.2.0.1", self.reach.translated)


class ServiceTests(NatCase):
    """The whole service."""

    def test_service_finds_out_and_remembers_only_who_can_be_called(self):
        """A service behind a NAT knows it; others do not save it among their neighbours."""
        entries = [Station.at(self.world, f"20.0.{number}.1") for number in (1, 2)]
        for entry in entries:
            entry.run()
        hidden = Station.at(self.world, "192.168.1.3")
        hidden.host.router = self.nat
        service = hidden.run(nodes=tuple(entries))
        self.world.run(30)
        self.assertEqual(State.NATED, service.overlay.network.reach.ipv4.state)
        tag = PUBLIC_NETWORK.tag
        self.assertEqual(2, len(service.upkeep.remember()[tag].neighbours))
        first = entries[0].service
        assert first is not None
        known = [entry.address.host for entry in first.overlay.network.neighbours]
        self.assertIn("50.1.0.1", known)
        self.assertNotIn(tag, first.upkeep.remember(), "it knows nobody who can be called")
        for station in (*entries, hidden):
            station.stop()


class OwnAddressTests(NatCase):
    """First hop and initiator behind one NAT."""

    def test_neighbour_at_our_host_is_carried(self):
        """Of our own outside address only the very port is ours."""
        self.nat.forward(PORT, self.inside)
        mate = self.world.host("192.168.1.3")
        mate.router = self.nat
        entry = self.public(1)
        first_hop = self.behind(entry)
        self.world.run(1)
        first_hop.network.contact(Address("50.1.0.1", PORT)).addErrback(lambda _failure: None)
        self.world.run(1)
        self.assertEqual([Address("50.1.0.1", PORT)], list(first_hop.network.own_addresses))
        entry.join(Status.SEED)
        node = OverlayNode.on(mate, "50.1.0.1")
        membership, seen = node.join()
        self.world.run_until(lambda: membership.joined, timeout=2)
        self.assertEqual("20.0.1.1", seen.events[0][1])

    def test_address_given_to_somebody_else(self):
        """An address at which another node proves itself is ours no more: its queries count."""
        first_hop = self.public(1)
        stranger = Stranger(self.world.host("40.0.0.1"))
        first_hop.network.own_addresses[stranger.address] = None
        first_hop.join(Status.SEED)
        token = stranger.befriend(first_hop.address)
        query = GetPeers(node_id=NodeID(bytes(ID_BYTES)), qid=stranger.qid(), topic=TOPIC)
        self.assertIsNotNone(stranger.ask(first_hop.address, query, token=token))
        self.assertEqual({}, first_hop.network.own_addresses)
