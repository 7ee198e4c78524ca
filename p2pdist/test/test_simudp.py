"""Tests of simulated UDP: sockets, addresses, errors, buffers, multicast."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from p2pdist.test import simudp
from p2pdist.test.network import Host, World
from p2pdist.test.support import TestCase


class Inbox(DatagramProtocol):
    """Keeps what comes."""

    transport: Any

    def __init__(self) -> None:
        self.received: list[tuple[bytes, tuple[str, int]]] = []
        self.stopped = False

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Keep it."""
        self.received.append((datagram, addr))

    def stopProtocol(self) -> None:
        """Note it."""
        self.stopped = True

    @property
    def data(self) -> list[bytes]:
        """What came, without from where."""
        return [datagram for datagram, _ in self.received]


def open_udp(host: Host, interface: str = "", port: int = 7667) -> Inbox:
    """Listen on a host."""
    inbox = Inbox()
    host.reactor.listenUDP(port, inbox, interface=interface)
    return inbox


class UDPTests(TestCase):
    """Datagrams between whole hosts."""

    def setUp(self):
        self.world = World(1)
        self.a = self.world.host("10.0.0.1", "fd00::1")
        self.b = self.world.host("10.0.0.2", "203.0.113.5", "fd00:0:0::2")

    def test_there_and_back(self):
        """A datagram arrives after the link's delay with an address that answers go to."""
        a, b = open_udp(self.a), open_udp(self.b, port=99)
        self.world.link(delay=0.25)
        a.transport.write(b"hello", ("10.0.0.2", 99))
        self.world.run(0.2)
        self.assertEqual([], b.received)
        self.world.run(0.1)
        self.assertEqual([(b"hello", ("10.0.0.1", 7667))], b.received)
        b.transport.write(b"back", b.received[0][1])
        self.world.run(1)
        self.assertEqual([(b"back", ("10.0.0.2", 99))], a.received)

    def test_into_the_void(self):
        """Nobody at the address or the port: silence."""
        a = open_udp(self.a)
        a.transport.write(b"x", ("10.9.9.9", 1))
        a.transport.write(b"x", ("10.0.0.2", 1))
        self.world.run(1)
        self.assertEqual(2, len(self.world.trace))

    def test_dual_stack(self):
        """A socket on :: shows IPv4 mapped, and sends IPv4 to mapped addresses, as on Linux."""
        both, four, six = open_udp(self.a, "::"), open_udp(self.b), open_udp(self.b, "fd00::2", 8)
        four.transport.write(b"4", ("10.0.0.1", 7667))
        six.transport.write(b"6", ("fd00::1", 7667))
        self.world.run(1)
        expected = [(b"4", ("::ffff:10.0.0.2", 7667)), (b"6", ("fd00::2", 8))]
        self.assertEqual(expected, both.received)
        both.transport.write(b"to 4", ("::ffff:10.0.0.2", 7667))
        both.transport.write(b"to 6", ("fd00::2", 8))
        self.world.run(1)
        self.assertEqual([(b"to 4", ("10.0.0.1", 7667))], four.received)
        self.assertEqual([(b"to 6", ("fd00::1", 7667))], six.received)

    def test_specific_interface(self):
        """A socket on one address hears nothing sent to another, and sends from its own."""
        a, b = open_udp(self.a), open_udp(self.b, "203.0.113.5")
        a.transport.write(b"no", ("10.0.0.2", 7667))
        a.transport.write(b"yes", ("203.0.113.5", 7667))
        b.transport.write(b"from", ("10.0.0.1", 7667))
        self.world.run(1)
        self.assertEqual([b"yes"], b.data)
        self.assertEqual([(b"from", ("203.0.113.5", 7667))], a.received)

    def test_loopback(self):
        """Loopback and own addresses stay on the host, at once, whatever the links do."""
        self.world.link(loss=1.0)
        other = open_udp(self.b, "127.0.0.1")
        six = open_udp(self.a, "::1")
        a = open_udp(self.a, "0.0.0.0", 1)
        a.transport.write(b"me", ("127.0.0.1", 1))
        a.transport.write(b"me too", ("10.0.0.1", 1))
        six.transport.write(b"six", ("::1", 7667))
        self.world.run(0.001)
        expected = [(b"me", ("127.0.0.1", 1)), (b"me too", ("10.0.0.1", 1))]
        self.assertEqual(expected, a.received)
        self.assertEqual([(b"six", ("::1", 7667))], six.received)
        self.assertEqual([], other.received)
        self.assertRaises(OSError, other.transport.write, b"x", ("10.0.0.1", 1))

    def test_refused_as_twisted_does(self):
        """Too long, a name, the other family, no route: write raises what Twisted's raises."""
        lone = self.world.host("10.0.0.3")
        a, six = open_udp(self.a), open_udp(lone, "::")
        write = a.transport.write
        self.assertRaises(MessageLengthError, write, bytes(65508), ("10.0.0.2", 1))
        self.assertRaises(InvalidAddressError, write, b"", ("example.org", 1))
        self.assertRaises(InvalidAddressError, write, b"", ("fd00::2", 1))
        self.assertRaises(InvalidAddressError, six.transport.write, b"", ("10.0.0.2", 1))
        self.assertRaises(OSError, six.transport.write, b"", ("fd00::2", 1))
        self.assertRaises(OSError, write, b"", ("10.0.0.2", 0))

    def test_ports(self):
        """A port is had once per address; wildcards exclude, and :: excludes 0.0.0.0 too."""
        listen: Any = self.a.reactor.listenUDP
        port = listen(5, Inbox(), "10.0.0.1")
        for interface in ("10.0.0.1", "", "0.0.0.0", "::"):
            self.assertRaises(CannotListenError, listen, 5, Inbox(), interface)
        self.assertRaises(CannotListenError, listen, 6, Inbox(), "10.0.0.2")
        listen(9, Inbox(), "::")
        for interface in ("", "10.0.0.1", "fd00::1", "::"):
            self.assertRaises(CannotListenError, listen, 9, Inbox(), interface)
        listen(5, Inbox(), "fd00::1")
        listen(5, Inbox(), "127.0.0.1")
        self.world.wait_for(port.stopListening())
        listen(5, Inbox(), "10.0.0.1")
        free = [listen(0, Inbox()).getHost().port for _ in range(3)]
        self.assertEqual(3, len(dict.fromkeys(free)))

    def test_stop_listening(self):
        """A stopped port hears no more, tells its protocol, and leaves nothing behind."""
        a, b = open_udp(self.a), open_udp(self.b)
        a.transport.write(b"late", ("10.0.0.2", 7667))
        self.world.wait_for(b.transport.stopListening())
        self.world.run(1)
        self.assertTrue(b.stopped)
        self.assertEqual([], b.received)
        self.assertEqual([], self.b.leaks())
        self.assertEqual(1, len(self.a.leaks()))

    def test_protocol_error(self):
        """An error in datagramReceived is logged; the port goes on."""

        class Breaks(Inbox):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                super().datagramReceived(datagram, addr)
                raise KeyError(datagram)

        breaks = Breaks()
        self.b.reactor.listenUDP(7667, breaks)
        a = open_udp(self.a)
        a.transport.write(b"1", ("10.0.0.2", 7667))
        a.transport.write(b"2", ("10.0.0.2", 7667))
        self.world.run(1)
        self.assertEqual([b"1", b"2"], breaks.data)
        self.assertEqual(2, len(self.flushLoggedErrors(KeyError)))

    def test_receive_buffer(self):
        """What a stopped process does not read fills its buffer; the rest is lost."""
        a, b = open_udp(self.a), open_udp(self.b)
        self.b.pause()
        fits = simudp.RECEIVE_BUFFER_BYTES // 1000
        for _ in range(fits + 5):
            a.transport.write(bytes(1000), ("10.0.0.2", 7667))
        self.world.run(1)
        self.assertEqual([], b.received)
        self.b.resume()
        self.world.run(1)
        self.assertEqual(fits, len(b.received))

    def test_throughput_per_turn(self):
        """A port's maxThroughput bounds one turn, not the whole."""
        a, b = open_udp(self.a), open_udp(self.b)
        b.transport.maxThroughput = 10
        self.b.pause()
        for _ in range(5):
            a.transport.write(bytes(8), ("10.0.0.2", 7667))
        self.world.run(1)
        self.b.resume()
        before = self.world.events
        self.world.run(0)
        self.assertEqual(5, len(b.received))
        self.assertEqual(3, self.world.events - before)

    def test_cut_off_at_packet_size(self):
        """What exceeds the port's packet size is cut off."""
        inbox = Inbox()
        self.b.reactor.listenUDP(7667, inbox, maxPacketSize=4)
        open_udp(self.a).transport.write(b"123456", ("10.0.0.2", 7667))
        self.world.run(1)
        self.assertEqual([b"1234"], inbox.data)

    def test_multicast(self):
        """A datagram to a group reaches who joined it, until they leave."""
        inboxes = []
        ports = []
        for host in (self.a, self.b):
            inboxes.append(Inbox())
            ports.append(host.reactor.listenMulticast(7667, inboxes[-1]))
        self.result_of(ports[1].joinGroup("239.1.2.3"))
        ports[0].write(b"1", ("239.1.2.3", 7667))
        self.world.run(1)
        self.assertEqual([[], [(b"1", ("10.0.0.1", 7667))]], [box.received for box in inboxes])
        self.result_of(ports[1].leaveGroup("239.1.2.3"))
        ports[0].write(b"2", ("239.1.2.3", 7667))
        self.world.run(1)
        self.assertEqual([b"1"], inboxes[1].data)
