"""The swarm strategy on simulated lines: makespan against the fluid bound.

Production code from :class:`PeerConnection` up (wire, handshake, sender, exchange, picker,
uploader) runs unchanged on :mod:`p2pdist.simulation.links`; only hashing, disk and discovery are
left out. The bound is max(F / seed's uplink, F / slowest downlink, N F / all uplinks) at 1448 of
1500 bytes, as on real lines, so that TCP's headers cost nothing here.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable

from attrs import define, field, frozen
from common import Report, options
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from p2pdist import limits
from p2pdist.errors import StorageError
from p2pdist.ids import HashKey, PieceIndex
from p2pdist.keys import NodeKey
from p2pdist.simulation.links import Host, Stream, Terrain
from p2pdist.simulation.timeline import KERNEL, Boot, DelayedCall, Timeline
from p2pdist.storage.pieces import Bitfield as PieceSet
from p2pdist.storage.pieces import Geometry
from p2pdist.swarm import masks
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.exchange import Exchange
from p2pdist.swarm.handshake import Acceptor, Dialler
from p2pdist.swarm.messages import Bitfield, Message

GOODPUT = 1448 / 1500
MBIT = 1e6 / 8 * GOODPUT
PACKET_BYTES = 1448
HASH_KEY = HashKey(bytes(32))
ZEROS = bytes(limits.PIECE_LENGTH_MAX)


class SimClock:
    """Twisted's clock on a timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._pending: dict[DelayedCall, None] = {}
        self._boot = Boot()

    def seconds(self) -> float:
        """See ``IReactorTime``."""
        return self._timeline.now

    def callLater(self, delay: float, call: Callable[..., object], *args: object) -> IDelayedCall:
        """See ``IReactorTime``."""
        when = self._timeline.now + delay
        return DelayedCall(self._timeline, self._boot, self._pending, when, (call, args, {}))

    def stop(self) -> None:
        """Make no call any more."""
        self._boot.end()


@define(eq=False)
class SimStore:
    """A store of zeros that verifies everything, after a moment."""

    geometry: Geometry
    have: PieceSet
    timeline: Timeline
    published: bool = False
    on_lost: object = None
    on_found: object = None

    def read(self, _index: int, _offset: int, size: int, *, lend: bool = False) -> Deferred[bytes]:
        """Return that many zeros at once."""
        del lend
        return succeed(ZEROS[:size])

    def write_piece(self, index: int, _data: memoryview) -> Deferred[None]:
        """Have the piece 1 ms later."""
        written: Deferred[None] = Deferred()

        def done() -> None:
            self.have.set(PieceIndex(index))
            written.callback(None)

        self.timeline.at(self.timeline.now + 0.001, KERNEL, done)
        return written


@frozen(kw_only=True)
class Scenario:
    """What is distributed where.

    Attributes:
        leechers: how many.
        pieces: how many.
        piece_length: bytes.
        mbit: nominal rate of every line, each way.
        slow_share: share of leechers with a quarter of the upload.
        kill_seed_at: copies the seed may send before it dies, or ``None``.
        neighbours: connections each leecher makes or gets, about; everybody if ``None``.
        delay_s: one way.
        loss: share of packets lost on the way.
        seed: of chance.
    """

    leechers: int
    pieces: int
    piece_length: int = 65536
    mbit: float = 10.0
    slow_share: float = 0.0
    kill_seed_at: float | None = None
    neighbours: int | None = None
    delay_s: float = 0.0025
    loss: float = 0.0
    seed: int = 1

    @property
    def length(self) -> int:
        """Bytes of the content."""
        return self.pieces * self.piece_length

    def uplinks(self) -> list[float]:
        """Return the uplinks in bytes per second of payload, the seed's first."""
        rate = self.mbit * MBIT
        slow = round(self.slow_share * self.leechers)
        return [rate] + [rate / 4] * slow + [rate] * (self.leechers - slow)

    def bound_s(self) -> float:
        """Return what no method can beat."""
        ups, rate = self.uplinks(), self.mbit * MBIT
        return max(self.length / rate, self.leechers * self.length / sum(ups))

    def terrain(self) -> Terrain:
        """Return the lines' common traits; segments grow with the rate to save time.

        Not with the swarm, and not far: segments beyond TCP's first window made a swarm of 64 look
        14 % slower, and windows of few long segments one of 8 with 1 Gbit/s three times slower. On
        long ways windows are what counts, so there each packet is one.
        """
        segment = min(max(2 * PACKET_BYTES, int(self.mbit * MBIT * 0.002)), 8 * PACKET_BYTES)
        if self.delay_s >= limits.LONG_WAY_S:
            segment = PACKET_BYTES
        return Terrain(delay_s=self.delay_s, segment_bytes=segment, loss=self.loss)


class Member:
    """One node: the production exchange, and connections that report to it."""

    def __init__(self, world: Swarm, number: int, up: float, *, complete: bool) -> None:
        scenario = world.scenario
        self.world = world
        self.number = number
        self.key = NodeKey.from_seed(number.to_bytes(32, "big"))
        self.rng = random.Random(f"{scenario.seed}/{number}")
        self.clock = SimClock(world.timeline)
        losses = random.Random(f"{scenario.seed}/{number}/losses")
        down = scenario.mbit * MBIT
        self.host = Host(world.timeline, world.terrain, up, down, losses)
        have = PieceSet(scenario.pieces)
        if complete:
            for index in range(scenario.pieces):
                have.set(PieceIndex(index))
        self.store = SimStore(
            Geometry(scenario.length, scenario.piece_length), have, world.timeline, complete
        )
        self.exchange = Exchange(
            store=self.store,  # type: ignore[arg-type]
            clock=self.clock,  # type: ignore[arg-type]
            rng=self.rng,
            budget=AssemblyBudget(),
            owner=self,
        )
        self.done_at: float | None = None
        self.members: dict[PeerConnection, bool] = {}
        self.useless_bytes = 0
        self._tick()

    def _tick(self) -> None:
        self.clock.callLater(limits.TICK_S, self._tick)
        self.exchange.tick(self.world.timeline.now)

    def nonce(self) -> bytes:
        """Return 32 bytes."""
        return self.rng.randbytes(32)

    def switch_off(self) -> None:
        """Die without a word; the others' kernels notice in the end, here at once."""
        self.host.switch_off()
        self.clock.stop()
        for connection in list(self.members):
            connection.transport.abortConnection()  # type: ignore[union-attr]

    # --- ConnectionWatcher and ConnectionOwner ---

    def connection_proved(self, peer: PeerConnection) -> None:
        """Begin with a peer."""
        peer.attach(self)
        self.members[peer] = True
        self.exchange.add_peer(peer, interested=False)

    def connection_ended(self, peer: PeerConnection, reason: str) -> None:
        """Nothing is left to do."""

    def message_received(self, peer: PeerConnection, message: Message) -> None:
        """Do what a transfer does."""
        if isinstance(message, Bitfield):
            self.exchange.peer_has(peer, masks.from_bitfield(message.bits))
        else:
            self.exchange.receive(peer, message)

    def piece_bytes_received(self, peer: PeerConnection, size: int) -> None:
        """Pass it on."""
        self.exchange.piece_bytes_received(peer, size)

    def piece_received(self, peer: PeerConnection, index: PieceIndex, data: bytearray) -> None:
        """Pass it on."""
        self.exchange.piece_received(peer, index, data)

    def connection_closed(self, peer: PeerConnection, reason: str) -> None:
        """End with a peer."""
        del reason
        del self.members[peer]
        self.exchange.remove_peer(peer)

    def connection_gone(self, peer: PeerConnection) -> None:
        """Nothing is left to do."""

    # --- ExchangeOwner ---

    def piece_verified(self, _index: PieceIndex) -> None:
        """Watch the seed's death."""
        self.world.look_at_seed()

    def piece_spoiled(self, peer: PeerConnection, index: PieceIndex) -> None:
        """Nobody lies here."""
        raise AssertionError(f"{index} of {peer}")

    def disk_failed(self, error: StorageError) -> None:
        """Disks do not fail here."""
        raise error

    def disk_works(self) -> None:
        """It always does."""

    def all_verified(self) -> None:
        """Note the time."""
        self.done_at = self.world.timeline.now
        self.store.published = True
        self.world.unfinished -= 1

    def published_piece_lost(self, index: PieceIndex) -> None:
        """Nobody changes files here."""


@define(eq=False)
class Swarm:
    """All members and their lines."""

    scenario: Scenario
    timeline: Timeline = field(init=False)
    terrain: Terrain = field(init=False)
    members: list[Member] = field(init=False)
    unfinished: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        scenario = self.scenario
        self.timeline = Timeline(scenario.seed)
        self.timeline.events_max = 1 << 40
        self.terrain = scenario.terrain()
        self.unfinished = scenario.leechers
        self.members = [
            Member(self, number, up, complete=number == 0)
            for number, up in enumerate(scenario.uplinks())
        ]
        rng = random.Random(f"{scenario.seed}/edges")
        for number, member in enumerate(self.members):
            others = range(number)
            count = len(others) if scenario.neighbours is None else scenario.neighbours // 2
            for other in rng.sample(others, min(count, len(others))):
                # Dialling and proving take a round trip and some; not all at one moment.
                self.timeline.at(
                    rng.uniform(0, 0.05), KERNEL, self._connect, member, self.members[other]
                )

    def _connect(self, caller: Member, called: Member) -> None:
        one = Stream(caller.host, called.host, _name(caller))
        other = Stream(called.host, caller.host, _name(called))
        dialler = PeerConnection(
            clock=caller.clock,  # type: ignore[arg-type]
            handshake=Dialler(HASH_KEY, caller.key, caller.nonce()),
            watcher=caller,
            outgoing=True,
        )
        acceptor = PeerConnection(
            clock=called.clock,  # type: ignore[arg-type]
            handshake=Acceptor(called.key, called.nonce(), lambda _: HASH_KEY),
            watcher=called,
            outgoing=False,
        )
        one.receiver, other.receiver = acceptor, dialler

        def closed() -> None:
            for protocol, stream in ((dialler, one), (acceptor, other)):
                stream.receiver = None
                stream.closed = lambda: None
                if protocol.transport is not None:
                    protocol.transport = None
                    protocol.connectionLost()

        one.closed = other.closed = closed
        acceptor.makeConnection(other)
        dialler.makeConnection(one)

    def look_at_seed(self) -> None:
        """Switch the seed off when it has sent what it may."""
        copies = self.scenario.kill_seed_at
        seed = self.members[0]
        if copies is None or not seed.host.alive:
            return
        if seed.host.sent_bytes >= copies * self.scenario.length:
            seed.switch_off()

    def run(self, patience: float = 6.0) -> dict[str, float]:
        """Distribute; return figures, times over the bound."""
        bound = self.scenario.bound_s()
        started = time.process_time()
        deadline = patience * bound + 30.0
        while self.unfinished and self.timeline.now < deadline:
            self.timeline.step()
        leechers = self.members[1:]
        times = [member.done_at for member in leechers if member.done_at is not None]
        moved = sum(member.host.sent_bytes for member in self.members)
        lost = sum(member.host.lost_bytes for member in self.members)
        total = self.scenario.leechers * self.scenario.length
        return {
            "ratio": max(times, default=0.0) / bound if not self.unfinished else float("inf"),
            "median": sorted(times)[len(times) // 2] / bound if times else float("inf"),
            "finished": len(times),
            "seed copies": self.members[0].host.sent_bytes / self.scenario.length,
            "sent": moved / total,
            "lost": lost / total,
            "cpu_s": time.process_time() - started,
        }


def _name(member: Member) -> IPv4Address:
    number = member.number + 1
    return IPv4Address("TCP", f"10.0.{number >> 8}.{number & 255}", 7667)


def rows(*, quick: bool) -> list[tuple[str, Scenario, float | None]]:
    """Return name, scenario and the ratio it should stay under."""
    if quick:
        return [("N=4, 4 MiB", Scenario(leechers=4, pieces=64), None)]
    made: list[tuple[str, Scenario, float | None]] = [
        ("N=8, 16 MiB", Scenario(leechers=8, pieces=256), 1.25),
        ("N=8, 48 MiB", Scenario(leechers=8, pieces=768), 1.15),
        ("N=16, 48 MiB", Scenario(leechers=16, pieces=768), 1.25),
        ("N=8, half at 1/4 upload", Scenario(leechers=8, pieces=256, slow_share=0.5), 1.40),
        ("N=8, seed dies at 1.1", Scenario(leechers=8, pieces=256, kill_seed_at=1.1), 1.35),
    ]
    for loss in (0.0, 0.05):
        scenario = Scenario(leechers=8, pieces=256, delay_s=0.04, loss=loss)
        made.append((f"N=8, 16 MiB, 80 ms, {loss:.0%} loss", scenario, 2.5 if loss else None))
    for leechers in (8, 16, 64, 256, 1000):
        for pieces in (32, 128, 512):
            neighbours = None if leechers < 64 else 32
            scenario = Scenario(leechers=leechers, pieces=pieces, neighbours=neighbours)
            target = 1.05 if pieces == 512 and leechers >= 64 else None
            made.append((f"N={leechers}, P={pieces}", scenario, target))
    for mbit, pieces, length in (
        (1.0, 128, 1 << 16),
        (1e3, 128, 1 << 18),
        (1e3, 1024, 1 << 18),
        (1e4, 128, 1 << 20),
    ):
        scenario = Scenario(leechers=8, pieces=pieces, mbit=mbit, piece_length=length)
        made.append((f"N=8, P={pieces}, {mbit:g} Mbit/s", scenario, None))
    return made


def main() -> None:
    """Run every scenario, or those chosen."""
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--only", default="", help="rows whose name contains this  [all]")
    chosen = options(__doc__, more)
    report = Report(seed=1)
    for name, scenario, target in rows(quick=chosen.quick):
        if chosen.only not in name:
            continue
        figures = Swarm(scenario).run()
        report.add(f"makespan / bound, {name}", figures["ratio"], "", at_most=target)
        if not chosen.json:
            print(name, {key: round(value, 3) for key, value in figures.items()}, file=sys.stderr)
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
