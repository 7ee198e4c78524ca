"""A private network under attack, and what its secrecy costs.

Datagrams: how many forged, replayed or flipped ones does a node accept?
A million datagrams (with `--quick` 30,000) of each kind go straight into `Node.datagram_received`
of a node in a private network, from many addresses. Accepted is what gets past the envelope;
answered is what the node sends. The same junk, with the other tag, goes into a node of the public
network in turn, for what it costs there: CPU time of the process, median of the rounds. Each part
ends with the real thing, which must be accepted, or the count would prove nothing.

TCP: throughput beside plain transfers, handshakes, and floods of them: see ``private_tcp.py``.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable

import hostile
import private_tcp
from common import Report, options
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, NodeKey
from p2pdist.overlay.envelope import BOOT_ID_BYTES, HEADER_BYTES, Envelope
from p2pdist.overlay.messages import NO_TOKEN
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node, NodeSocket
from p2pdist.overlay.wire import encode

FULL, QUICK = 1_000_000, 30_000
ROUNDS = 10
DISTINCT = 1000
AT_MOST = 2.0
REPLAYED = 20_000
KEYS = NetworkKeys.from_secret(random.Random(7).randbytes(32))


REFUSED = ("seal", "replayed", "counter-range", "own-datagram")
"""The envelope's rules: what they do not drop was accepted, whatever becomes of it."""


class Wire(NodeSocket):
    """The node's socket; counts the notices that would be sent."""

    notices = 0

    def send(self, _datagram: bytes, _address: Address) -> None:
        """Count it."""
        self.notices += 1


class Target:
    """A node of one network, without a real socket."""

    def __init__(self, keys: NetworkKeys, seed: int) -> None:
        chance = random.Random(seed)
        self.clock = Clock()
        key = NodeKey.from_seed(chance.randbytes(32))
        self.node = Node(key, self.clock, chance, chance.randbytes, self.clock.seconds)
        self.network: Network = self.node.add_network(keys)
        self.network.transmit = self._transmit
        self.wire = Wire(self.node, "0.0.0.0")
        self.received = self._sent = 0

    def _transmit(self, _datagram: bytes, _address: Address) -> None:
        self._sent += 1

    @property
    def accepted(self) -> int:
        """How many datagrams got past the envelope."""
        refused = sum(self.network.dropped[rule] for rule in REFUSED)
        return self.received - refused - sum(self.node.dropped.values())

    @property
    def answered(self) -> int:
        """How many datagrams were sent."""
        return self._sent + self.wire.notices

    def receive(self, datagram: bytes, source: Address) -> None:
        """Let a datagram arrive."""
        self.received += 1
        self.node.datagram_received(datagram, source, self.wire)


# --- forged datagrams ---


def unknown_senders(chance: random.Random, tag: bytes) -> bytes:
    """Return junk with the right tag and a boot id of its own: a key is derived for each."""
    size = chance.randrange(17, limits.DATAGRAM_BYTES - HEADER_BYTES)
    head = b"\xd1\x01" + tag + chance.randbytes(BOOT_ID_BYTES) + bytes(6) + chance.randbytes(2)
    return head + chance.randbytes(size)


def as_a_member(chance: random.Random, tag: bytes) -> bytes:
    """Return junk in the name of one process that the node knows: its boot id was overheard."""
    size = chance.randrange(17, limits.DATAGRAM_BYTES - HEADER_BYTES)
    head = b"\xd1\x01" + tag + MEMBER + bytes(6) + chance.randbytes(2)
    return head + chance.randbytes(size)


def other_keys(chance: random.Random, tag: bytes) -> bytes:
    """Return a ping sealed with another secret, under the right tag."""
    sealer = Envelope(WRONG[tag], chance.randbytes)
    return sealer.seal(encode(hostile.ping(chance, NO_TOKEN)))


MEMBER = random.Random(9).randbytes(BOOT_ID_BYTES)
KINDS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "junk of unknown senders": unknown_senders,
    "junk in a member's name": as_a_member,
    "pings with another secret": other_keys,
}


def lookalike(keys: NetworkKeys) -> NetworkKeys:
    """Return keys that share nothing but the tag."""
    other = NetworkKeys.from_secret(random.Random(8).randbytes(32))
    return NetworkKeys(tag=keys.tag, udp=other.udp, private=True, prk=other.prk)


WRONG = {keys.tag: lookalike(keys) for keys in (KEYS, PUBLIC_NETWORK)}


def member_of(keys: NetworkKeys) -> Envelope:
    """Return the envelope of the member whose name is abused."""
    return Envelope(keys, lambda _size: MEMBER)


def forged(report: Report, count: int) -> None:
    """Add what forged datagrams of each kind do to a private node, and cost it and a public one."""
    for label, make in KINDS.items():
        targets = {"private": Target(KEYS, 1), "public": Target(PUBLIC_NETWORK, 1)}
        took: dict[str, list[float]] = {name: [] for name in targets}
        chance = random.Random(label)
        sources = [hostile.global_address(chance) for _ in range(DISTINCT)]
        for name, target in targets.items():
            keys = KEYS if name == "private" else PUBLIC_NETWORK
            target.receive(member_of(keys).seal(encode(hostile.ping(chance, NO_TOKEN))), sources[0])
            assert target.accepted == 1
        each = count // ROUNDS
        for turn in range(ROUNDS):
            order = list(targets) if turn % 2 else list(reversed(targets))
            for name in order:
                tag = targets[name].network.keys.tag
                made = random.Random(f"{label} {turn}")
                ready = [make(made, tag) for _ in range(each)]
                receive = targets[name].receive
                began = time.process_time()
                for number, datagram in enumerate(ready):
                    receive(datagram, sources[number % DISTINCT])
                took[name].append((time.process_time() - began) / each)
        private = targets["private"]
        assert private.received == each * ROUNDS + 1
        report.add(f"{label}: forged", each * ROUNDS, "")
        report.add(f"{label}: accepted", private.accepted - 1, "", at_most=0)
        report.add(f"{label}: answered", private.answered - 1, "", at_most=0)
        ratios = [a / b for a, b in zip(took["private"], took["public"], strict=True)]
        micro = {name: 1e6 * statistics.median(times) for name, times in took.items()}
        report.add(f"{label}: CPU each, private", micro["private"], "us")
        report.add(f"{label}: CPU each, public", micro["public"], "us")
        report.add(
            f"{label}: CPU, private to public", statistics.median(ratios), "x", at_most=AT_MOST
        )
        report.add(f"{label}: the same, worst round", max(ratios), "x")


# --- true datagrams, changed or sent again ---


def flipped(report: Report) -> None:
    """Flip every bit of one datagram of each size a node sends, and add what gets through."""
    chance = random.Random(3)
    target = Target(KEYS, 2)
    sealer = Envelope(KEYS, chance.randbytes)
    source = hostile.global_address(chance)
    bits = accepted = answered = 0
    messages = (hostile.ping(chance, NO_TOKEN), *(m(chance, bytes(8)) for m in hostile.REQUESTS))
    for message in messages:
        datagram = sealer.seal(encode(message))
        before = target.accepted, target.answered
        for bit in range(8 * len(datagram)):
            changed = bytearray(datagram)
            changed[bit >> 3] ^= 1 << (bit & 7)
            target.receive(bytes(changed), source)
            bits += 1
        accepted += target.accepted - before[0]
        answered += target.answered - before[1]
        true = target.accepted
        target.receive(datagram, source)
        assert target.accepted == true + 1, "unchanged it is accepted"
    report.add("bits flipped, of one datagram of each kind", bits, "")
    report.add("flipped datagrams accepted", accepted, "", at_most=0)
    report.add("flipped datagrams answered", answered, "", at_most=0)


def replayed(report: Report) -> None:
    """Send recorded datagrams again, in another order, from the same and from other addresses."""
    chance = random.Random(4)
    target = Target(KEYS, 3)
    sealer = Envelope(KEYS, chance.randbytes)
    home = hostile.global_address(chance)
    recorded = [sealer.seal(encode(hostile.ping(chance, NO_TOKEN))) for _ in range(REPLAYED)]
    for number, datagram in enumerate(recorded):
        target.receive(datagram, home)
        if number % 20 == 0:
            target.clock.advance(1.0)
    assert target.accepted == REPLAYED, "each is accepted once"
    sent = target.answered
    for label, elsewhere in (("their own address", False), ("other addresses", True)):
        before = target.accepted
        chance.shuffle(recorded)
        began = time.process_time()
        for datagram in recorded:
            target.receive(datagram, hostile.global_address(chance) if elsewhere else home)
        took = time.process_time() - began
        report.add(f"replays from {label}", REPLAYED, "")
        report.add(f"replays from {label}: accepted", target.accepted - before, "", at_most=0)
        report.add(f"replays from {label}: CPU each", 1e6 * took / REPLAYED, "us")
    report.add("replays answered", target.answered - sent, "", at_most=0)


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report(seed=1)
    forged(report, QUICK if chosen.quick else FULL)
    flipped(report)
    replayed(report)
    private_tcp.handshakes(report, quick=chosen.quick)
    private_tcp.throughput(report, quick=chosen.quick)
    private_tcp.flood(report, quick=chosen.quick)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
