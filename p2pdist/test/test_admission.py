"""Tests for :mod:`p2pdist.swarm.admission` and :mod:`p2pdist.swarm.listener`."""

from __future__ import annotations

from attrs import define
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import HashKey
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.door import Door
from p2pdist.swarm.listener import PeerListener
from p2pdist.swarm.swarms import Swarms
from p2pdist.swarm.transport import Transports
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import FakeSocket, node_key


@define
class Connection:
    """Counted; see :class:`p2pdist.swarm.admission.Admitted`."""

    useful_at: float = 0.0
    gone: bool = False

    def shed(self) -> None:
        """Go."""
        self.gone = True


def address(number: int) -> Address:
    """Return a global address of a host and a subnet of its own."""
    return Address(f"{1 + number // 65536}.{number // 256 % 256}.{number % 256}.1", 7667)


class AdmissionTests(TestCase):
    """The count."""

    def setUp(self) -> None:
        """Nobody there."""
        self.admission = Admission()

    def proved(self, number: int, useful_at: float = 0.0) -> Connection:
        """Let a caller in and prove it."""
        ticket = self.admission.enter(address(number), outgoing=False, now=0.0)
        assert ticket is not None
        connection = Connection(useful_at)
        self.admission.hold(ticket, connection)
        self.admission.prove(ticket)
        return connection

    def test_few_files_mean_few_connections(self) -> None:
        """``limits.FILES_KEPT`` are left for others, but ``limits.CONNECTIONS_LEAST`` there are."""
        for files, most in (
            (limits.FILES_KEPT + 30, 30),
            (20, limits.CONNECTIONS_LEAST),
            (1 << 20, limits.CONNECTIONS),
        ):
            self.admission = Admission.within(files)
            tickets = [
                self.admission.enter(address(number), outgoing=True, now=0.0)
                for number in range(limits.CONNECTIONS + 1)
            ]
            self.assertEqual(most, sum(ticket is not None for ticket in tickets))

    def test_callers_leave_a_quarter(self) -> None:
        """Callers get three quarters of CONNECTIONS; the rest is there to dial."""
        for number in range(limits.CONNECTIONS * 3 // 4):
            self.proved(number, useful_at=50.0)
        self.assertIsNone(self.admission.enter(address(9999), outgoing=False, now=100.0))
        for number in range(limits.CONNECTIONS // 4):
            ticket = self.admission.enter(address(5000 + number), outgoing=True, now=100.0)
            self.assertIsNotNone(ticket)
        self.assertIsNone(self.admission.enter(address(9999), outgoing=True, now=100.0))
        self.assertEqual(limits.CONNECTIONS, self.admission.count)

    def test_useless_longest_goes(self) -> None:
        """When all places are taken, who was useless longest, for IDLE_S at least, makes room."""
        connections = [
            self.proved(number, useful_at=float(number + 1))
            for number in range(limits.CONNECTIONS * 3 // 4)
        ]
        self.assertIsNone(self.admission.enter(address(9999), outgoing=False, now=limits.IDLE_S))
        ticket = self.admission.enter(address(9999), outgoing=False, now=limits.IDLE_S + 2)
        self.assertIsNotNone(ticket)
        gone = [number for number, connection in enumerate(connections) if connection.gone]
        self.assertEqual([0], gone)

    def test_hosts_are_bounded(self) -> None:
        """A global host gets CONNECTIONS_PER_HOST; private ones are counted by port too."""
        for _ in range(limits.CONNECTIONS_PER_HOST):
            self.assertIsNotNone(self.admission.enter(address(1), outgoing=False, now=0.0))
        self.assertIsNone(self.admission.enter(address(1), outgoing=False, now=0.0))
        self.assertIsNotNone(self.admission.enter(address(2), outgoing=False, now=0.0))
        for port in range(1, 2 * limits.CONNECTIONS_PER_HOST):
            private = Address("10.0.0.1", port)
            self.assertIsNotNone(self.admission.enter(private, outgoing=False, now=0.0))

    def test_idle_ones_of_a_host_make_room(self) -> None:
        """One idle for HOST_IDLE_S goes when we dial its host for another content."""
        for _ in range(limits.CONNECTIONS_PER_HOST):
            ticket = self.admission.enter(address(1), outgoing=True, now=0.0)
            assert ticket is not None
            self.admission.hold(ticket, Connection(0.0))
        soon = limits.HOST_IDLE_S - 0.1
        self.assertIsNone(self.admission.enter(address(1), outgoing=True, now=soon))
        now = limits.HOST_IDLE_S
        self.assertIsNone(self.admission.enter(address(1), outgoing=False, now=now))
        self.assertIsNotNone(self.admission.enter(address(1), outgoing=True, now=now))
        self.assertEqual(limits.CONNECTIONS_PER_HOST, self.admission.count)

    def fill(self, content: HashKey, count: int, useful_at: float = 0.0) -> list[Connection]:
        """Dial for a content so many times."""
        made = []
        for number in range(count):
            where = address(len(self.held) * 1000 + number)
            ticket = self.admission.enter(where, outgoing=True, now=useful_at, content=content)
            assert ticket is not None
            made.append(Connection(useful_at))
            self.admission.hold(ticket, made[-1])
        self.held.append(content)
        return made

    def test_contents_share(self) -> None:
        """In a full process a content with few connections gets places of the one with most."""
        self.held: list[HashKey] = []
        large, small = HashKey(b"L" * 32), HashKey(b"S" * 32)
        many = self.fill(large, limits.CONNECTIONS, useful_at=50.0)
        many[7].useful_at = 49.0
        for _ in range(limits.CONNECTIONS):
            self.admission.enter(address(900_000), outgoing=True, now=60.0, content=large)
        self.assertEqual([], [each for each in many if each.gone])
        few = self.fill(small, limits.CONNECTIONS // 2, useful_at=60.0)
        self.assertTrue(many[7].gone)
        self.assertEqual(len(few), sum(each.gone for each in many))
        self.assertIsNone(
            self.admission.enter(address(900_001), outgoing=True, now=70.0, content=small)
        )
        self.assertEqual(limits.CONNECTIONS, self.admission.count)

    def test_oldest_unproved_goes(self) -> None:
        """Of CONNECTIONS_UNPROVED silent callers the oldest makes room for the next."""
        silent = []
        for number in range(limits.CONNECTIONS_UNPROVED):
            ticket = self.admission.enter(address(number), outgoing=False, now=0.0)
            assert ticket is not None
            silent.append(Connection())
            self.admission.hold(ticket, silent[-1])
        self.assertFalse(silent[0].gone)
        self.assertIsNotNone(self.admission.enter(address(1000), outgoing=False, now=0.0))
        self.assertEqual([True, False], [silent[0].gone, silent[1].gone])
        self.assertEqual(limits.CONNECTIONS_UNPROVED, self.admission.count)

    def test_unproved_of_one_subnet(self) -> None:
        """The hosts of one subnet have few of these places; the newest of them hold them."""
        near = [Address(f"1.2.3.{number}", 1) for number in range(50)]
        far = self.admission.enter(address(7), outgoing=False, now=0.0)
        held = Connection()
        assert far is not None
        self.admission.hold(far, held)
        for caller in near:
            self.assertIsNotNone(self.admission.enter(caller, outgoing=False, now=0.0))
        self.assertEqual(1 + limits.CONNECTIONS_UNPROVED_PER_NET, self.admission.count)
        self.assertFalse(held.gone)

    def test_strangers_do_not_displace_who_knocked(self) -> None:
        """Who is in the middle of a private handshake stays, however many strangers call."""
        member = self.admission.enter(address(1), outgoing=False, now=0.0)
        held = Connection()
        assert member is not None
        self.admission.hold(member, held)
        self.admission.knocked(member)
        for number in range(3 * limits.CONNECTIONS_UNPROVED):
            self.assertIsNotNone(self.admission.enter(address(2 + number), outgoing=False, now=0.0))
        self.assertFalse(held.gone)
        self.assertEqual(limits.CONNECTIONS_UNPROVED, self.admission.count)
        self.admission.leave(member)
        self.admission.knocked(member)

    def test_leaving(self) -> None:
        """Who leaves is not counted, and may leave twice."""
        ticket = self.admission.enter(address(1), outgoing=True, now=0.0)
        assert ticket is not None
        self.admission.leave(ticket)
        self.admission.leave(ticket)
        self.admission.prove(ticket)
        self.admission.hold(ticket, Connection())
        self.assertEqual(0, self.admission.count)


class ListenerTests(TestCase):
    """Callers."""

    def setUp(self) -> None:
        """A listener that knows no content."""
        self.clock = Clock()
        self.admission = Admission()
        self.listener = PeerListener(
            transports=Transports(node_key(1), bytes),
            clock=self.clock,
            swarms=Swarms(),
            public=lambda: True,
            admission=self.admission,
        )

    def call(self, number: int) -> tuple[Door | None, FakeSocket]:
        """Somebody calls."""
        host, port = address(number)
        fake = FakeSocket(host, port)
        caller = self.listener.buildProtocol(IPv4Address("TCP", host, port))
        if caller is not None:
            caller.makeConnection(fake)
        return caller, fake

    def test_flood_of_silent_callers(self) -> None:
        """However many call and say nothing, few are kept, and all are gone after HANDSHAKE_S."""
        sockets = [self.call(number)[1] for number in range(500)]
        self.assertEqual(limits.CONNECTIONS_UNPROVED, self.admission.count)
        still_open = [fake for fake in sockets if fake.state == "open"]
        self.assertEqual(limits.CONNECTIONS_UNPROVED, len(still_open))
        self.clock.advance(limits.HANDSHAKE_S)
        self.assertEqual([], [fake for fake in sockets if fake.state == "open"])

    def test_full_host(self) -> None:
        """One host too many times is not let in."""
        callers = [self.call(7)[0] for _ in range(limits.CONNECTIONS_PER_HOST + 1)]
        self.assertIsNone(callers[-1])
        self.assertIsNotNone(callers[-2])

    def test_stop(self) -> None:
        """A stop drops callers that belong to no content yet, and nobody comes in after it."""
        _, fake = self.call(1)
        self.listener.stop()
        self.assertEqual("aborted", fake.state)
        self.assertIsNone(self.call(2)[0])
        self.assertEqual([], self.clock.getDelayedCalls())
