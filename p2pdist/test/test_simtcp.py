"""Tests of simulated TCP: how connections begin and end."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from p2pdist.test import simpipe, simtcp
from p2pdist.test.network import World
from p2pdist.test.support import TestCase


class Story(Protocol):
    """Notes what happens to a connection; the factory it is built by keeps all."""

    transport: Any

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.reason: type[BaseException] | None = None
        self.lost_at = 0.0

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep why and when."""
        self.reason = reason.type
        self.lost_at = self.transport.reactor.seconds()

    @property
    def data(self) -> bytes:
        """Everything received."""
        return b"".join(self.received)


class Stories(ClientFactory):
    """Builds and keeps one kind of protocol."""

    def __init__(self, protocol: type[Protocol] = Story) -> None:
        self.kind = protocol
        self.made: list[Any] = []
        self.failures: list[type[BaseException]] = []
        self.lost: list[type[BaseException]] = []
        self.started = 0
        self.addresses: list[tuple[str, int]] = []

    def startFactory(self) -> None:
        """Count."""
        self.started += 1

    def stopFactory(self) -> None:
        """Count."""
        self.started -= 1

    def buildProtocol(self, addr: Any) -> Any:
        """Build one."""
        self.addresses.append((addr.host, addr.port))
        self.made.append(self.kind())
        return self.made[-1]

    def clientConnectionFailed(self, _connector: Any, reason: Any) -> None:
        """Keep why."""
        self.failures.append(reason.type)

    def clientConnectionLost(self, _connector: Any, reason: Any) -> None:
        """Keep why."""
        self.lost.append(reason.type)


class TCPTestCase(TestCase):
    """Two hosts, one listening."""

    def setUp(self):
        """Make them."""
        self.world = World(5)
        self.a = self.world.host("10.0.0.1", "fd00::1")
        self.b = self.world.host("10.0.0.2", "fd00::2")
        self.server = Stories()
        self.client = Stories()
        self.port: Any = self.b.reactor.listenTCP(80, self.server)

    def connect(self, seconds: float = 1.0) -> tuple[Story, Story]:
        """Connect a to b and return both ends."""
        self.a.reactor.connectTCP("10.0.0.2", 80, self.client)
        self.world.run(seconds)
        return self.client.made[-1], self.server.made[-1]


class ConnectTests(TCPTestCase):
    """How connections begin, or not."""

    def test_handshake(self):
        """The client is connected after one round trip, the server half of one later."""
        self.world.link(delay=0.1)
        self.a.reactor.connectTCP("10.0.0.2", 80, self.client)
        self.world.run(0.15)
        self.assertEqual([], self.client.made)
        self.world.run(0.1)
        self.assertEqual((1, 0), (len(self.client.made), len(self.server.made)))
        self.world.run(0.1)
        self.assertEqual(1, len(self.server.made))
        here, there = self.client.made[0].transport, self.server.made[0].transport
        self.assertEqual(here.getHost(), there.getPeer())
        self.assertEqual(there.getHost(), here.getPeer())
        self.assertEqual(("10.0.0.2", 80), (here.getPeer().host, here.getPeer().port))

    def test_refused(self):
        """Nobody listens: refused after a round trip."""
        connector: Any = self.a.reactor.connectTCP("10.0.0.2", 81, self.client)
        self.world.run(0.03)
        self.assertEqual([error.ConnectionRefusedError], self.client.failures)
        self.assertEqual("disconnected", connector.state)
        self.assertEqual((0, []), (self.client.started, self.a.leaks()))

    def test_timeout(self):
        """A host that is down or cut off gives a timeout when the caller said."""
        self.b.crash()
        self.a.reactor.connectTCP("10.0.0.2", 80, self.client, timeout=5)
        self.world.run(4.9)
        self.assertEqual([], self.client.failures)
        self.world.run(0.2)
        self.assertEqual([error.TimeoutError], self.client.failures)
        self.assertEqual([], self.a.leaks())

    def test_kernel_gives_up(self):
        """Without a timeout of the caller's the kernel gives up in the end."""
        self.b.crash()
        self.a.reactor.connectTCP("10.0.0.2", 80, self.client, timeout=1000)
        self.world.run(2 ** (simtcp.SYN_RETRIES + 1))
        self.assertEqual([error.TCPTimedOutError], self.client.failures)

    def test_lost_syn_is_repeated(self):
        """A partition shorter than the timeout only delays."""
        self.world.partition([self.a], [self.b], one_way=True)
        self.a.reactor.connectTCP("10.0.0.2", 80, self.client)
        self.world.run(0.5)
        self.world.heal()
        self.world.run(3)
        self.assertEqual(1, len(self.client.made))

    def test_no_route(self):
        """No address of the family: no route, at once."""
        lone = self.world.host("10.0.0.9")
        lone.reactor.connectTCP("fd00::1", 80, self.client)
        self.world.run(0)
        self.assertEqual([error.NoRouteError], self.client.failures)

    def test_stop_connecting(self):
        """A caller that stops hears of it, and the server of nothing."""
        connector = self.a.reactor.connectTCP("10.0.0.2", 80, self.client)
        self.world.run(0.015)
        connector.stopConnecting()
        self.world.run(1)
        self.assertEqual([error.UserError], self.client.failures)
        self.assertEqual([], self.server.made)
        self.assertEqual([], self.a.leaks())

    def test_bind_address(self):
        """A client may choose its address and port; another's address is refused."""
        factory = self.client
        self.a.reactor.connectTCP("10.0.0.2", 80, factory, bindAddress=("10.0.0.1", 4000))
        self.a.reactor.connectTCP("10.0.0.2", 80, factory, bindAddress=("10.0.0.7", 0))
        self.world.run(1)
        self.assertEqual([("10.0.0.1", 4000)], self.server.addresses)
        self.assertEqual([error.ConnectBindError], factory.failures)

    def test_dual_stack(self):
        """A server on :: sees IPv6 clients as they are and IPv4 clients mapped."""
        self.b.reactor.listenTCP(90, self.server, interface="::")
        for host in ("fd00::2", "10.0.0.2", "::ffff:10.0.0.2"):
            self.a.reactor.connectTCP(host, 90, self.client)
        self.world.run(1)
        hosts = [host for host, _ in self.server.addresses]
        self.assertEqual(["fd00::1", "::ffff:10.0.0.1", "::ffff:10.0.0.1"], hosts)
        hosts = [protocol.transport.getPeer().host for protocol in self.client.made]
        self.assertEqual(["fd00::2", "10.0.0.2", "::ffff:10.0.0.2"], hosts)

    def test_backlog(self):
        """More connections than the backlog wait until the process accepts."""
        few = Stories()
        self.b.reactor.listenTCP(90, few, backlog=2)
        self.b.pause()
        for _ in range(4):
            self.a.reactor.connectTCP("10.0.0.2", 90, self.client)
            self.world.run(0.1)
        self.assertEqual(2, len(self.client.made))
        self.b.resume()
        self.world.run(5)
        self.assertEqual((4, 4), (len(self.client.made), len(few.made)))

    def test_port_closes(self):
        """A closed port refuses, resets who waited, keeps who was there, and stops its factory."""
        _, served = self.connect()
        self.b.pause()
        self.a.reactor.connectTCP("10.0.0.2", 80, self.client)
        self.world.run(1)
        done = self.port.stopListening()
        self.b.resume()
        self.world.wait_for(done)
        self.a.reactor.connectTCP("10.0.0.2", 80, self.client)
        self.world.run(1)
        self.assertEqual([error.ConnectionLost], self.client.lost)
        self.assertEqual([error.ConnectionRefusedError], self.client.failures)
        self.assertEqual(0, self.server.started)
        self.assertIsNone(served.reason)

    def test_no_protocol(self):
        """A factory that builds no protocol closes the connection, on either side."""

        class Nobody(Stories):
            def buildProtocol(self, _addr: Any) -> None:
                return None

        self.b.reactor.listenTCP(90, Nobody())
        self.a.reactor.connectTCP("10.0.0.2", 90, self.client)
        self.a.reactor.connectTCP("10.0.0.2", 80, Nobody())
        self.world.run(1)
        self.assertEqual(error.ConnectionDone, self.client.made[0].reason)
        self.assertEqual(error.ConnectionDone, self.server.made[0].reason)


class CloseTests(TCPTestCase):
    """How connections end."""

    def test_clean(self):
        """All that was written comes before the end."""
        client, server = self.connect()
        client.transport.write(bytes(5_000_000))
        client.transport.loseConnection()
        client.transport.write(b"!")
        self.world.run(10)
        self.assertEqual(5_000_001, len(server.data))
        self.assertEqual(
            (error.ConnectionDone, error.ConnectionDone), (client.reason, server.reason)
        )
        self.assertEqual(([error.ConnectionDone], 0), (self.client.lost, self.client.started))
        client.transport.write(b"ignored")
        self.assertEqual([], self.a.leaks())

    def test_abort(self):
        """An abort drops what was not sent, and resets."""
        client, server = self.connect()
        client.transport.write(b"gone")
        client.transport.abortConnection()
        self.world.run(1)
        self.assertEqual(
            (error.ConnectionAborted, error.ConnectionLost), (client.reason, server.reason)
        )
        self.assertEqual(b"", server.data)

    def test_close_with_bytes_unread(self):
        """As on Linux, closing before reading everything resets and may lose the last words."""
        client, server = self.connect()
        server.transport.pauseProducing()
        client.transport.write(b"unread")
        self.world.run(1)
        server.transport.loseConnection()
        self.world.run(1)
        self.assertEqual(
            (error.ConnectionDone, error.ConnectionLost), (server.reason, client.reason)
        )

    def test_half_close(self):
        """LoseWriteConnection ends one direction only, after what was written."""
        client, server = self.connect()
        client.transport.write(b"last words")
        client.transport.loseWriteConnection()
        self.world.run(1)
        self.assertEqual(b"last words", server.data)
        self.assertEqual(error.ConnectionDone, server.reason)

    def test_write_to_the_closed(self):
        """Data for a closed connection is answered with a reset."""
        self.world.link(delay=0.1)
        client, server = self.connect()
        server.transport.loseConnection()
        self.world.run(0)
        client.transport.write(b"x")
        client.transport.pauseProducing()
        self.world.run(1)
        self.assertIn("rst", [record.kind for record in self.world.trace])

    def test_kill(self):
        """A killed process' kernel closes its connections at once."""
        client, server = self.connect()
        self.b.kill()
        self.world.run(0.1)
        self.assertEqual((error.ConnectionDone, None), (client.reason, server.reason))

    def test_partition_waits(self):
        """During a short partition data waits; then it comes."""
        client, server = self.connect()
        for cut in ((self.a, self.b), (self.b, self.a)):
            self.world.partition(*([host] for host in cut), one_way=True)
            client.transport.write(b"x")
            before = server.data
            self.world.run(30)
            self.assertEqual(before, server.data)
            self.world.heal()
            self.world.run(simpipe.RTO_MAX_S + 1)
            self.assertEqual(before + b"x", server.data)

    def test_partition_breaks(self):
        """A long partition breaks a connection with data under way, and only such."""
        client, server = self.connect()
        idle, _ = self.connect()
        self.world.partition([self.a], [self.b])
        start = self.world.now
        client.transport.write(b"x")
        self.world.run(120)
        self.assertEqual((error.ConnectionLost, None), (client.reason, idle.reason))
        self.assertTrue(0 <= client.lost_at - start - simpipe.TCP_TIMEOUT_S <= 6)
        self.assertIsNone(server.reason)
        self.world.heal()
        server.transport.write(b"anybody there?")
        self.world.run(10)
        self.assertEqual(error.ConnectionLost, server.reason)

    def test_crash_silence(self):
        """A crashed host answers nothing: the sender loses the connection after a minute."""
        client, _ = self.connect()
        client.transport.write(b"x")
        self.world.run(0.005)
        self.b.crash()
        self.world.run(simpipe.TCP_TIMEOUT_S - 1)
        self.assertIsNone(client.reason)
        self.world.run(10)
        self.assertEqual(error.ConnectionLost, client.reason)

    def test_crash_and_restart(self):
        """A restarted host resets what it no longer knows."""
        client, _ = self.connect()
        client.transport.write(bytes(2_000_000))
        self.world.run(0.005)
        self.b.restart()
        self.world.run(1)
        self.assertEqual(error.ConnectionLost, client.reason)

    def test_crash_unnoticed(self):
        """Who sends nothing never learns of a crash: half-open."""
        client, _ = self.connect()
        self.b.crash()
        self.world.run(1000)
        self.assertIsNone(client.reason)

    def test_crash_during_the_handshake(self):
        """A host that crashes while it is connected to leaves a client that can time out."""
        self.world.link(delay=0.1)
        for seconds in (0.05, 0.15, 0.25):
            self.a.reactor.connectTCP("10.0.0.2", 80, self.client, timeout=5)
            self.world.run(seconds)
            self.b.crash()
            for made in self.client.made:
                made.transport.write(b"x")
            self.world.run(100)
            self.b.restart()
            self.b.reactor.listenTCP(80, self.server)
        self.assertEqual([error.TimeoutError], self.client.failures)
        self.assertEqual([error.ConnectionLost] * 2, self.client.lost)
        self.assertEqual([], self.server.made)
        self.assertEqual([], self.a.leaks())
