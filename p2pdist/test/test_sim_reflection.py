"""Promise 2 in the simulated network: the overlay is no weapon (decision 9).

A victim outside the overlay counts what arrives; attackers count what they spent. Lengths are
datagram bytes, envelopes included.
"""

from __future__ import annotations

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.keys import topic_of
from p2pdist.overlay.messages import (
    Challenge,
    Flag,
    Forwarded,
    GetPeers,
    Offer,
    Status,
)
from p2pdist.test.network import World
from p2pdist.test.overlayworld import KEY, OverlayNode
from p2pdist.test.stranger import Stranger
from p2pdist.test.support import TestCase

TOPIC = topic_of(KEY)
NODES = 20
QUERIES = 10_000
HOPS = (0, 1, 5)


@define(eq=False)
class Arena:
    """Twenty nodes on the Internet, some of them peers, an attacker and a victim."""

    world: World
    nodes: list[OverlayNode]
    attacker: Stranger
    victim: Stranger
    tokens: dict[Address, bytes] = field(factory=dict)

    @classmethod
    def build(cls, seed: int) -> Arena:
        """Let the overlay form; peers announce themselves."""
        world = World(seed)
        world.link(delay=(0.005, 0.03))
        nodes: list[OverlayNode] = []
        for number in range(NODES):
            host = world.host(f"93.{number}.7.1")
            nodes.append(OverlayNode.on(host, *nodes[:2]))
            if number % 3 == 0:
                nodes[-1].join(Status.SEED)
        world.run(20)
        attacker = Stranger(world.host("81.2.3.4"))
        victim = Stranger(world.host("198.41.0.4"))
        arena = cls(world, nodes, attacker, victim)
        world.after_event.append(arena.check)
        return arena

    def check(self) -> None:
        """Never, at no moment, has the victim received more than the attacker sent."""
        received, spent = self.victim.bytes_received, self.attacker.bytes_sent
        assert received <= spent, f"{received} bytes for {spent}"

    def meet(self) -> None:
        """Let the attacker prove its own address to every node, as any neighbour does."""
        for node in self.nodes:
            self.tokens[node.address] = self.attacker.befriend(node.address)
        self.attacker.polite = True

    def query(self, number: int, **fields) -> GetPeers:
        """Return a forged get_peers, every third one wide."""
        wide = number % 3 == 0
        units = limits.GET_PEERS_WIDE_UNITS if wide else limits.GET_PEERS_UNITS
        made = {"units": units, "wide": wide, "hops": HOPS[number % len(HOPS)], **fields}
        return GetPeers(
            node_id=self.attacker.node_id,
            rid=number.to_bytes(8, "big"),
            qid=self.attacker.qid(),
            topic=TOPIC,
            **made,
        )

    def target(self, number: int) -> Address:
        """Return the node that gets query ``number``."""
        return self.nodes[number % NODES].address


class ReflectionTests(TestCase):
    """10,000 forged queries, 2,500 of each kind."""

    def attack(self, arena: Arena, send) -> None:
        """Send a quarter of the queries over 100 seconds and let the echoes end."""
        count = QUERIES // 4
        for number in range(count):
            send(number)
            arena.world.run(100 / count)
        arena.world.run(15)

    def test_origin_in_the_body_without_a_token(self) -> None:
        """Who proved nothing makes nobody send anything to a third party."""
        arena = Arena.build(1)
        address = arena.victim.address

        def send(number: int) -> None:
            query = arena.query(number, src=address, via=address, flags=Flag.VIA | Flag.PAIR)
            arena.attacker.send(arena.target(number), query)

        self.attack(arena, send)
        self.assertEqual(0, arena.victim.bytes_received)
        self.assertTrue(arena.attacker.heard(Challenge))
        self.assertEqual([], arena.attacker.heard(Forwarded))

    def test_forged_source(self) -> None:
        """A forged UDP source draws challenges only, each smaller than what caused it."""
        arena = Arena.build(2)

        def send(number: int) -> None:
            query = arena.query(number, src=arena.victim.address)
            arena.attacker.forge(arena.victim.address, arena.target(number), query)

        self.attack(arena, send)
        kinds = {type(message) for message, _ in arena.victim.received}
        self.assertEqual({Challenge}, kinds)
        self.assertLess(arena.victim.bytes_received, arena.attacker.bytes_sent / 5)

    def test_neighbour_that_forges_the_origin(self) -> None:
        """A token-holding neighbour gets at most what it spends to the victim, at any hop count."""
        arena = Arena.build(3)
        arena.meet()

        def send(number: int) -> None:
            target = arena.target(number)
            query = arena.query(number, src=arena.victim.address, token=arena.tokens[target])
            arena.attacker.send(target, query)

        self.attack(arena, send)
        self.assertTrue(arena.victim.heard(Offer), "the attack has to reach its victim at all")
        self.assertTrue(arena.attacker.heard(Offer), "with 0 hops the origin is the sender")
        rate, burst = limits.RATE_OFFER
        offers = 2 * NODES * (rate * 120 + burst)  # each may be repeated once
        self.assertLessEqual(len(arena.victim.heard(Offer)), offers)

    def test_neighbour_that_forges_the_relay(self) -> None:
        """Naming the victim as the relay of a private origin gains nothing either."""
        arena = Arena.build(4)
        arena.meet()

        def send(number: int) -> None:
            target = arena.target(number)
            query = arena.query(
                number,
                src=Address("10.1.2.3", 7667),
                via=arena.victim.address,
                flags=Flag.VIA | Flag.PAIR,
                token=arena.tokens[target],
            )
            arena.attacker.send(target, query)

        self.attack(arena, send)
        kinds = {type(message) for message, _ in arena.victim.received}
        self.assertLessEqual(kinds, {Offer})


class SingleQueryTests(TestCase):
    """What one datagram may cause."""

    def test_one_query_pays_for_its_offers(self) -> None:
        """One forged query brings the victim fewer bytes than it had, OFFER_BYTES per unit."""
        for wide, units in (
            (False, limits.GET_PEERS_UNITS),
            (True, limits.GET_PEERS_WIDE_UNITS),
        ):
            for hops in HOPS[1:]:
                arena = Arena.build(5)
                arena.meet()
                target = arena.nodes[1].address  # no peer: it passes the query on
                before = arena.attacker.bytes_sent
                query = arena.query(
                    0,
                    src=arena.victim.address,
                    hops=hops,
                    token=arena.tokens[target],
                    wide=wide,
                    units=units,
                )
                size = arena.attacker.send(target, query)
                arena.world.run(10)
                self.assertLessEqual(arena.victim.bytes_received, size)
                self.assertLessEqual(len(arena.victim.received), units)
                self.assertLessEqual(arena.victim.bytes_received, units * limits.OFFER_BYTES)
                self.assertGreaterEqual(arena.attacker.bytes_sent - before, size)

    def test_query_without_units_causes_nothing(self) -> None:
        """Without reply units nobody answers."""
        arena = Arena.build(6)
        arena.meet()
        for number, node in enumerate(arena.nodes):
            query = arena.query(
                number,
                src=arena.victim.address,
                hops=3,
                units=0,
                token=arena.tokens[node.address],
            )
            arena.attacker.send(node.address, query)
        arena.world.run(10)
        self.assertEqual(0, arena.victim.bytes_received)
