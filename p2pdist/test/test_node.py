"""The node's sockets: what comes in never raises, what goes out takes the right socket."""

from __future__ import annotations

from hypothesis import strategies as st
from twisted.internet.error import MessageLengthError

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.errors import ConfigurationError, RequestTimedOut
from p2pdist.ids import NodeID
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, NodeKey
from p2pdist.overlay.envelope import HEADER_BYTES, Envelope
from p2pdist.overlay.messages import (
    Ping,
    Pong,
)
from p2pdist.overlay.node import Node, NodeSocket
from p2pdist.overlay.wire import encode
from p2pdist.test.network import World
from p2pdist.test.overlayworld import OverlayNode, lan
from p2pdist.test.stranger import Stranger
from p2pdist.test.strategies import hostile_msgpack, mutations
from p2pdist.test.support import TestCase, given

PRIVATE = NetworkKeys.from_secret(b"s" * 32)


class FakeTransport:
    """Records writes; raises what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.written: list[tuple[str, int]] = []
        self.error = error

    def write(self, _datagram: bytes, address: tuple[str, int]) -> None:
        """Record it."""
        if self.error is not None:
            raise self.error
        self.written.append(address)


def node_of(world: World, host=None, wall=None) -> Node:
    """Return a node without sockets."""
    host = host or world.host("10.0.0.1")
    wall = wall or host.reactor.seconds
    return Node(NodeKey.from_seed(bytes(32)), host.reactor, host.rng, host.entropy, wall)


class JunkTests(TestCase):
    """Datagrams that are none of ours."""

    def setUp(self) -> None:
        """Start a node and a stranger."""
        self.world, (a, b) = lan(count=2)
        self.node = OverlayNode.on(a)
        self.stranger = Stranger(b)

    def deliver(self, datagram: bytes, source: tuple[str, int] = ("10.0.0.2", 7667)) -> None:
        """Give a datagram to the node's protocol."""
        (socket,) = self.node.node._sockets
        socket.datagramReceived(datagram, source)

    @given(st.binary(max_size=1400))
    def test_junk_never_raises(self, junk: bytes) -> None:
        """Any bytes are dropped and counted."""
        before = sum(self.node.node.dropped.values())
        self.deliver(junk)
        self.assertEqual(before + 1, sum(self.node.node.dropped.values()))

    @given(hostile_msgpack().filter(lambda payload: 0 < len(payload) <= limits.PAYLOAD_BYTES))
    def test_hostile_payloads_never_raise(self, payload: bytes) -> None:
        """Well-sealed nonsense is dropped by the network, not by accident."""
        self.deliver(self.stranger.envelope.seal(payload))
        self.assertEqual(0, self.node.node.dropped["bug"])

    @given(st.data())
    def test_mutated_datagrams_never_raise(self, data: st.DataObject) -> None:
        """One changed byte anywhere in a sealed ping breaks the seal, or the header."""
        whole = self.stranger.envelope.seal(encode(Ping(node_id=self.stranger.node_id)))
        before = len(self.world.trace)
        self.deliver(data.draw(mutations(whole)))
        self.assertEqual(0, self.node.node.dropped["bug"])
        sent = [record.length for record in self.world.trace[before:]]
        self.assertTrue(all(length == HEADER_BYTES for length in sent), sent)

    def test_rules_are_counted_by_name(self) -> None:
        """Short, truncated, oversized, foreign: each has its counter."""
        whole = self.stranger.envelope.seal(encode(Ping(node_id=self.stranger.node_id)))
        self.deliver(whole[: HEADER_BYTES - 1])
        self.deliver(whole[:-1])
        self.deliver(whole + bytes(limits.DATAGRAM_BYTES))
        self.deliver(b"\0" + whole[1:])
        self.deliver(whole, ("10.0.0.2", 0))
        self.deliver(whole, ("224.0.0.1", 9))
        dropped = self.node.node.dropped
        for rule in ("datagram-short", "datagram-size", "datagram-magic"):
            self.assertEqual(1, dropped[rule], rule)
        self.assertEqual(2, dropped["source-unusable"])
        self.assertEqual(1, self.node.network.dropped["seal"])

    def test_foreign_network_gets_a_notice(self) -> None:
        """A datagram of another network is answered by 30 bytes, RATE_CHALLENGE times."""
        foreign = Stranger(self.world.host("10.0.0.3"), PRIVATE)
        for _ in range(30):
            foreign.send(self.node.address, Ping(node_id=foreign.node_id))
        self.world.run(0.1)
        self.assertEqual(int(limits.RATE_CHALLENGE[1]), len(foreign.notices))
        self.assertEqual(30, self.node.node.dropped["network-unknown"])
        self.assertEqual([], foreign.received)

    def test_notice_is_believed_for_own_datagrams_only(self) -> None:
        """Who gets a notice about what it sent learns that; forged notices say nothing."""
        told: list[Address] = []
        private = OverlayNode.on(self.world.host("10.0.0.3"), keys=PRIVATE)
        private.network.wrong_network.append(told.append)
        private.network.contact(self.node.address).addErrback(
            lambda failure: failure.trap(RequestTimedOut)
        )
        self.world.run(3)
        self.assertEqual({self.node.address}, set(told))
        count = len(told)
        datagram = Envelope(PRIVATE, self.stranger.host.entropy).seal(b"x")
        forged = datagram[:1] + b"\0" + datagram[2:HEADER_BYTES]
        self.stranger.send_raw(private.address, forged)
        self.world.run(1)
        self.assertEqual(count, len(told))

    def test_notice_for_a_network_not_served_is_ignored(self) -> None:
        """No answer to a notice, whatever its tag: two nodes cannot be set on each other."""
        datagram = Envelope(PRIVATE, self.stranger.host.entropy).seal(b"x")
        before = len(self.world.trace)
        self.stranger.send_raw(self.node.address, datagram[:1] + b"\0" + datagram[2:HEADER_BYTES])
        self.world.run(1)
        self.assertEqual(before + 1, len(self.world.trace))

    def test_bug_of_ours_costs_no_socket(self) -> None:
        """An unexpected exception is logged, LOG_PER_KIND times at most, and work goes on."""

        def broken(address: Address) -> None:
            raise RuntimeError(str(address))

        self.node.network.neighbour_found.append(broken)
        (socket,) = self.node.node._sockets
        for number in range(limits.LOG_PER_KIND + 5):
            source = Address("10.0.0.2", 1000 + number)
            token = self.node.network.guard.mint.token(source, self.world.now)
            own = NodeID(self.stranger.node_id[:-1] + bytes([number]))
            ping = Ping(node_id=own, token=token)
            socket.datagramReceived(self.stranger.envelope.seal(encode(ping)), source)
        self.assertEqual(limits.LOG_PER_KIND, len(self.flushLoggedErrors(RuntimeError)))
        self.assertEqual(limits.LOG_PER_KIND + 5, self.node.node.dropped["bug"])
        self.node.network.neighbour_found.clear()
        self.assertIsInstance(
            self.stranger.ask(self.node.address, Ping(node_id=self.stranger.node_id)), Pong
        )

    def test_stopped_node_is_deaf(self) -> None:
        """After stop nothing is answered."""
        self.node.stop()
        reply = self.stranger.ask(self.node.address, Ping(node_id=self.stranger.node_id))
        self.assertIsNone(reply)


class SocketTests(TestCase):
    """Which socket a datagram takes."""

    def sockets(self, *interfaces: str, error: Exception | None = None):
        """Return a node and its sockets with fake transports."""
        node = node_of(World(1))
        made = [node.add_socket(interface) for interface in interfaces]
        for socket in made:
            socket.transport = FakeTransport(error)  # type: ignore[assignment]
        return node, made

    def test_dual_stack_socket_maps_ipv4(self) -> None:
        """One :: socket serves both families; mapped addresses stay at its edge."""
        world = World(1)
        both = world.host("10.0.0.1", "fd00::1")
        node = OverlayNode.on(both, interface="::")
        four, six = Stranger(world.host("10.0.0.2")), Stranger(world.host("fd00::2"))
        pong4 = four.ask(Address("10.0.0.1", 7667), Ping(node_id=four.node_id))
        pong6 = six.ask(Address("fd00::1", 7667), Ping(node_id=six.node_id))
        self.assertEqual(four.address, pong4.observed)
        self.assertEqual(six.address, pong6.observed)
        four.polite = six.polite = True
        world.wait_for(node.network.contact(four.address))
        world.wait_for(node.network.contact(six.address))
        self.assertEqual({four.address, six.address}, {n.address for n in node.network.neighbours})

    def test_mapped_addresses_go_out_mapped(self) -> None:
        """An IPv6 socket is given ::ffff:a.b.c.d, an IPv4 socket plain text."""
        node, (six,) = self.sockets("::")
        node.transmit(b"x", Address("10.0.0.2", 1))
        node.transmit(b"x", Address("fd00::2", 2))
        self.assertEqual([("::ffff:10.0.0.2", 1), ("fd00::2", 2)], six.transport.written)

    def test_socket_of_the_family_is_chosen(self) -> None:
        """IPv4 and IPv6 sockets each get theirs; without one the datagram is counted."""
        node, (four, six) = self.sockets("10.0.0.1", "fd00::1")
        node.transmit(b"x", Address("10.0.0.2", 1))
        node.transmit(b"x", Address("fd00::2", 2))
        self.assertEqual([("10.0.0.2", 1)], four.transport.written)
        self.assertEqual([("fd00::2", 2)], six.transport.written)
        node, _ = self.sockets("10.0.0.1")
        node.transmit(b"x", Address("fd00::2", 2))
        self.assertEqual(1, node.dropped["no-socket"])

    def test_loopback_socket_is_for_loopback(self) -> None:
        """A socket bound to loopback sends to loopback only if another can send elsewhere."""
        node, (local, far) = self.sockets("127.0.0.1", "10.0.0.1")
        node.transmit(b"x", Address("10.0.0.2", 1))
        node.transmit(b"x", Address("127.0.0.2", 2))
        self.assertEqual([("127.0.0.2", 2)], local.transport.written)
        self.assertEqual([("10.0.0.2", 1)], far.transport.written)
        node, (wild, _) = self.sockets("0.0.0.0", "127.0.0.1")
        node.transmit(b"x", Address("10.0.0.2", 1))
        self.assertEqual([("10.0.0.2", 1)], wild.transport.written)

    def test_answer_leaves_where_the_question_came_in(self) -> None:
        """With several sockets an address is answered on the one it was last heard on."""
        world = World(1)
        host = world.host("10.0.0.1", "10.0.1.1")
        node = node_of(world, host)
        node.add_network(PUBLIC_NETWORK)
        for interface in host.addresses:
            host.reactor.listenUDP(7667, node.add_socket(interface), interface=interface)
        stranger = Stranger(world.host("10.0.1.2"))
        for interface in host.addresses:
            stranger.ask(Address(interface, 7667), Ping(node_id=stranger.node_id))
        self.assertEqual(["10.0.0.1", "10.0.1.1"], [s.host for _, s in stranger.received])

    def test_remembered_sockets_are_bounded(self) -> None:
        """SOCKET_MEMORY addresses are remembered, the last ones."""
        node, (one, _) = self.sockets("10.0.0.1", "10.0.1.1")
        node.add_network(PUBLIC_NETWORK)
        world = World(2)
        ping = Ping(node_id=NodeKey.from_seed(b"1" * 32).node_id)
        datagram = Envelope(PUBLIC_NETWORK, world.host("10.0.0.9").entropy).seal(encode(ping))
        for number in range(limits.SOCKET_MEMORY + 3):
            source = (f"10.7.{number >> 8}.{number & 255}", 1000)
            one.datagramReceived(datagram, source)
        self.assertEqual(limits.SOCKET_MEMORY, len(node._heard_on))

    def test_the_socket_itself_is_used(self) -> None:
        """On a real port datagrams go straight to its socket, until it is closed."""
        world = World(1)
        host = world.host("10.0.0.1")
        there = Stranger(world.host("10.0.0.2"))
        socket = node_of(world, host).add_socket("10.0.0.1")
        port = host.reactor.listenUDP(7667, socket, interface="10.0.0.1")
        transport = FakeTransport()
        self.patch(socket, "transport", transport)
        ping = encode(Ping(node_id=there.node_id))
        datagram = Envelope(PUBLIC_NETWORK, host.entropy).seal(ping)
        socket.send(datagram, there.address)
        world.run(1.0)
        self.assertEqual(len(datagram), there.bytes_received)
        self.assertEqual([], transport.written)
        port.stopListening()
        world.run(1.0)
        socket.send(datagram, there.address)
        world.run(1.0)
        self.assertEqual(len(datagram), there.bytes_received)

    def test_refused_sends_are_counted(self) -> None:
        """What the kernel refuses is lost as any datagram may be."""
        for error in (OSError(101, "no route"), MessageLengthError("too long")):
            node, _ = self.sockets("0.0.0.0", error=error)
            node.transmit(b"x", Address("10.0.0.2", 1))
            self.assertEqual(1, node.dropped["send-failed"])
        NodeSocket(node, "0.0.0.0").send(b"x", Address("10.0.0.2", 1))

    def test_number_of_sockets_is_bounded(self) -> None:
        """More than SOCKETS is a configuration error; forgotten ones do not count."""
        node, _ = self.sockets(*["10.0.0.1"] * limits.SOCKETS)
        self.assertRaises(ConfigurationError, node.add_socket, "10.0.0.2")
        node.forget_sockets()
        node.add_socket("10.0.0.2")

    def test_number_of_networks_is_bounded(self) -> None:
        """More than NETWORKS is a configuration error; a known one is given again."""
        node = node_of(World(1))
        made = [
            node.add_network(NetworkKeys.from_secret(bytes([number]) * 32))
            for number in range(limits.NETWORKS)
        ]
        self.assertEqual(made, node.networks)
        self.assertIs(made[3], node.add_network(NetworkKeys.from_secret(b"\3" * 32)))
        self.assertRaises(ConfigurationError, node.add_network, PUBLIC_NETWORK)


class ClockTests(TestCase):
    """The boot id and the clock."""

    def boots(self, *pauses: float) -> list[bool]:
        """Return for each pause between two upkeeps whether the boot id changed."""
        world = World(1)
        host = world.host("10.0.0.1")
        node = node_of(world, host)
        network = node.add_network(PUBLIC_NETWORK)
        node.upkeep()
        changed = []
        for pause in pauses:
            before = network.envelope.boot_id
            world.now += pause
            node.upkeep()
            changed.append(network.envelope.boot_id != before)
        return changed

    def test_usual_and_late_ticks_keep_the_boot_id(self) -> None:
        """A tick may be early, or late by less than CLOCK_JUMP_S."""
        late = limits.UPKEEP_EVERY_S + limits.CLOCK_JUMP_S
        self.assertEqual([False] * 3, self.boots(limits.UPKEEP_EVERY_S, 0.0, late - 0.01))

    def test_restored_snapshot_shows_in_the_time_of_day(self) -> None:
        """The steady clock of a restored snapshot goes on as if nothing was; the wall's jumps."""
        world = World(1)
        jump = 0.0
        host = world.host("10.0.0.1")
        node = node_of(world, host, wall=lambda: world.now + jump)
        network = node.add_network(PUBLIC_NETWORK)
        node.upkeep()
        before = network.envelope.boot_id
        world.now += limits.UPKEEP_EVERY_S
        node.upkeep()
        self.assertEqual(before, network.envelope.boot_id)
        jump = 3600.0
        world.now += limits.UPKEEP_EVERY_S
        node.upkeep()
        self.assertNotEqual(before, network.envelope.boot_id)

    def test_clock_that_jumps_renews_it(self) -> None:
        """Forward or backward: a restored snapshot must not use its nonces twice."""
        late = limits.UPKEEP_EVERY_S + limits.CLOCK_JUMP_S
        self.assertEqual([True, True], self.boots(late + 0.01, -1.0))
