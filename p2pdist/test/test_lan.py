"""LAN discovery: hails through the simulated multicast, and who answers them."""

from __future__ import annotations

from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import HashKey, Topic
from p2pdist.keys import NetworkKeys, topic_of
from p2pdist.overlay.envelope import Envelope
from p2pdist.overlay.lan import ANSWERS_WANTED, PREFIX_BYTES, LANDiscovery
from p2pdist.overlay.messages import (
    Hail,
    Ping,
    Status,
)
from p2pdist.overlay.wire import encode
from p2pdist.test.network import Host, World
from p2pdist.test.overlayworld import KEY, OverlayNode, lan
from p2pdist.test.support import TestCase

TOPIC = topic_of(KEY)


class Hearer:
    """An overlay node with LAN discovery."""

    def __init__(self, host: Host, *, start: bool = True, interfaces=None) -> None:
        self.node = OverlayNode.on(host)
        self.offered: list[tuple[Topic, Address]] = []
        self.lan = LANDiscovery(
            self.node.network,
            host.reactor,
            host.rng,
            limits.DEFAULT_PORT,
            host.addresses if interfaces is None else interfaces,
            lambda topic, address: self.offered.append((topic, address)),
        )
        if start:
            self.lan.start()


def hails(world: World) -> list[float]:
    """Return when datagrams went to the group."""
    return [r.time for r in world.trace if r.target == (limits.LAN_GROUP, limits.LAN_PORT)]


def pinged(world: World) -> set[str]:
    """Return who was pinged at its own port."""
    return {r.target[0] for r in world.trace if r.length == limits.PING_BYTES}


class MeetingTests(TestCase):
    """Two machines and no address."""

    def test_nodes_find_each_other(self) -> None:
        """A newcomer's hail is answered by a ping: both are neighbours."""
        world, (a, b) = lan(count=2)
        one, two = Hearer(a), Hearer(b)
        took = world.run_until(
            lambda: len(one.node.network.neighbours) and len(two.node.network.neighbours), timeout=5
        )
        self.assertLess(took, limits.LAN_FIRST_S[-1] + 1)

    def test_shared_content_is_offered(self) -> None:
        """Who has the same content takes the caller for a candidate, whatever the chance."""
        world, (a, b) = lan(count=2)
        one, two = Hearer(a), Hearer(b)
        one.node.join(Status.SEED)
        two.node.join(Status.LEECH)
        world.run(limits.LAN_FIRST_S[1] + limits.LAN_ANSWER_S + 0.1)
        self.assertEqual([(TOPIC, two.node.address)], one.offered)
        self.assertEqual([(TOPIC, one.node.address)], two.offered)

    def test_content_that_comes_after_the_first_hail(self) -> None:
        """A stranger's hail does not use up the turn of the one that names a shared content."""
        world, (a, b) = lan(count=2)
        one, two = Hearer(a), Hearer(b)
        one.node.join(Status.SEED)
        world.run(10)
        self.assertEqual([], one.offered)
        two.node.join(Status.LEECH)
        two.lan.hail_soon()
        world.run(1)
        self.assertEqual([(TOPIC, two.node.address)], one.offered)

    def test_hails_come_in_time(self) -> None:
        """At LAN_FIRST_S, then about every LAN_EVERY_S, and again when a content comes."""
        world, (a,) = lan(count=1)
        hearer = Hearer(a)
        hearer.lan.hail_soon()
        world.run(5)
        self.assertEqual(list(limits.LAN_FIRST_S), hails(world))
        world.run(limits.LAN_EVERY_S * (1 + limits.ANNOUNCE_JITTER))
        self.assertEqual(4, len(hails(world)))
        self.assertGreater(hails(world)[3], limits.LAN_EVERY_S * (1 - limits.ANNOUNCE_JITTER))
        hearer.lan.hail_soon()
        world.run(5)
        self.assertEqual(7, len(hails(world)))

    def test_hail_is_bounded(self) -> None:
        """LAN_TOPICS contents are named in one datagram, chosen anew each time."""
        world, (a,) = lan(count=1)
        hearer = Hearer(a, start=False)
        for number in range(limits.LAN_TOPICS + 10):
            hearer.node.join(key=HashKey(number.to_bytes(32, "big")))
        hearer.lan.start()
        world.run(1)
        lengths = {r.length for r in world.trace if r.target[0] == limits.LAN_GROUP}
        (length,) = lengths
        self.assertLess(length, 2 * limits.ENVELOPE_BYTES + limits.LAN_TOPICS * PREFIX_BYTES)
        self.assertGreater(length, limits.LAN_TOPICS * PREFIX_BYTES)

    def test_stop_leaves_nothing(self) -> None:
        """No timer, no socket; stopping what never ran, or twice, is fine."""
        world, (a, b) = lan(count=2)
        one, two = Hearer(a), Hearer(b)
        world.run_until(lambda: two.lan._answers, timeout=5)
        for hearer in (one, two):
            hearer.lan.stop()
            hearer.lan.stop()
            hearer.lan.hail_soon()
            hearer.node.stop()
        world.run(1)
        for host in (a, b):
            self.assertEqual(0, len(host.reactor.getDelayedCalls()))
            self.assertEqual(1, len(host.reactor.getReaders()))

    def test_without_interfaces_it_does_nothing(self) -> None:
        """No private address: no socket, no hail."""
        world, (a,) = lan(count=1)
        Hearer(a, interfaces=())
        world.run(10)
        self.assertEqual([], world.trace)

    def test_port_in_use_turns_it_off(self) -> None:
        """A machine where the group's port cannot be opened goes on without."""
        world, (a,) = lan(count=1)
        first = Hearer(a, start=False)
        a.reactor.listenUDP(limits.LAN_PORT, first.node.node.add_socket("0.0.0.0"))
        first.lan.start()
        first.lan.hail_soon()
        world.run(10)
        self.assertEqual([], hails(world))
        first.lan.stop()


class HostileTests(TestCase):
    """Datagrams on the group's port."""

    def setUp(self) -> None:
        """Start a member with LAN discovery."""
        self.world, (a, self.b) = lan(count=2)
        self.hearer = Hearer(a)
        self.hearer.node.join(Status.SEED)
        self.envelope = Envelope(self.hearer.node.network.keys, self.b.entropy)
        self.world.run(6)

    def hail(self, source: str, *topics: Topic, port: int = 7667, envelope=None) -> None:
        """Deliver a hail from ``source``."""
        message = Hail(port=port, topics=tuple(topic[:PREFIX_BYTES] for topic in topics))
        self.hearer.lan.heard((envelope or self.envelope).seal(encode(message)), Address(source, 1))

    def test_one_hail_a_minute_and_source(self) -> None:
        """Further hails within LAN_PER_SOURCE_S are ignored."""
        for _ in range(5):
            self.hail("10.0.0.9", TOPIC)
            self.world.run(1)
        self.assertEqual(1, len(self.hearer.offered))
        self.world.run(limits.LAN_PER_SOURCE_S)
        self.hail("10.0.0.9", TOPIC)
        self.world.run(1)
        self.assertEqual(2, len(self.hearer.offered))

    def test_answer_waits_a_little(self) -> None:
        """Answers are spread over LAN_ANSWER_S."""
        for number in range(1, 30):
            self.hail(f"10.0.0.{number + 10}", TOPIC)
        self.assertEqual([], self.hearer.offered)
        self.world.run(limits.LAN_ANSWER_S / 2)
        self.assertIn(len(self.hearer.offered), range(5, 25))
        self.world.run(limits.LAN_ANSWER_S / 2)
        self.assertEqual(29, len(self.hearer.offered))

    def test_strangers_are_answered_by_chance(self) -> None:
        """About ANSWERS_WANTED of the nodes that hear a stranger answer, not all."""
        for number in range(400):
            self.hail(f"10.1.{number // 200}.{number % 200 + 1}")
        self.world.run(1)
        answered = {host for host in pinged(self.world) if host.startswith("10.1.")}
        self.assertGreater(len(answered), ANSWERS_WANTED)
        self.assertLess(len(answered), 12 * ANSWERS_WANTED)

    def test_silent_strangers_are_left_alone(self) -> None:
        """An address in the negative cache is not pinged again."""
        self.hearer.node.network.guard.silent.add(Address("10.0.0.9", 7667), self.world.now)
        self.hail("10.0.0.9")
        self.world.run(1)
        self.assertEqual(set(), pinged(self.world))

    def test_sources_are_bounded(self) -> None:
        """LAN_SOURCES are remembered, and no more answers than that wait."""
        for number in range(limits.LAN_SOURCES + 200):
            self.hail(f"10.2.{number // 200}.{number % 200 + 1}", TOPIC)
        self.assertLessEqual(len(self.hearer.lan._sources), limits.LAN_SOURCES)
        self.assertLessEqual(len(self.hearer.lan._answers), limits.LAN_SOURCES)
        self.world.run(1)

    def test_source_forgotten_by_a_flood_is_answered_once(self) -> None:
        """Hails that push a waiting answer out of memory cannot start it twice."""
        self.hail("10.0.0.9", TOPIC)
        self.hearer.lan._sources.clear()
        self.hail("10.0.0.9", TOPIC)
        self.world.run(1)
        self.assertEqual(1, len(self.hearer.offered))

    def test_global_sources_are_ignored(self) -> None:
        """Nobody on the Internet speaks through the LAN's group."""
        self.hail("8.8.8.8", TOPIC)
        self.world.run(1)
        self.assertEqual([], self.hearer.offered)

    def test_foreign_networks_are_ignored(self) -> None:
        """A hail of another network, or one sealed with another key, does nothing."""
        foreign = Envelope(NetworkKeys.from_secret(b"s" * 32), self.b.entropy)
        self.hail("10.0.0.9", TOPIC, envelope=foreign)
        dropped = self.hearer.node.network.dropped
        count = sum(dropped.values())
        self.hearer.lan.heard(b"junk", Address("10.0.0.9", 1))
        self.hearer.lan.heard(self.envelope.seal(b"\xc1"), Address("10.0.0.9", 1))
        self.world.run(1)
        self.assertEqual([], self.hearer.offered)
        self.assertEqual(count + 2, sum(dropped.values()))

    def test_other_messages_and_ports_are_ignored(self) -> None:
        """Only hails count, and a port of 0 is nobody's."""
        ping = encode(Ping(node_id=self.hearer.node.node.key.node_id))
        self.hearer.lan.heard(self.envelope.seal(ping), Address("10.0.0.9", 1))
        self.hail("10.0.0.9", TOPIC, port=0)
        self.world.run(1)
        self.assertEqual([], self.hearer.offered)

    def test_dead_interface_costs_only_itself(self) -> None:
        """An interface that cannot multicast is logged; the hail goes out on the others."""
        before = len(hails(self.world))
        socket = self.hearer.lan._socket
        assert socket is not None
        socket.interfaces = ("not an address", "10.0.0.1")
        socket.hail(b"x")
        self.world.run(1)
        self.hearer.lan.cannot_join(Failure(OSError("no multicast")), "10.0.0.7")
        self.assertEqual(before + 1, len(hails(self.world)))
