"""Tests of the simulated network: faults, hosts, determinism, scale."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Factory, Protocol
from twisted.internet.task import LoopingCall

from p2pdist.test.network import Host, Link, Record, World
from p2pdist.test.support import TestCase
from p2pdist.test.test_simudp import open_udp


class FaultTests(TestCase):
    """What links and partitions do to datagrams."""

    def setUp(self):
        self.world = World(3)
        self.hosts = [self.world.host(f"10.0.0.{n}") for n in (1, 2, 3)]
        self.a, self.b, self.c = self.hosts
        self.inboxes = [open_udp(host) for host in self.hosts]

    def send(self, source: int, target: int, data: bytes = b"x", count: int = 1) -> list[bytes]:
        """Send between hosts by number, wait, and return what came."""
        inbox = self.inboxes[target]
        inbox.received.clear()
        for _ in range(count):
            self.inboxes[source].transport.write(data, (self.hosts[target].name, 7667))
        self.world.run(5)
        return inbox.data

    def test_loss(self):
        """About the asked share is lost."""
        self.world.link(loss=0.3)
        self.assertTrue(600 < len(self.send(0, 1, count=1000)) < 800)

    def test_duplicate(self):
        """Every datagram comes twice."""
        self.world.link(duplicate=1.0)
        self.assertEqual(20, len(self.send(0, 1, count=10)))

    def test_reorder(self):
        """Held back datagrams arrive behind later ones."""
        self.world.link(reorder=0.5)
        inbox = self.inboxes[1]
        for number in range(20):
            self.inboxes[0].transport.write(bytes([number]), ("10.0.0.2", 7667))
        self.world.run(5)
        self.assertNotEqual(sorted(inbox.data), inbox.data)
        self.assertEqual(20, len(inbox.data))

    def test_corrupt(self):
        """Exactly one bit is flipped."""
        self.world.link(corrupt=1.0)
        (data,) = self.send(0, 1, bytes(100))
        self.assertEqual(1, int.from_bytes(data, "big").bit_count())
        self.assertEqual([b""], self.send(0, 1, b""))

    def test_mtu(self):
        """Longer datagrams than the MTU vanish."""
        self.world.link(mtu=1200)
        self.assertEqual([bytes(1200)], self.send(0, 1, bytes(1200)))
        self.assertEqual([], self.send(0, 1, bytes(1201)))

    def test_pair_link(self):
        """A pair may have a link of its own, one way or both."""
        self.world.link_between(self.a, self.b, loss=1.0, one_way=True)
        self.world.link_between(self.b, self.c, loss=1.0)
        arrived = [self.send(*pair) for pair in ((0, 1), (1, 0), (0, 2), (1, 2), (2, 1))]
        self.assertEqual([[], [b"x"], [b"x"], [], []], arrived)

    def test_link_replaces(self):
        """Setting the link again forgets what was set before."""
        self.world.link(loss=1.0, delay=3)
        self.world.link()
        self.assertEqual(Link(), self.world.link_of(self.a, self.b))
        self.assertEqual([b"x"], self.send(0, 1))

    def test_partition(self):
        """A partition cuts both ways until it heals, and leaves third parties alone."""
        self.world.partition([self.a], [self.b])
        self.assertEqual(([], []), (self.send(0, 1), self.send(1, 0)))
        self.assertEqual([b"x"], self.send(0, 2))
        self.world.heal()
        self.assertEqual([b"x"], self.send(0, 1))

    def test_one_way_partition(self):
        """One way, only the first group's packets are lost."""
        self.world.partition([self.a, self.c], [self.b], one_way=True)
        self.assertEqual(([], []), (self.send(0, 1), self.send(2, 1)))
        self.assertEqual([b"x"], self.send(1, 0))

    def test_clog(self):
        """A clogged pair gets everything later; others as ever."""
        self.world.clog(self.a, self.b, 2.0)
        self.inboxes[0].transport.write(b"x", ("10.0.0.2", 7667))
        self.inboxes[0].transport.write(b"x", ("10.0.0.3", 7667))
        self.world.run(1.9)
        self.assertEqual(([], [b"x"]), (self.inboxes[1].data, self.inboxes[2].data))
        self.world.run(0.2)
        self.assertEqual([b"x"], self.inboxes[1].data)


class HostTests(TestCase):
    """Processes that end, stop and start."""

    def setUp(self):
        self.world = World(1)
        self.a, self.b = self.world.host("10.0.0.1"), self.world.host("10.0.0.2", name="bob")
        self.inbox = open_udp(self.b)
        self.sender = open_udp(self.a)

    def send(self) -> None:
        """Send a datagram to b."""
        self.sender.transport.write(b"x", ("10.0.0.2", 7667))

    def test_crash_and_restart(self):
        """A crash takes calls, sockets and what is under way; a restart begins with nothing."""
        ran: list[int] = []
        self.b.reactor.callLater(1, ran.append, 1)
        self.send()
        self.b.crash()
        self.assertFalse(self.b.up)
        self.world.run(2)
        self.assertEqual(([], []), (ran, self.inbox.received))
        old = self.b.reactor
        self.b.restart()
        self.assertTrue(self.b.up)
        self.assertIsNot(old, self.b.reactor)
        self.assertEqual([], self.b.leaks())
        inbox = open_udp(self.b)
        self.send()
        self.world.run(1)
        self.assertEqual([b"x"], inbox.data)

    def test_restart_while_up(self):
        """A restart of a living host crashes it first."""
        self.b.restart()
        kinds = [record.kind for record in self.world.trace]
        self.assertEqual(["crash", "start"], kinds)

    def test_disk(self):
        """A crash is told to the disk, which outlives it; a kill is not."""
        crashes: list[float] = []

        class Disk:
            def __init__(self, world: World) -> None:
                self.world = world

            def crash(self) -> None:
                crashes.append(self.world.now)

        disk = self.b.disk = Disk(self.world)
        self.b.kill()
        self.assertEqual([], crashes)
        self.b.restart()
        self.b.crash()
        self.b.restart()
        self.assertEqual([0], crashes)
        self.assertIs(disk, self.b.disk)

    def test_pause(self):
        """A paused process does nothing; afterwards it does everything in order."""
        ran: list[tuple[float, str]] = []
        self.b.reactor.callLater(1, lambda: ran.append((self.world.now, "first")))
        self.b.reactor.callLater(2, lambda: ran.append((self.world.now, "second")))
        self.b.pause()
        self.send()
        self.world.run(5)
        self.assertEqual(([], []), (ran, self.inbox.received))
        self.b.resume()
        self.world.run(0)
        self.assertEqual([(5, "first"), (5, "second")], ran)
        self.assertEqual([b"x"], self.inbox.data)

    def test_pause_then_crash(self):
        """What waited in a paused process dies with it."""
        ran: list[int] = []
        self.b.reactor.callLater(1, ran.append, 1)
        self.b.pause()
        self.world.run(2)
        self.b.crash()
        self.b.resume()
        self.world.run(2)
        self.assertEqual([], ran)

    def test_one_owner_per_address(self):
        """An address belongs to one host."""
        self.assertRaises(ValueError, self.world.host, "10.0.0.2")
        self.assertRaises(ValueError, self.world.host, "no address")

    def test_state_names_the_down(self):
        """The text of a failure says who is down and what is cut."""
        self.b.crash()
        self.world.partition([self.a], [self.b])
        expected = "seed 1, time 0.000000 s, 0 events, 2 hosts, down: bob, 2 pairs cut"
        self.assertEqual(expected, self.world.state())
        self.assertEqual("<Host bob down>", repr(self.b))


class Gossip(DatagramProtocol):
    """Tells everybody what it heard first; also sends something by TCP."""

    transport: Any

    def __init__(self, host: Host, peers: list[str]) -> None:
        self.host = host
        self.peers = peers
        self.knows = False

    def startProtocol(self) -> None:
        """Begin the rounds."""
        self.loop = LoopingCall(self.tell)
        self.loop.clock = self.host.reactor
        self.loop.start(0.5 + self.host.rng.random(), now=False)

    def tell(self) -> None:
        """Pass it on by UDP and TCP."""
        if self.knows:
            peer = self.host.rng.choice(self.peers)
            self.transport.write(self.host.entropy(40), (peer, 7667))
            self.host.reactor.connectTCP(peer, 7667, ClientFactory.forProtocol(Giver))

    def datagramReceived(self, _datagram: bytes, _addr: tuple[str, int]) -> None:
        """Learn it."""
        self.knows = True


class Giver(Protocol):
    """Sends some data and closes."""

    transport: Any

    def connectionMade(self) -> None:
        """Send."""
        self.transport.write(bytes(300_000))
        self.transport.loseConnection()


def gossip(seed: int, count: int = 12, seconds: float = 30) -> tuple[World, list[Gossip]]:
    """Run gossip over a bad network with a crash in it."""
    world = World(seed)
    world.link(loss=0.1, delay=(0.01, 0.2), duplicate=0.05, corrupt=0.01, bandwidth=5_000_000)
    names = [f"10.0.0.{n}" for n in range(1, count + 1)]
    nodes = []
    for name in names:
        host = world.host(name)
        nodes.append(Gossip(host, [peer for peer in names if peer != name]))
        host.reactor.listenUDP(7667, nodes[-1])
        host.reactor.listenTCP(7667, Factory.forProtocol(Protocol))
    nodes[0].knows = True
    nodes[2].host.reactor.callLater(seconds / 2, nodes[3].host.crash)
    world.run(seconds)
    return world, nodes


class DeterminismTests(TestCase):
    """The same seed, the same story."""

    def test_same_seed(self):
        """Two runs of a seed have the same trace; other seeds have others."""
        hashes = [gossip(seed)[0].trace_hash() for seed in (1, 1, 2)]
        self.assertEqual(hashes[0], hashes[1])
        self.assertNotEqual(hashes[0], hashes[2])

    def test_any_hash_seed(self):
        """Python's hash seed does not change the story."""
        code = "from p2pdist.test.test_network import gossip; print(gossip(1)[0].trace_hash())"
        here = gossip(1)[0].trace_hash()
        for hash_seed in ("1", "77"):
            environ = dict(os.environ, PYTHONHASHSEED=hash_seed)
            environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
            done = subprocess.run(
                [sys.executable, "-c", code], env=environ, capture_output=True, check=True
            )
            self.assertEqual(here, done.stdout.decode().strip())

    def test_trace(self):
        """The trace tells when, from where, to where, what and how long, in lines to read."""
        world = World(1)
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        inbox = open_udp(a)
        open_udp(b)
        world.run(1)
        inbox.transport.write(b"secret", ("10.0.0.2", 7667))
        record = Record(1.0, ("10.0.0.1", 7667), ("10.0.0.2", 7667), "udp", 6)
        self.assertEqual([record], world.trace)
        self.assertEqual(
            "1.000000 10.0.0.1:7667 -> 10.0.0.2:7667 udp 6", " ".join(str(record).split())
        )
        self.assertNotIn("secret", repr(world.trace))

    def test_hash_sees_everything(self):
        """The hash changes with every record, also with those no longer kept."""
        world = World(1)
        seen = [world.trace_hash()]
        for _ in range(3):
            for _ in range(3000):
                world.record(("a", 1), ("b", 2), "udp", 1)
            seen.append(world.trace_hash())
        self.assertEqual(4, len(dict.fromkeys(seen)))
        self.assertEqual(9000, len(world.trace))


class ScaleTests(TestCase):
    """Whole swarms."""

    def test_fifty_hosts(self):
        """Fifty hosts with thousands of packets run in one go, and all learn the news."""
        world, nodes = gossip(4, count=50, seconds=60)
        self.assertTrue(all(node.knows or not node.host.up for node in nodes))
        self.assertGreater(len(world.trace), 5000)


class WaitTests(TestCase):
    """Deferreds across hosts."""

    def test_deferred_fired_by_another_host(self):
        """A Deferred that a datagram fires is waited for."""
        world = World(1)
        a, b = world.host("10.0.0.1"), world.host("10.0.0.2")
        heard: Deferred[bytes] = Deferred()

        class Once(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, _addr: tuple[str, int]) -> None:
                heard.callback(datagram)

        b.reactor.listenUDP(7667, Once())
        open_udp(a).transport.write(b"news", ("10.0.0.2", 7667))
        self.assertEqual(b"news", world.wait_for(heard))
        self.assertEqual(0.01, world.now)
