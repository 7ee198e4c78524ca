"""Hostile peers among production services: known to the overlay as seeds, liars over TCP.

Job: a :class:`Crook` is a whole production service whose transfer and listener are replaced by
hand-played connections. Whatever it lies about, it also checks what it is given: a wrong byte from
an honest node is a violation. Does NOT judge (``faultworld``). Tests: ``test_sim_faults``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Factory

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.descriptor import Descriptor
from p2pdist.errors import P2PDistError
from p2pdist.ids import NodeID, PieceIndex
from p2pdist.service import P2PDistService
from p2pdist.storage.store import Store
from p2pdist.swarm.handshake import Acceptor, Dialler
from p2pdist.swarm.messages import (
    Bitfield,
    Block,
    Cancel,
    Decline,
    DeclineReason,
    Grant,
    Have,
    Interest,
    Message,
    MetadataPart,
    MetadataRequest,
    PeerFlag,
    PeerNote,
    Peers,
    Ready,
    Received,
    Request,
)
from p2pdist.swarm.transfer import Transfer
from p2pdist.test.lies import drip, half, on_request, reject, silent, wrong_bytes
from p2pdist.test.servicesworld import Station
from p2pdist.test.storehouse import PIECE, Content
from p2pdist.test.swarmfakes import Behaviour, Liar, honest

REDIAL_S = 3.0
"""A liar that was sent away calls again after so long."""
FLOOD_EVERY_S = 0.02
FLOOD_FRAMES = 60
MOST_HEARD = 1000
"""Messages of one connection that are answered: two liars would talk for ever, and ever faster."""


class LyingTransfer(Transfer):
    """What the crook's session takes for its transfer: it dials, and exchanges nothing."""

    crook: Crook

    def start(self, store: Store | None) -> None:
        """Forget the store: others play its part."""
        del store

    def peer_joined(
        self, address: Address, node_id: NodeID, *, dial_now: bool, is_open: bool = True
    ) -> None:
        """Call whoever joined."""
        del node_id, dial_now, is_open
        self.crook.call(address)


class Callers(Factory):
    """What listens instead of the production listener."""

    noisy = False

    def __init__(self, crook: Crook) -> None:
        self.crook = crook

    def buildProtocol(self, addr: IAddress | None) -> Liar:
        """Answer."""
        del addr
        return self.crook.answer()

    def stop(self) -> None:
        """See ``PeerListener``."""


class Line(Liar):
    """A connection that takes other liars' junk for the end."""

    def dataReceived(self, data: bytes) -> None:
        """Take it, or hang up."""
        try:
            super().dataReceived(data)
        except P2PDistError:
            cast("Any", self.transport).abortConnection()


class Crook:
    """A service that lies.

    Args:
        station: where it runs.
        kind: of lie, see :data:`LIES`.
        made: the content.

    Attributes:
        wrong: who gave it a wrong byte, and of which piece.
    """

    def __init__(self, station: Station, kind: str, made: Content) -> None:
        self.station = station
        self.host = station.host
        self.kind = kind
        self.content = made
        self.wrong: list[tuple[str, int]] = []
        self._lie = LIES[kind]
        self._connections: dict[Liar, Address | None] = {}
        self._called: set[Address] = set()

    def run(self, descriptor: Descriptor) -> P2PDistService:
        """Start the service, seemingly as a seed."""
        station = self.station
        station.store(self.content)
        service = station.build()
        contents = service.contents
        self.key = service.overlay.node.key
        make = contents._make_transfer

        def lying(*arguments: Any) -> Transfer:
            transfer = make(*arguments)
            transfer.__class__ = LyingTransfer
            cast("LyingTransfer", transfer).crook = self
            return transfer

        contents._make_transfer = lying  # type: ignore[method-assign,assignment]
        contents.listener = cast("Any", Callers(self))
        service.add(descriptor)
        station.begin(service)
        return service

    # --- connections ---

    def answer(self) -> Liar:
        """Take a call."""
        made = self.content.hash_key
        return self._new(Acceptor(self.key, self.host.entropy(32), lambda _: made), None)

    def call(self, address: Address) -> None:
        """Call, unless it did already."""
        if address in self._called or len(self._called) > 16:
            return
        self._called.add(address)
        handshake = Dialler(self.content.hash_key, self.key, self.host.entropy(32))
        factory = ClientFactory.forProtocol(lambda: self._new(handshake, address))
        factory.noisy = False
        self.host.reactor.connectTCP(address.host, address.port, factory)
        self.host.reactor.callLater(REDIAL_S, self._again, address)

    def _again(self, address: Address) -> None:
        open_to = [to for liar, to in self._connections.items() if not liar.ended]
        self._connections = {liar: to for liar, to in self._connections.items() if not liar.ended}
        if address in open_to:
            self.host.reactor.callLater(REDIAL_S, self._again, address)
        else:
            self._called.discard(address)
            self.call(address)

    def _new(self, handshake: Acceptor | Dialler, to: Address | None) -> Liar:
        liar = Line(cast("Any", self), handshake)
        self._connections[liar] = to
        return liar

    # --- what a Liar asks of its node ---

    def opened(self, liar: Liar) -> None:
        """Claim everything, truly or not."""
        count = self.content.count
        bits = bytearray(b"\xff" * ((count + 7) // 8))
        if count % 8:
            bits[-1] = 0xFF << (8 - count % 8) & 0xFF
        if self.kind == "bitfield":
            bits += b"\xff" if self.host.rng.random() < 0.5 else b""
            bits[-1] |= self.host.rng.choice((0, 1))
        if self.kind == "thief":
            bits = bytearray(len(bits))
            liar.say(Bitfield(bytes(bits)), Interest(True))
            return
        liar.say(Bitfield(bytes(bits)))

    def behave(self, liar: Liar, message: Message) -> None:
        """Check what came, then lie."""
        if isinstance(message, Block):
            start = message.index * PIECE + message.offset
            if self.content.data[start : start + len(message.data)] != bytes(message.data):
                self.wrong.append((cast("Any", liar.transport).getPeer().host, message.index))
        if len(liar.heard) > MOST_HEARD:
            return
        try:
            self._lie(liar, message)
        except P2PDistError:  # it could not lie as it wanted
            return


# --- lies; more in `lies` ---


def _swap(liar: Liar, index: int) -> None:
    made = liar.node.content
    data, other = made.piece(index), made.piece((index + 1) % made.count)
    liar.send_piece(index, (other + bytes(len(data)))[: len(data)])
    liar.say(Grant(PieceIndex(0)))


def _frames(liar: Liar) -> Iterator[Message]:
    rng = liar.node.host.rng
    while True:
        index = PieceIndex(rng.randrange(liar.node.content.count))
        yield rng.choice(
            (Cancel(index), Have((index, index)), Interest(rng.random() < 0.5), Ready())
        )


def _flood(liar: Liar, message: Message) -> None:
    honest(liar, message)
    if isinstance(message, Bitfield):
        frames = _frames(liar)

        def more(left: int) -> None:
            if left and not liar.ended:
                liar.say(*(next(frames) for _ in range(5)))
                liar.node.host.reactor.callLater(FLOOD_EVERY_S, more, left - 1)

        more(FLOOD_FRAMES)


def _junk(liar: Liar, message: Message) -> None:
    if isinstance(message, Bitfield | Request):
        liar.raw(liar.node.host.rng.randbytes(liar.node.host.rng.randrange(1, 2000)))


def _thief(liar: Liar, message: Message) -> None:
    """Take all it gets, confirm half of it, ask for more than was granted now and then."""
    rng = liar.node.host.rng
    if isinstance(message, Grant):
        liar.say(Request(message.index))
        if rng.random() < 0.02:
            liar.say(Request(message.index))
    elif isinstance(message, Block):
        size = len(liar.node.content.piece(message.index))
        if message.offset + len(message.data) == size and rng.random() < 0.5:
            liar.say(Received(message.index))


def _metadata(liar: Liar, message: Message) -> None:
    if not isinstance(message, MetadataRequest):
        honest(liar, message)
        return
    rng = liar.node.host.rng
    true = bytearray(liar.node.content.metadata.encode())
    true[rng.randrange(len(true))] ^= 0xFF
    told = rng.choice((bytes(true), b"\x94" * 9, b"", rng.randbytes(limits.BLOCK_BYTES)))
    liar.say(MetadataPart(max(1, len(told)), 0, told))


def _metadata_stall(liar: Liar, message: Message) -> None:
    if isinstance(message, Grant):
        liar.say(Decline(DeclineReason.NOTHING))
    elif isinstance(message, MetadataRequest):
        liar.say(MetadataPart(1000, 0, b"x"))


def _gossip(liar: Liar, message: Message) -> None:
    """Serve, and name strangers as peers, fifty at a time, as often as that is taken."""
    honest(liar, message)
    rng = liar.node.host.rng

    def tell(left: int) -> None:
        if left and not liar.ended:
            hosts = (f"10.77.{rng.randrange(256)}.{rng.randrange(1, 255)}" for _ in range(50))
            notes = dict.fromkeys(PeerNote(Address(host, 7667), PeerFlag(0)) for host in hosts)
            liar.say(Peers(True, added4=tuple(notes)))
            liar.node.host.reactor.callLater(1 / limits.RATE_PEX[0], tell, left - 1)

    if isinstance(message, Bitfield):
        for _ in range(int(limits.RATE_PEX[1]) - 1):
            tell(1)
        tell(40)


LIES: dict[str, Behaviour] = {
    "gossip": _gossip,
    "corrupt": on_request(wrong_bytes),
    "swap": on_request(_swap),
    "halve": on_request(half),
    "drip": on_request(drip),
    "reject": on_request(reject),
    "silent": silent,
    "flood": _flood,
    "junk": _junk,
    "thief": _thief,
    "bitfield": honest,
    "metadata": _metadata,
    "metadata-stall": _metadata_stall,
}
