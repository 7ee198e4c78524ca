"""Tests of keeping bindings open and telling neighbours of a NAT, on a network without wires."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import ID_BYTES, NodeID
from p2pdist.keys import PUBLIC_NETWORK
from p2pdist.overlay.bindings import TOLD_AT_ONCE
from p2pdist.overlay.envelope import Envelope, read_header
from p2pdist.overlay.messages import Flag, Message, Ping, Pong
from p2pdist.overlay.network import Network
from p2pdist.overlay.reach import State
from p2pdist.overlay.wire import decode, encode
from p2pdist.test.support import TestCase

OUTSIDE = Address("50.1.0.1", 40001)
OWN = NodeID(bytes(ID_BYTES))


def neighbour(number: int) -> tuple[NodeID, Address]:
    """Return a node in a subnet of its own; lower numbers are nearer to :data:`OWN`."""
    node_id = NodeID((number + 1).to_bytes(2, "big") + bytes(ID_BYTES - 2))
    return node_id, Address(f"20.0.{number}.1", 7667)


class BindingsCase(TestCase):
    """A network whose datagrams are only recorded."""

    def setUp(self):
        self.clock = Clock()
        self.sent: list[tuple[Message, Address]] = []
        chance = random.Random(1)
        self.network = Network(
            keys=PUBLIC_NETWORK,
            node_id=OWN,
            clock=self.clock,
            rng=chance,
            entropy=chance.randbytes,
            transmit=self.transmit,
            local_address=lambda _towards: "192.168.1.2",
        )
        self.bindings = self.network.bindings
        self.others = Envelope(PUBLIC_NETWORK, chance.randbytes)
        self.addCleanup(self.network.stop)

    def transmit(self, datagram: bytes, address: Address) -> None:
        """Record a message of ours; a ping is answered by whoever it went to, at once."""
        message = decode(self.network.envelope.open_own(datagram))
        self.sent.append((message, address))
        if isinstance(message, Ping):
            self.clock.callLater(0.01, self.pong, message, address)

    def pong(self, ping: Ping, address: Address) -> None:
        """Let the answer to ``ping`` come in."""
        node_id = neighbour(int(address.host.split(".")[2]))[0]
        pong = Pong(
            rid=ping.rid, attempt=ping.attempt, node_id=node_id, token=b"t" * 8, observed=OUTSIDE
        )
        datagram = self.others.seal(encode(pong))
        self.network.datagram_received(datagram, read_header(datagram), address)

    def meet(self, count: int, *, nat: bool = False) -> list[Address]:
        """Put neighbours into the table and measure the way to them; return their addresses."""
        now = self.clock.seconds()
        addresses = []
        for number in range(count):
            node_id, address = neighbour(number)
            self.assertTrue(self.network.neighbours.verified(node_id, address, now, nat))
            self.network.rpc.paths[address].sample(1.0 / (1 + number), now)
            addresses.append(address)
        return addresses

    def hide(self) -> None:
        """Let two observers see us behind a NAT."""
        for number in range(limits.OBSERVERS_AGREEING):
            observer = Address(f"30.0.{number}.1", 7667)
            self.network.reach.observed(observer, OUTSIDE, self.clock.seconds())

    def show(self) -> None:
        """Let a stranger call."""
        self.network.reach.called(Address("31.0.0.1", 7667), self.clock.seconds())

    def pings(self) -> list[tuple[Address, int]]:
        """Return whom pings went to since the last time, and with which flags."""
        pings = [(address, m.flags) for m, address in self.sent if isinstance(m, Ping)]
        self.sent.clear()
        return pings

    def live(self, seconds: float) -> None:
        """Run upkeep as often as a service does."""
        for _ in range(round(seconds / limits.UPKEEP_EVERY_S)):
            for _ in range(10):
                self.clock.advance(limits.UPKEEP_EVERY_S / 10)
            self.bindings.upkeep()


class PinningTests(BindingsCase):
    """Towards whom bindings are kept open, and how."""

    def test_only_behind_a_nat(self):
        """Who is not behind a NAT pins nobody and says nothing."""
        self.meet(5)
        self.live(120)
        self.assertEqual(([], []), (self.bindings.pinned, self.pings()))

    def test_nearest_and_quickest(self):
        """Half of the NAT_PINNED places go to the nearest by XOR, half to the quickest."""
        addresses = self.meet(40)
        self.hide()
        self.bindings.upkeep()
        half = limits.NAT_PINNED // 2
        self.assertEqual({*addresses[:half], *addresses[-half:]}, set(self.bindings.pinned))

    def test_interval(self):
        """Each is pinged every NAT_KEEPALIVE_S, +-RTO_JITTER and the upkeep's step, said as NAT."""
        addresses = self.meet(3)
        self.hide()
        self.live(5)
        self.pings()
        spread = 1 + limits.RTO_JITTER
        longest = limits.NAT_KEEPALIVE_S * spread + limits.UPKEEP_EVERY_S
        self.assertLess(longest, limits.NAT_BINDING_S)
        last = {address: self.clock.seconds() for address in addresses}
        gaps = []
        for _ in range(120):
            self.live(limits.UPKEEP_EVERY_S)
            self.hide()
            for address, flags in self.pings():
                self.assertEqual(int(Flag.NAT), flags)
                gaps.append(self.clock.seconds() - last[address])
                last[address] = self.clock.seconds()
        self.assertGreater(len(gaps), 3 * 600 / longest)
        self.assertTrue(all(gap <= longest for gap in gaps), gaps)
        self.assertGreater(sum(gaps) / len(gaps), limits.NAT_KEEPALIVE_S * (1 - limits.RTO_JITTER))

    def test_who_left_makes_room(self):
        """A neighbour that died is unpinned and replaced."""
        addresses = self.meet(limits.NAT_PINNED + 1)
        self.hide()
        self.bindings.upkeep()
        (spare,) = set(addresses) - set(self.bindings.pinned)
        for _ in range(limits.MISSES_DEAD):
            self.network.neighbours.missed(addresses[0])
        self.bindings.upkeep()
        self.assertNotIn(addresses[0], self.bindings.pinned)
        self.assertIn(spare, self.bindings.pinned)

    def test_open_ones_first(self):
        """Neighbours behind NATs are pinned only where open ones leave places."""
        hidden = self.meet(2, nat=True)
        node_id, address = neighbour(9)
        self.network.neighbours.verified(node_id, address, 0.0)
        self.hide()
        self.bindings.upkeep()
        self.assertEqual([address, *hidden], self.bindings.pinned)

    def test_bindings_are_kept_where_strangers_use_them(self):
        """Behind a NAT that lets everybody in, the mapping must live all the same."""
        addresses = self.meet(2)
        self.hide()
        self.show()
        self.bindings.upkeep()
        self.assertEqual(State.OPEN, self.network.reach.ipv4.state)
        self.assertEqual(sorted(addresses), sorted(self.bindings.pinned))
        self.assertEqual({0}, {flags for _, flags in self.pings()})

    def test_nat_that_went(self):
        """Without a NAT nobody is pinned any more."""
        self.meet(2)
        self.hide()
        self.bindings.upkeep()
        self.clock.advance(1)
        self.clock.advance(limits.OBSERVATION_S + 1)
        self.bindings.upkeep()
        self.assertEqual([], self.bindings.pinned)


class TellingTests(BindingsCase):
    """What neighbours are told."""

    def test_change_is_told_at_once_and_once(self):
        """All neighbours learn it, TOLD_AT_ONCE in a step; then only the pinned are pinged."""
        addresses = self.meet(20)
        self.hide()
        self.bindings.changed()
        told = self.pings()
        self.assertEqual(TOLD_AT_ONCE, len(told))
        self.clock.advance(0.5)
        self.bindings.changed()
        self.clock.advance(0.5)
        self.bindings.changed()
        told += self.pings()
        self.assertEqual(sorted((address, int(Flag.NAT)) for address in addresses), sorted(told))
        self.bindings.changed()
        self.assertEqual([], self.pings())

    def test_being_reached_is_told_too(self):
        """Who was told of a NAT hears of its end."""
        self.meet(2)
        self.hide()
        self.bindings.changed()
        self.clock.advance(0.5)
        self.show()
        self.pings()
        self.bindings.changed()
        self.assertEqual([0, 0], [flags for _, flags in self.pings()])

    def test_stranger_is_told_with_his_token(self):
        """The first ping to a stranger has no token and is not believed: a second one follows."""
        self.hide()
        address = neighbour(3)[1]
        self.network.contact(address)
        self.clock.advance(1)
        first, second = (m for m, _ in self.sent if isinstance(m, Ping))
        self.assertEqual((bytes(8), b"t" * 8), (first.token, second.token))
        self.assertEqual([int(Flag.NAT)] * 2, [first.flags, second.flags])

    def test_operator_is_told(self):
        """One line when a NAT is found, one when it turns out to let callers in, no more."""
        self.meet(2)
        with capturedLogs() as events:
            self.bindings.upkeep()
            self.hide()
            self.bindings.upkeep()
            self.bindings.upkeep()
            self.show()
            self.bindings.upkeep()
        lines = [event["log_format"] for event in events if "log_format" in event]
        self.assertEqual(2, len(lines))
        self.assertIn("behind a NAT", lines[0])
        self.assertIn("after all", lines[1])
        (event,) = [event for event in events if "host" in event]
        self.assertEqual(
            ("IPv4", OUTSIDE.host, limits.NAT_PINNED),
            (event["family"], event["host"], event["count"]),
        )
