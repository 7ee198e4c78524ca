"""Tests of simulated TCP streams: bytes, bandwidth, back-pressure, Twisted's own protocols."""

from __future__ import annotations

from typing import Any

from twisted.application.internet import ClientService
from twisted.internet import error
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int32StringReceiver

from p2pdist.test import simpipe
from p2pdist.test.test_simtcp import Stories, Story, TCPTestCase


class DataTests(TCPTestCase):
    """What is written arrives."""

    def test_in_order_over_bad_links(self):
        """Loss and jitter delay bytes, but none is lost, doubled, changed or overtaken."""
        self.world.link(loss=0.2, delay=(0.01, 0.3), duplicate=0.5, corrupt=0.5, split=0.5)
        client, server = self.connect(20)
        data = bytes(range(256)) * 3000
        for start in range(0, len(data), 1000):
            client.transport.write(data[start : start + 1000])
        client.transport.loseConnection()
        self.world.run(60)
        self.assertEqual(data, server.data)
        self.assertEqual(
            (error.ConnectionDone, error.ConnectionDone), (client.reason, server.reason)
        )

    def test_cut_anywhere(self):
        """Boundaries of writes are not kept: joined, and split at any byte."""
        self.world.link(split=0.9)
        client, server = self.connect()
        for _ in range(20):
            client.transport.write(b"0123456789")
        self.world.run(1)
        self.assertEqual(b"0123456789" * 20, server.data)
        sizes = [len(chunk) % 10 for chunk in server.received]
        self.assertTrue(any(sizes), sizes)
        self.assertTrue(all(len(chunk) <= simpipe.SEGMENT_BYTES for chunk in server.received))

    def test_int32_strings(self):
        """Twisted's Int32StringReceiver talks both ways."""

        class Echo(Int32StringReceiver):
            def stringReceived(self, string: bytes) -> None:
                self.sendString(string[::-1])

        class Ask(Int32StringReceiver):
            answers: tuple[bytes, ...] = ()

            def connectionMade(self) -> None:
                self.sendString(b"abc")
                self.sendString(bytes(90000))

            def stringReceived(self, string: bytes) -> None:
                self.answers += (string,)

        self.b.reactor.listenTCP(90, Factory.forProtocol(Echo))
        asking = Stories(Ask)
        self.a.reactor.connectTCP("10.0.0.2", 90, asking)
        self.world.run(1)
        self.assertEqual((b"cba", bytes(90000)), asking.made[0].answers)

    def test_endpoints(self):
        """Twisted's endpoints listen and connect, both families."""
        for server_endpoint, client_endpoint in (
            (TCP4ServerEndpoint(self.b.reactor, 90), (TCP4ClientEndpoint, "10.0.0.2")),
            (TCP6ServerEndpoint(self.b.reactor, 91), (TCP6ClientEndpoint, "fd00::2")),
        ):
            port: Any = self.world.wait_for(server_endpoint.listen(self.server))
            kind, host = client_endpoint
            connecting = kind(self.a.reactor, host, port.getHost().port).connect(Stories())
            client = self.world.wait_for(connecting)
            client.transport.write(b"hello")
            self.world.run(1)
            self.assertEqual(b"hello", self.server.made[-1].data)

    def test_client_service(self):
        """Twisted's ClientService connects again after a crash of the server."""
        endpoint = TCP4ClientEndpoint(self.a.reactor, "10.0.0.2", 80)
        service = ClientService(endpoint, Stories(), clock=self.a.reactor)
        service.startService()
        first: Any = self.world.wait_for(service.whenConnected())
        self.b.restart()
        self.b.reactor.listenTCP(80, self.server)
        first.transport.write(b"are you there?")
        self.world.run(10)
        second: Any = self.world.wait_for(service.whenConnected())
        self.assertIsNot(first, second)
        self.world.wait_for(service.stopService())
        self.assertEqual([], self.a.leaks())

    def test_bandwidth(self):
        """Two streams share the uplink: each has half, together they take as long as they must."""
        self.world.link(bandwidth=1_000_000)
        first, second = self.connect()[0], self.connect()[0]
        start = self.world.now
        size = 2_000_000
        for client in (first, second):
            client.transport.write(bytes(size))
            client.transport.loseConnection()
        self.world.run_until(lambda: all(made.reason for made in self.server.made))
        ends = [made.lost_at - start for made in self.server.made]
        self.assertTrue(all(4.0 <= end < 4.3 for end in ends), ends)

    def test_long_fat_pipe(self):
        """Far away, a stream moves one window per round trip, without ever standing still."""
        self.world.link(delay=0.5, bandwidth=10_000_000)
        client, server = self.connect(3)
        start = self.world.now
        client.transport.write(bytes(10 * simpipe.WINDOW_BYTES))
        client.transport.loseConnection()
        self.world.run_until(lambda: server.reason)
        self.assertTrue(9.5 <= self.world.now - start < 11.5, self.world.now - start)

    def test_downlink(self):
        """Two senders share the receiver's downlink."""
        c = self.world.host("10.0.0.3")
        self.b.set_bandwidth(None, 1_000_000)
        for host in (self.a, c):
            host.reactor.connectTCP("10.0.0.2", 80, self.client)
        self.world.run(1)
        start = self.world.now
        for client in self.client.made:
            client.transport.write(bytes(1_000_000))
            client.transport.loseConnection()
        self.world.run_until(lambda: all(made.reason for made in self.server.made))
        self.assertTrue(2.0 <= self.world.now - start < 2.2, self.world.now - start)

    def test_changed_downlink(self):
        """What waits for a slow downlink is not overtaken when the rate changes."""
        self.world.link(delay=0.01, bandwidth=1000)
        client, server = self.connect()
        client.transport.write(b"a" * 3000)
        self.world.run(1)
        self.world.link(delay=0.01, bandwidth=1_000_000)
        client.transport.write(b"b" * 3000)
        self.world.run(10)
        self.assertEqual(b"a" * 3000 + b"b" * 3000, server.data)

    def test_loopback(self):
        """A host talks to itself at once, without bandwidth."""
        self.world.link(loss=1.0, bandwidth=1)
        self.b.reactor.connectTCP("127.0.0.1", 80, self.client)
        self.world.run(0.01)
        self.client.made[0].transport.write(bytes(500_000))
        self.world.run(0.01)
        self.assertEqual(500_000, len(self.server.made[0].data))
        self.assertEqual("127.0.0.1", self.server.addresses[0][0])

    def test_protocol_error(self):
        """An error in dataReceived is logged and closes the connection."""

        class Breaks(Story):
            def dataReceived(self, data: bytes) -> None:
                raise KeyError(data)

        self.server.kind = Breaks
        client, server = self.connect()
        client.transport.write(b"x")
        self.world.run(1)
        self.assertEqual(1, len(self.flushLoggedErrors(KeyError)))
        self.assertEqual((KeyError, error.ConnectionDone), (server.reason, client.reason))

    def test_error_while_accepting(self):
        """An error in connectionMade is logged; the port goes on."""

        class Breaks(Story):
            def connectionMade(self) -> None:
                raise KeyError("x")

        self.server.kind = Breaks
        self.connect()
        self.server.kind = Story
        self.connect()[0].transport.write(b"x")
        self.world.run(1)
        self.assertEqual(1, len(self.flushLoggedErrors(KeyError)))
        self.assertEqual(b"x", self.server.made[-1].data)

    def test_options(self):
        """The usual options are kept."""
        client, _ = self.connect()
        client.transport.setTcpNoDelay(True)
        client.transport.setTcpKeepAlive(1)
        self.assertTrue(client.transport.getTcpNoDelay())
        self.assertTrue(client.transport.getTcpKeepAlive())


class Source:
    """A producer that writes blocks and notes what it is told."""

    def __init__(self, transport: Any, blocks: int, *, streaming: bool) -> None:
        self.transport = transport
        self.left = blocks
        self.streaming = streaming
        self.calls: list[str] = []
        self.paused = False

    def resumeProducing(self) -> None:
        """Write one block, or all that may be written when streaming."""
        self.calls.append("resume")
        self.paused = False
        while self.left and not self.paused:
            self.left -= 1
            self.transport.write(bytes(50_000))
            if not self.streaming:
                break
        if not self.left:
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Stop."""
        self.calls.append("pause")
        self.paused = True

    def stopProducing(self) -> None:
        """Stop for ever."""
        self.calls.append("stop")


class BackPressureTests(TCPTestCase):
    """Producers, and receivers that do not read."""

    def test_push_producer(self):
        """A streaming producer is paused above 64 KiB and resumed when all is handed over."""
        client, server = self.connect()
        source = Source(client.transport, 100, streaming=True)
        client.transport.registerProducer(source, True)
        source.resumeProducing()
        self.assertEqual((["resume", "pause"], 98), (source.calls, source.left))
        self.world.run(10)
        self.assertEqual(5_000_000, len(server.data))

    def test_pull_producer(self):
        """A pull producer is asked for each block."""
        client, server = self.connect()
        source = Source(client.transport, 100, streaming=False)
        client.transport.registerProducer(source, False)
        self.world.run(10)
        self.assertEqual(5_000_000, len(server.data))
        self.assertEqual(["resume"] * 100, source.calls)

    def test_receiver_that_does_not_read(self):
        """A receiver that pauses stops the sender after a window; resumed, all comes."""
        client, server = self.connect()
        server.transport.pauseProducing()
        source = Source(client.transport, 200, streaming=True)
        client.transport.registerProducer(source, True)
        source.resumeProducing()
        self.world.run(100)
        self.assertEqual(b"", server.data)
        sent = (200 - source.left) * 50_000
        self.assertTrue(0 <= sent - simpipe.WINDOW_BYTES <= 150_000, sent)
        server.transport.resumeProducing()
        self.world.run(100)
        self.assertEqual(10_000_000, len(server.data))

    def test_stopped_producer(self):
        """A producer is stopped when the connection is lost."""
        client, server = self.connect()
        source = Source(client.transport, 200, streaming=True)
        client.transport.registerProducer(source, True)
        server.transport.abortConnection()
        self.world.run(1)
        self.assertEqual(["stop"], source.calls)
