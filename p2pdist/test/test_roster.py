"""Tests for :mod:`p2pdist.swarm.roster`, :mod:`p2pdist.swarm.dialler`, :mod:`p2pdist.swarm.bans`.

Each runs in the simulated network: hosts that listen, refuse, or are not there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from twisted.internet.protocol import Factory, Protocol
from twisted.logger import capturedLogs

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID, PieceIndex
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.bans import BanList
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.handshake import Acceptor
from p2pdist.swarm.messages import ByeReason, Message, PeerFlag, PeerNote, Peers
from p2pdist.swarm.roster import Member, Roster
from p2pdist.swarm.transport import Plain
from p2pdist.test.network import World
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import PORT, RecordedEvents, node_key
from p2pdist.test.test_connection import HASH_KEY

SELF = Address("10.0.0.1", PORT)


def address(number: int) -> Address:
    """Return where the node with this number listens."""
    return Address(f"10.0.0.{number}", PORT)


def node_id(number: int) -> NodeID:
    """Return the id of the node with this number."""
    return node_key(number).node_id


class Node:
    """A node with a roster and nothing else: its owner writes down what happens."""

    def __init__(self, world: World, number: int, admission: Admission | None = None) -> None:
        self.number = number
        self.complete = False
        self.peer_complete = False
        self.told: list[tuple[object, ...]] = []
        self.calls: list[float] = []
        self.events = RecordedEvents()
        self._world = world
        self.host = world.host(f"10.0.0.{number}")
        self.roster = Roster(
            clock=self.host.reactor,
            reactor=self.host.reactor,
            node_id=node_id(number),
            way=Plain(node_key(number), self.host.entropy),
            hash_key=HASH_KEY,
            rng=self.host.rng,
            admission=admission or Admission(),
            bind_host=None,
            owner=self,
            events=self.events,
        )

    def listen(self) -> None:
        """Answer callers."""
        self.host.reactor.listenTCP(PORT, Factory.forProtocol(self._called))

    def _called(self) -> PeerConnection:
        self.calls.append(self._world.now)
        handshake = Acceptor(node_key(self.number), self.host.entropy(32), lambda _: HASH_KEY)
        return PeerConnection(
            clock=self.host.reactor, handshake=handshake, watcher=self, outgoing=False
        )

    def connection_proved(self, peer: PeerConnection) -> None:
        """Give it to the roster."""
        self.roster.accept(peer)

    def connection_ended(self, peer: PeerConnection, reason: str) -> None:
        """Nothing to count."""

    def is_complete(self) -> bool:
        """As the test says."""
        return self.complete

    def member_joined(self, member: Member) -> None:
        """Record it."""
        self.told.append(("joined", member.node_id))

    def member_left(self, member: Member) -> bool:
        """Record it."""
        self.told.append(("left", member.node_id))
        return self.peer_complete

    def roster_changed(self) -> None:
        """Nothing to do."""

    def message_received(self, peer: PeerConnection, message: Message) -> None:
        """Record it."""
        self.told.append(("message", peer.node_id, message))

    def piece_bytes_received(self, peer: PeerConnection, size: int) -> None:
        """Not here."""

    def piece_received(self, peer: PeerConnection, index: PieceIndex, data: bytearray) -> None:
        """Not here."""

    def connection_closed(self, peer: PeerConnection, reason: str) -> None:
        """Pass it on."""
        self.told.append(("closed", reason))
        self.roster.closed(peer)

    def connection_gone(self, peer: PeerConnection) -> None:
        """Pass it on."""
        self.roster.gone(peer)

    def tick(self, seconds: float) -> None:
        """Let time pass, with ticks."""
        end = self._world.now + seconds
        while self._world.now < end:
            self._world.run(min(limits.TICK_S, end - self._world.now))
            self.roster.tick(self._world.now)

    def connected(self) -> list[NodeID]:
        """Return who is connected."""
        return list(self.roster.members)


class RosterCase(TestCase):
    """A world with two nodes, of which the first dials."""

    def setUp(self) -> None:
        """Make them."""
        self.world = World(1)
        self.node = Node(self.world, 1)
        self.other = Node(self.world, 2)

    def join(self, number: int = 2, *, dial_now: bool = True) -> None:
        """The overlay joins a peer."""
        self.node.roster.add(address(number), node_id(number), dial_now=dial_now)

    def assert_clean(self, *nodes: Node) -> None:
        """Stop nodes; fail if anything is left."""
        for node in nodes:
            node.roster.stop()
        self.world.run(limits.CLOSE_S + limits.CONNECT_S + 1)
        for node in nodes:
            self.assertTrue(node.roster.idle)
            self.assertEqual([], [call for call in node.host.leaks() if "Port" not in call])


class DialTests(RosterCase):
    """Whom to call, and when."""

    def test_dialled_at_once(self) -> None:
        """A peer we joined is called at once, and is a member on both sides."""
        self.other.listen()
        self.join()
        self.world.run(1)
        self.assertEqual([node_id(2)], self.node.connected())
        self.assertEqual([node_id(1)], self.other.connected())
        self.assertEqual(1, self.node.roster.known)
        self.assert_clean(self.node, self.other)

    def test_dialled_after_waiting(self) -> None:
        """A peer that joined us is called when it has not called by DIAL_WAIT_S."""
        self.other.listen()
        self.join(dial_now=False)
        self.node.tick(limits.DIAL_WAIT_S - 1)
        self.assertEqual([], self.other.calls)
        self.node.tick(3)
        self.assertEqual(1, len(self.other.calls))

    def test_back_off(self) -> None:
        """A refused dial is tried again after DIAL_RETRY_S, doubling up to its end."""
        self.join()
        tries: list[float] = []
        dial = self.node.host.reactor.connectTCP
        reactor = self.node.host.reactor

        def counted(*args: object, **kwargs: object) -> object:
            tries.append(self.world.now)
            return dial(*args, **kwargs)  # type: ignore[arg-type]

        reactor.connectTCP = counted  # type: ignore[method-assign, assignment]
        self.node.tick(400)
        pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
        first, longest = limits.DIAL_RETRY_S
        self.assertLess(pauses[0], 3 * first + limits.TICK_S)
        self.assertLess(0.8 * longest, max(pauses))
        self.assertLess(max(pauses), 1.2 * longest + limits.TICK_S + 0.1)

    def test_blocked_tcp_is_told_once(self) -> None:
        """That a peer answers on UDP only is told once, until it was reached."""
        self.join()
        self.node.tick(20)
        refused = ("peer_unreachable", address(2), "refused")
        self.assertEqual([refused], self.node.events.seen)
        self.assertEqual(1, self.node.roster.unreachable_count)
        self.other.listen()
        self.node.tick(60)
        self.assertEqual(0, self.node.roster.unreachable_count)
        self.assertEqual([node_id(2)], self.node.connected())

    def test_silent_host_times_out(self) -> None:
        """A host that answers nothing is told as timed out after CONNECT_S."""
        self.world.partition([self.node.host], [self.other.host])
        self.join()
        self.world.run(limits.CONNECT_S + 0.1)
        told = ("peer_unreachable", address(2), "timed out")
        self.assertEqual([told], self.node.events.seen)

    def test_rejoin_clears_back_off(self) -> None:
        """A peer the overlay joins again is dialled at once."""
        self.join()
        self.node.tick(100)
        self.other.listen()
        self.join()
        self.world.run(1)
        self.assertEqual([node_id(2)], self.node.connected())

    def test_lost_peer_is_not_dialled(self) -> None:
        """A peer the overlay lost is dialled no more."""
        self.join(dial_now=False)
        self.node.roster.remove(node_id(2))
        self.other.listen()
        self.node.tick(20)
        self.assertEqual([], self.other.calls)
        self.node.roster.remove(node_id(3))

    def test_dials_are_bounded(self) -> None:
        """No more than DIALS tries are under way, however many peers are joined."""
        for number in range(10, 10 + 2 * limits.DIALS):
            self.join(number)
        connecting = [call for call in self.node.host.leaks() if "connection" in call]
        self.assertLessEqual(len(connecting), limits.DIALS)
        self.assert_clean(self.node)

    def test_targets_are_bounded(self) -> None:
        """No more than PEERS_PER_OWN_TOPIC peers are remembered."""
        for number in range(limits.PEERS_PER_OWN_TOPIC + 10):
            where = Address(f"10.1.{number // 250}.{number % 250 + 1}", PORT)
            self.node.roster.add(where, NodeID(number.to_bytes(20, "big")), dial_now=False)
        self.assertEqual(limits.PEERS_PER_OWN_TOPIC, self.node.roster.known)

    def test_full_process_waits(self) -> None:
        """Without room for another connection the dial is tried later."""
        admission = Admission()
        tickets = [
            admission.enter(Address(f"10.2.0.{n + 1}", n + 1), outgoing=True, now=0.0)
            for n in range(limits.CONNECTIONS)
        ]
        node = Node(self.world, 7, admission)
        self.other.listen()
        node.roster.add(address(2), node_id(2), dial_now=True)
        node.tick(1)
        self.assertEqual([], self.other.calls)
        assert tickets[0] is not None
        admission.leave(tickets[0])
        node.tick(4)
        self.assertEqual([node_id(2)], node.connected())

    def test_stop_says_goodbye(self) -> None:
        """Whoever called whom hears why the connection ends."""
        self.other.listen()
        self.join()
        self.node.tick(1)
        self.node.roster.stop()
        self.world.run(1)
        self.assertIn(("closed", "closed by peer: stopping"), self.other.told)

    def test_stop_while_dialling(self) -> None:
        """A stop gives tries up and leaves nothing behind."""
        self.world.partition([self.node.host], [self.other.host])
        self.join()
        self.world.run(1)
        self.assert_clean(self.node)

    def test_other_protocol(self) -> None:
        """A port where somebody else listens is tried again slower each time, never fast."""
        calls: list[float] = []

        class Web(Protocol):
            def connectionMade(self) -> None:
                calls.append(1.0)
                assert self.transport is not None
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        self.other.host.reactor.listenTCP(PORT, Factory.forProtocol(Web))
        self.join()
        self.node.tick(60)
        self.assertLess(len(calls), 7)
        self.assertEqual([], self.node.connected())

    def test_ourselves(self) -> None:
        """Our own node is never dialled, and under another id recognised and not let in."""
        self.node.listen()
        self.node.roster.add(SELF, node_id(1), dial_now=True)
        self.world.run(1)
        self.assertEqual([], self.node.calls)
        self.node.roster.add(SELF, node_id(9), dial_now=True)
        self.node.tick(60)
        self.assertEqual([], self.node.connected())
        self.assertLess(len(self.node.calls), 7)


class DuplicateTests(RosterCase):
    """One connection to each node."""

    def test_both_dial(self) -> None:
        """When both dial at once both keep the connection dialled by the smaller id."""
        self.node.listen()
        self.other.listen()
        self.node.roster.add(address(2), node_id(2), dial_now=True)
        self.other.roster.add(address(1), node_id(1), dial_now=True)
        self.world.run(5)
        first = self.node.roster.members[node_id(2)].connection
        second = self.other.roster.members[node_id(1)].connection
        self.assertEqual(node_id(1) < node_id(2), first.outgoing)
        self.assertNotEqual(first.outgoing, second.outgoing)
        self.assertTrue(first.is_open)
        self.assertTrue(second.is_open)
        self.assert_clean(self.node, self.other)

    def test_restarted_peer_replaces_itself(self) -> None:
        """A second connection from the same side replaces the first, which must be dead."""
        self.other.listen()
        self.join()
        self.world.run(1)
        old = self.other.roster.members[node_id(1)].connection
        self.node.host.restart()
        self.world.hosts.pop("10.0.0.1")
        again = Roster(
            clock=self.node.host.reactor,
            reactor=self.node.host.reactor,
            node_id=node_id(1),
            way=Plain(node_key(1), self.node.host.entropy),
            hash_key=HASH_KEY,
            rng=self.node.host.rng,
            admission=Admission(),
            bind_host="10.0.0.1",
            owner=self.node,
            events=self.node.events,
        )
        again.add(address(2), node_id(2), dial_now=True)
        self.world.run(1)
        self.assertFalse(old.is_open)
        self.assertTrue(self.other.roster.members[node_id(1)].connection.is_open)


class NeedTests(RosterCase):
    """Connections that are not worth having."""

    def connect(self, prepare: Callable[[], None] = lambda: None) -> None:
        """Connect the two, then prepare, then part as complete nodes do."""
        self.other.listen()
        self.join()
        self.world.run(1)
        prepare()
        self.node.roster.members[node_id(2)].connection.close(ByeReason.DONE)
        self.node.tick(30)

    def test_complete_nodes_part_for_good(self) -> None:
        """A complete node does not dial one it knows to be complete."""
        self.node.complete = self.node.peer_complete = True
        self.connect()
        self.assertEqual(1, len(self.other.calls))

    def test_need_brings_them_back(self) -> None:
        """When we are not complete after all the peer is dialled again."""
        self.node.complete = self.node.peer_complete = True
        self.connect()
        self.node.complete = False
        self.node.tick(60)
        self.assertEqual(2, len(self.other.calls))

    def test_few_bans_are_logged(self) -> None:
        """LOG_PER_KIND wrong pieces are told of in a minute, however many come."""
        self.connect()
        connection = self.node.roster.members[node_id(2)].connection
        with capturedLogs() as events:
            for index in range(limits.LOG_PER_KIND + 5):
                self.node.roster.ban(connection, f"a wrong piece {index}")
        self.assertEqual(limits.LOG_PER_KIND, sum("what" in event for event in events))

    def test_banned(self) -> None:
        """A banned node is closed, not dialled, and not let in when it calls, for BAN_S."""
        self.node.listen()
        self.other.listen()
        self.join()
        self.world.run(1)
        self.node.roster.ban(self.node.roster.members[node_id(2)].connection, "rubbish")
        self.node.tick(30)
        self.assertEqual([], self.node.connected())
        self.assertEqual(1, len(self.other.calls))
        self.other.roster.add(address(1), node_id(1), dial_now=True)
        self.world.run(5)
        self.assertEqual([], self.node.connected())
        self.node.tick(limits.BAN_S + 70)
        self.assertEqual([node_id(2)], self.node.connected())

    def test_nobody_is_let_in_after_stop(self) -> None:
        """Who calls while we stop is sent away."""
        self.node.listen()
        self.node.roster.stop()
        self.other.roster.add(address(1), node_id(1), dial_now=True)
        self.world.run(1)
        self.assertEqual(([], []), (self.node.connected(), self.other.connected()))
        self.node.roster.add(address(2), node_id(2), dial_now=True)
        self.assertEqual(0, self.node.roster.known)


class TellTests(RosterCase):
    """Whom a node tells of whom."""

    def setUp(self) -> None:
        """Make a third node, which hears what the first tells."""
        super().setUp()
        self.third = Node(self.world, 3)
        for node in (self.node, self.other, self.third):
            node.listen()

    def told(self) -> list[tuple[str, PeerFlag]]:
        """Return whom the third node was told of."""
        return [
            (note.address.host, note.flags)
            for kind, *rest in self.third.told
            if kind == "message" and isinstance(rest[1], Peers)
            for note in rest[1].added4
        ]

    def hear(self) -> None:
        """The third node is connected too, and hears the news."""
        self.join(3)
        self.node.tick(2)

    def test_called(self) -> None:
        """Who was called is told of as reached."""
        self.join()
        self.hear()
        self.assertEqual([("10.0.0.2", PeerFlag.REACHED)], self.told())

    def test_caller(self) -> None:
        """A caller is told of at the address it joined from, never at the one it calls from."""
        self.join(dial_now=False)
        self.other.roster.add(address(1), node_id(1), dial_now=True)
        self.hear()
        self.assertEqual([("10.0.0.2", PeerFlag(0))], self.told())

    def test_unvouched_callers(self) -> None:
        """A caller that did not join, or from elsewhere, or behind a NAT, is told to nobody."""
        for number in (4, 5, 6):
            node = Node(self.world, number)
            node.roster.add(address(1), node_id(1), dial_now=True)
        self.node.roster.add(address(77), node_id(5), dial_now=False)
        self.node.roster.add(address(6), node_id(6), dial_now=False, is_open=False)
        self.hear()
        self.assertEqual(4, len(self.node.connected()))
        self.assertEqual([], self.told())

    def test_full_is_not_told(self) -> None:
        """A peer that says it has no room is told to nobody, until it has some again."""
        self.join()
        self.world.run(1)
        member = self.node.roster.members[node_id(2)]
        self.assertTrue(self.node.roster.heard(member, Peers(room=False)))
        self.hear()
        self.assertEqual([], self.told())
        self.node.roster.heard(member, Peers(room=True))
        self.node.tick(2)
        self.assertEqual([("10.0.0.2", PeerFlag.REACHED)], self.told())

    def test_complete_peers_are_told(self) -> None:
        """Complete nodes keep no connection and are told of all the same, until they leave."""
        self.join()
        self.world.run(1)
        self.node.complete = self.node.peer_complete = True
        self.node.roster.members[node_id(2)].connection.close(ByeReason.DONE)
        self.world.run(1)
        self.node.peer_complete = False
        self.hear()
        self.assertEqual([("10.0.0.2", PeerFlag.REACHED)], self.told())
        self.node.roster.remove(node_id(2))
        self.node.tick(limits.PEX_EVERY_S[0] + 1)
        last = self.third.told[-1][2]
        assert isinstance(last, Peers)
        self.assertEqual((address(2),), last.left4)

    def test_hearsay_is_passed_up(self) -> None:
        """What a peer tells goes to the overlay while peers are lacking; a seed lacks none."""
        self.join()
        self.world.run(1)
        self.node.complete = True
        member = self.node.roster.members[node_id(2)]
        notes = tuple(PeerNote(address(n), PeerFlag(0)) for n in (2, 40))
        self.node.roster.heard(member, Peers(room=True, added4=notes))
        self.node.tick(3)
        self.assertEqual([], self.node.events.seen)
        self.node.complete = False
        self.node.tick(3)
        self.assertEqual([("peer_told", address(40))], self.node.events.seen)


class CircleTests(RosterCase):
    """How many connections there are."""

    def callers(self, count: int) -> list[Node]:
        """So many call."""
        callers = [Node(self.world, number) for number in range(10, 10 + count)]
        for caller in callers:
            caller.roster.add(address(1), node_id(1), dial_now=True)
        self.world.run(1)
        return callers

    def test_full_circle_names_others(self) -> None:
        """Who finds no place is told of peers that have one, and sent away as from a full node."""
        self.node.listen()
        self.other.listen()
        self.join()
        room = limits.CIRCLE_MOST - limits.CIRCLE_OWN
        callers = self.callers(room + 1)
        connected = [caller for caller in callers if caller.connected()]
        (refused,) = (caller for caller in callers if not caller.connected())
        self.assertEqual(room, len(connected))
        self.assertEqual(room + 1, len(self.node.connected()))
        (message,) = (rest[1] for kind, *rest in refused.told if kind == "message")
        assert isinstance(message, Peers)
        self.assertEqual((address(2),), tuple(note.address for note in message.added4))
        self.assertFalse(message.room)
        self.assertIn(("closed", "closed by peer: full"), refused.told)

    def test_newcomer_takes_a_place(self) -> None:
        """In a full circle the caller of least use goes for a newcomer, and is not called back."""
        self.node.listen()
        callers = self.callers(limits.CIRCLE_MOST - limits.CIRCLE_OWN)
        self.world.run(limits.CIRCLE_SWAP_S)
        for number in range(10, 10 + len(callers)):
            self.join(number, dial_now=False)
        newcomer = Node(self.world, 3)
        newcomer.roster.add(address(1), node_id(1), dial_now=True)
        self.world.run(1)
        self.assertEqual([node_id(1)], newcomer.connected())
        (gone,) = (caller for caller in callers if not caller.connected())
        gone.listen()
        self.node.tick(20)
        self.assertEqual([], gone.calls)

    def test_enough_are_called(self) -> None:
        """Of many peers CIRCLE_WANTED or some more are called, not all."""
        nodes = [Node(self.world, number) for number in range(10, 60)]
        for node in nodes:
            node.listen()
            self.join(node.number)
        self.node.tick(60)
        self.assertLessEqual(limits.CIRCLE_WANTED, len(self.node.connected()))
        self.assertLess(len(self.node.connected()), limits.CIRCLE_MOST)

    def test_useless_makes_room(self) -> None:
        """Where nothing moves and others wait, peers are tried one after the other."""
        nodes = [Node(self.world, number) for number in range(10, 60)]
        for node in nodes:
            node.listen()
            self.join(node.number)
        self.node.tick(limits.CIRCLE_USELESS_S - 5)
        before = set(self.node.connected())
        self.node.tick(10 * limits.CIRCLE_REPLACE_S)
        after = set(self.node.connected())
        self.assertLessEqual(5, len(after - before))
        self.assertLessEqual(limits.CIRCLE_WANTED, len(after))


class BanTests(TestCase):
    """Until when nobody talks to somebody."""

    def test_first_and_last_offence(self) -> None:
        """The first offence bans node and address for BAN_S, the last the node for good."""
        bans = BanList()
        for offence in range(1, limits.CORRUPT_PIECES_MAX + 1):
            now = offence * 10_000.0
            bans.offend(node_id(2), address(2), now)
            for banned in (node_id(2), node_id(3)):
                self.assertTrue(bans.banned(banned, address(2), now))
            for_good = offence == limits.CORRUPT_PIECES_MAX
            later = now + limits.BAN_S
            self.assertEqual(for_good, bans.banned(node_id(2), None, later))
            self.assertFalse(bans.banned(node_id(3), address(2), later))

    def test_memory_is_bounded(self) -> None:
        """At most BANS are remembered; the oldest go first."""
        bans = BanList()
        for number in range(limits.BANS + 1):
            bans.offend(NodeID(number.to_bytes(20, "big")), address(1), 0.0)
        self.assertFalse(bans.banned(NodeID(bytes(20)), None, 1.0))
        last = NodeID(limits.BANS.to_bytes(20, "big"))
        self.assertTrue(bans.banned(last, None, 1.0))
