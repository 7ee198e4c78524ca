"""Tests for :mod:`p2pdist.swarm.pex`: what is told, what is believed, and what a liar can cause."""

from __future__ import annotations

import itertools
import random

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address, Scope, scope
from p2pdist.errors import UnexpectedMessage
from p2pdist.ids import NodeID
from p2pdist.swarm.messages import PeerFlag, PeerNote, Peers
from p2pdist.swarm.peerwire import PeerWire, encode
from p2pdist.swarm.pex import Hearsay, Telling, compose
from p2pdist.test.support import TestCase, given

PLAIN, REACHED = PeerFlag(0), PeerFlag.REACHED
PRIVATE = Address("10.0.0.1", 7667)


def public(number: int, port: int = 7667) -> Address:
    """Return an address of a global host of its own."""
    return Address(f"1.{number // 65536}.{number // 256 % 256}.{number % 256}", port)


def peer(number: int) -> NodeID:
    """Return an id."""
    return NodeID(number.to_bytes(20, "big"))


def view(*addresses: Address) -> dict[Address, PeerFlag]:
    """Return a view of these."""
    return dict.fromkeys(addresses, PLAIN)


def notes(*addresses: Address, flags: PeerFlag = PLAIN) -> Peers:
    """Return a message that adds these."""
    return compose([PeerNote(address, flags) for address in addresses], [], room=True)


def added(message: Peers | None) -> list[Address]:
    """Return whom a message adds."""
    assert message is not None
    return [note.address for note in (*message.added4, *message.added6)]


class TellingTests(TestCase):
    """What one peer is told."""

    def setUp(self) -> None:
        """A peer on the Internet."""
        self.telling = Telling(Scope.GLOBAL)
        self.now = 0.0

    def news(self, *addresses: Address, after: float = 1000.0, room: bool = True) -> Peers | None:
        """Return what it is told later, when these are there."""
        self.now += after
        return self.telling.news(view(*addresses), public(99), self.now, room=room)

    def test_changes_only(self) -> None:
        """A peer is told who came, once, and who left; nothing when nothing changed."""
        self.assertEqual([public(1), public(2)], added(self.news(public(1), public(2))))
        self.assertIsNone(self.news(public(1), public(2)))
        message = self.news(public(2), public(3))
        self.assertEqual([public(3)], added(message))
        assert message is not None
        self.assertEqual((public(1),), message.left4)
        self.assertEqual([public(1)], added(self.news(public(1), public(2), public(3))))

    def test_not_of_itself(self) -> None:
        """A peer is not told of itself."""
        self.assertIsNone(self.news(public(99)))

    def test_families(self) -> None:
        """Both families are told in one message."""
        six = Address("2606:4700::1", 7667)
        message = self.news(public(1), six)
        self.assertEqual([public(1), six], added(message))
        message = self.news()
        assert message is not None
        self.assertEqual(((public(1),), (six,)), (message.left4, message.left6))

    def test_narrow_scope_is_not_told_to_wide(self) -> None:
        """Decision 15: a private address is told on the LAN only, loopback only to loopback."""
        here = Address("127.0.0.1", 7667)
        everybody = view(here, PRIVATE, public(1))
        told = {}
        for reach in Scope:
            told[reach] = added(Telling(reach).news(everybody, None, 0.0, room=True))
        self.assertEqual([here, PRIVATE, public(1)], told[Scope.LOOPBACK])
        self.assertEqual([PRIVATE, public(1)], told[Scope.PRIVATE])
        self.assertEqual([public(1)], told[Scope.GLOBAL])

    def test_frames_are_bounded(self) -> None:
        """At most PEX_PEERS are added and as many leave in one frame; the rest comes later."""
        many = [public(1000 + number) for number in range(2 * limits.PEX_PEERS + 5)]
        told = [added(self.news(*many)) for _ in range(3)]
        self.assertEqual([limits.PEX_PEERS, limits.PEX_PEERS, 5], [len(part) for part in told])
        self.assertEqual(set(many), {address for part in told for address in part})
        message = self.news()
        assert message is not None
        self.assertEqual(limits.PEX_PEERS, len(message.left4))
        six = [Address(f"2606:4700::{number + 1:x}", 7667) for number in range(limits.PEX_PEERS)]
        frame = encode(notes(*six))
        wire = PeerWire()
        wire.proved = True
        list(wire.receive_data(b"P2PDIST\x01"))
        self.assertEqual([notes(*six)], list(wire.receive_data(frame)))

    def test_pauses_grow(self) -> None:
        """Between frames lies PEX_EVERY_S: the first pause, doubling, up to the longest."""
        shortest, longest = limits.PEX_EVERY_S
        times = []
        for second in range(600):
            message = self.telling.news(view(public(second)), None, float(second), room=True)
            if message is not None:
                times.append(second)
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        self.assertEqual([shortest, 2 * shortest, 4 * shortest], pauses[:3])
        self.assertEqual(longest, pauses[-1])

    def test_room_is_told(self) -> None:
        """That the last place is taken, or one is free again, is news by itself."""
        self.assertIsNone(self.news())
        full = self.news(room=False)
        assert full is not None
        self.assertFalse(full.room)
        self.assertIsNone(self.news(room=False))
        self.assertIsNotNone(self.news(room=True))


class HearsayCase(TestCase):
    """Peers on the Internet that tell."""

    def setUp(self) -> None:
        """Nobody told anything."""
        self.hearsay = Hearsay(random.Random(1))

    def tell(self, teller: int, *addresses: Address, now: float = 0.0, paid: int = 1 << 20) -> None:
        """A peer on the Internet tells of these, after it has sent so many bytes."""
        self.hearsay.met(peer(teller), public(teller), now)
        self.hearsay.received(peer(teller), paid)
        self.hearsay.heard(peer(teller), notes(*addresses), now)

    def draw(self, lack: int, now: float = 0.0) -> list[Address]:
        """Return whom to try."""
        return self.hearsay.draw(lack, now, lambda _: True)


class HearsayTests(HearsayCase):
    """What is believed."""

    def test_only_what_is_lacking(self) -> None:
        """Nobody is tried without need, and not more than are lacking, those under way included."""
        self.tell(1, *(public(number) for number in range(100, 120)))
        self.assertEqual([], self.draw(0))
        self.assertEqual(3, len(self.draw(3)))
        self.assertEqual([], self.draw(3))
        self.assertEqual(1, len(self.draw(4)))

    def test_once(self) -> None:
        """An address is tried once, however many tell of it; who left is not tried."""
        self.tell(1, public(100), public(101))
        self.tell(2, public(100), public(102))
        self.hearsay.heard(peer(2), Peers(room=True, left4=(public(102),)), 1.0)
        self.assertEqual({public(100), public(101)}, set(self.draw(9)))
        self.assertEqual(0, self.hearsay.addresses)

    def test_known_is_not_tried(self) -> None:
        """What is known already costs its teller nothing and nobody a ping."""
        self.tell(1, *(public(number) for number in range(100, 120)))
        self.assertEqual([], self.hearsay.draw(9, 0.0, lambda _: False))
        self.tell(1, public(130))
        self.assertEqual([public(130)], self.draw(9))

    def test_reached_first(self) -> None:
        """Of what one peer told, those that it reached itself come first."""
        self.tell(1, *(public(number) for number in range(100, 140)))
        self.hearsay.heard(peer(1), notes(public(50), flags=REACHED), 1.0)
        self.assertEqual([public(50)], self.draw(1))

    def test_long_lists_gain_nothing(self) -> None:
        """Who tells of many gets no larger share than who tells of few."""
        self.tell(1, *(public(1000 + number) for number in range(50)))
        for teller in range(2, 6):
            self.tell(teller, *(public(100 * teller + number) for number in range(4)))
        long = {public(1000 + number) for number in range(50)}
        self.assertLess(len(long.intersection(self.draw(12))), 7)

    def test_scope_of_the_teller(self) -> None:
        """A peer on the Internet names nobody of our LAN; one of the LAN may."""
        self.tell(1, PRIVATE, Address("127.0.0.1", 22), public(100))
        self.assertEqual([public(100)], self.draw(9))
        self.hearsay.met(peer(2), PRIVATE, 0.0)
        self.hearsay.heard(peer(2), notes(Address("10.0.0.2", 7667), Address("127.0.0.1", 22)), 0.0)
        self.assertEqual([Address("10.0.0.2", 7667)], self.draw(9))

    def test_one_port_of_a_host(self) -> None:
        """One peer names a global host once, whatever the ports; hosts of a LAN by port."""
        self.tell(1, *(public(100, port) for port in range(1, 40)))
        self.assertEqual(1, self.hearsay.addresses)
        self.hearsay.met(peer(2), PRIVATE, 0.0)
        self.hearsay.heard(peer(2), notes(*(Address("10.0.0.2", p) for p in range(1, 40))), 0.0)
        self.assertEqual(40, self.hearsay.addresses)

    def test_too_often(self) -> None:
        """More frames than RATE_PEX close the connection; who keeps PEX_EVERY_S is safe."""
        _, burst = limits.RATE_PEX
        self.hearsay.met(peer(1), public(1), 0.0)
        for _ in range(int(burst)):
            self.hearsay.heard(peer(1), notes(), 0.0)
        with self.assertRaises(UnexpectedMessage):
            self.hearsay.heard(peer(1), notes(), 0.0)
        telling = Telling(Scope.GLOBAL)
        self.hearsay.met(peer(1), public(1), 0.0)
        for second in range(4000):
            message = telling.news(view(public(second)), None, float(second), room=True)
            if message is not None:
                self.hearsay.heard(peer(1), message, float(second))

    def test_memory_is_bounded(self) -> None:
        """PEX_KEPT addresses of one peer, PEX_TELLERS peers: the last met, and no others."""
        self.hearsay.met(peer(1), public(1), 0.0)
        for part in range(4):
            told = [public(1000 * part + number) for number in range(limits.PEX_PEERS)]
            self.hearsay.heard(peer(1), notes(*told), 0.0)
        self.assertEqual(limits.PEX_KEPT, self.hearsay.addresses)
        for teller in range(2, 2 * limits.PEX_TELLERS):
            self.hearsay.met(peer(teller), public(teller), 0.0)
        self.assertEqual(limits.PEX_TELLERS, self.hearsay.tellers)
        self.hearsay.heard(peer(1), notes(public(5)), 0.0)
        self.hearsay.received(peer(1), 1)
        self.assertEqual(0, self.hearsay.addresses)


class LiarTests(HearsayCase):
    """What telling of dead or foreign addresses costs, and whom."""

    def names(self, teller: int, start: int, count: int = 50, paid: int = 1 << 20) -> None:
        """A liar names many."""
        self.tell(teller, *(public(start + number) for number in range(count)), paid=paid)

    def test_credit_ends(self) -> None:
        """PEX_VAIN tries that bring nobody are the last of one peer, also when it calls again."""
        self.names(1, 1000)
        self.assertEqual(limits.PEX_VAIN, len(self.draw(50)))
        self.names(1, 2000)
        self.assertEqual([], self.draw(50, now=100 * limits.PEX_TRY_S))

    def test_truth_is_free(self) -> None:
        """Each address that joins gives its try back."""
        self.names(1, 1000)
        tried = 0
        while drawn := self.draw(3):
            tried += len(drawn)
            for address in drawn:
                self.hearsay.joined(address)
        self.assertEqual(50, tried)

    def test_late(self) -> None:
        """Who has not joined by PEX_TRY_S makes room for the next try, without giving it back."""
        self.names(1, 1000)
        (address,) = self.draw(1)
        self.assertEqual([], self.draw(1, now=limits.PEX_TRY_S - 0.1))
        self.assertEqual(1, len(self.draw(1, now=limits.PEX_TRY_S)))
        self.hearsay.joined(address)
        later = self.draw(50, now=limits.PEX_TRY_S)
        self.assertEqual(limits.PEX_VAIN - 2, len(later))

    def test_liars_pay_in_bytes(self) -> None:
        """A peer that sent nothing causes PEX_FREE tries, and one more for each PEX_TRY_BYTES."""
        self.names(1, 1000, paid=0)
        self.assertEqual(limits.PEX_FREE, len(self.draw(50)))
        self.hearsay.received(peer(1), 3 * limits.PEX_TRY_BYTES - 1)
        self.assertEqual(2, len(self.draw(50)))
        self.hearsay.received(peer(1), 1)
        self.assertEqual(1, len(self.draw(50)))

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2000)), max_size=40))
    def test_never_amplifies(self, said: list[tuple[int, int]]) -> None:
        """Whatever liars say, pings to strangers are no more bytes than they sent, but PEX_FREE."""
        hearsay = Hearsay(random.Random(2))
        sent = dict.fromkeys(range(6), 0)
        tries, next_victim = 0, 1
        for now, (liar, size) in enumerate(said):
            hearsay.met(peer(liar), public(liar), now)
            hearsay.received(peer(liar), size)
            sent[liar] += size
            victims = [public(next_victim + number) for number in range(20)]
            next_victim += 20
            hearsay.heard(peer(liar), notes(*victims), now)
            tries += len(hearsay.draw(32, now, lambda _: True))
        free = limits.PEX_FREE * len({liar for liar, _ in said})
        self.assertLessEqual((tries - free) * limits.PEX_TRY_BYTES, sum(sent.values()))
        self.assertLessEqual(tries, limits.PEX_VAIN * 6)

    def test_scopes_of_the_test(self) -> None:
        """The addresses used here are what they are meant to be."""
        self.assertEqual((Scope.GLOBAL, Scope.PRIVATE), (scope(public(1)), scope(PRIVATE)))
