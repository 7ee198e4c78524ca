"""What tests of the swarm stand on: contents, nodes in the simulated network, peers that lie.

Job: fixtures only. A :class:`SwarmNode` is one process with the production listener, transfer and
store on a simulated disk; a :class:`Liar` speaks the protocol by hand. Tests: used by
``test_transfer``, ``test_hostile`` and their kin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.census.gossip import Frame
from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.ids import PieceIndex
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, NodeKey
from p2pdist.storage.locate import create, locate
from p2pdist.storage.place import Place
from p2pdist.storage.store import Store
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.handshake import Acceptor, Dialler, Handshake
from p2pdist.swarm.listener import PeerListener
from p2pdist.swarm.messages import (
    Bitfield,
    Block,
    Bye,
    Grant,
    Interest,
    Message,
    MetadataPart,
    MetadataRequest,
    Request,
)
from p2pdist.swarm.peerwire import PREFACE, PeerWire, encode
from p2pdist.swarm.progress import Progress
from p2pdist.swarm.swarms import Swarms
from p2pdist.swarm.transfer import Transfer
from p2pdist.swarm.transport import Transports
from p2pdist.test.network import Host, World
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import DATA, PIECE, STATE, Content, content

PORT = 7667


def node_key(number: int) -> NodeKey:
    """Return the key of the node with this number."""
    return NodeKey.from_seed(number.to_bytes(32, "big"))


def file_of(pieces: int, *, seed: int = 1, short: int = 0, zeros: tuple[int, ...] = ()) -> Content:
    """Make up one file of so many pieces, the last ``short`` bytes shorter."""
    return content({"file.bin": pieces * PIECE - short}, seed=seed, zeros=zeros)


@define
class RecordedEvents:
    """A transfer's events, as a list of names and arguments."""

    seen: list[tuple[Any, ...]] = field(factory=list)

    def metadata_arrived(self, metadata: Metadata) -> None:
        """Record it."""
        self.seen.append(("metadata_arrived", metadata.hash_key()))

    def store_opened(self, store: Store) -> None:
        """Record it."""
        self.seen.append(("store_opened", store.complete))

    def piece_verified(self, index: PieceIndex) -> None:
        """Record it."""
        self.seen.append(("piece_verified", index))

    def completed(self) -> None:
        """Record it."""
        self.seen.append(("completed",))

    def paused(self, reason: str) -> None:
        """Record it."""
        self.seen.append(("paused", reason))

    def resumed(self) -> None:
        """Record it."""
        self.seen.append(("resumed",))

    def failed(self, error: Exception) -> None:
        """Record it."""
        self.seen.append(("failed", error))

    def peer_unreachable(self, address: Address, reason: str) -> None:
        """Record it."""
        self.seen.append(("peer_unreachable", address, reason))

    def peer_connected(self) -> None:
        """Nothing."""

    def census_received(self, peer: PeerConnection, frame: Frame) -> None:
        """Record it."""
        del peer
        self.seen.append(("census", frame))

    def peer_told(self, address: Address) -> None:
        """Record it."""
        self.seen.append(("peer_told", address))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """Return the events of one name."""
        return [event for event in self.seen if event[0] == name]


class SwarmNode:
    """One node: a host with listener, transfer and, once it has one, a store.

    Attributes:
        host: where it runs.
        networks: where its swarm lives.
        key: its node key.
        address: where it listens.
        disk: what it stores on.
        events: what the transfer told.
        transfer: of ``content``.
    """

    def __init__(
        self,
        world: World,
        number: int,
        content: Content,
        networks: tuple[NetworkKeys, ...] = (PUBLIC_NETWORK,),
        **disk: Any,
    ) -> None:
        self.world = world
        self.networks = networks
        self.content = content
        self.key = node_key(number)
        self.address = Address(f"10.0.0.{number}", PORT)
        self.host: Host = world.host(self.address.host)
        self.disk = SimDisk(**disk)
        self.disk.put_folder(DATA)
        self.disk.put_folder(STATE)
        self.events = RecordedEvents()
        self.admission = Admission()
        self.budget = AssemblyBudget()
        self._stores: list[Store] = []
        self._make()

    def _make(self) -> None:
        host = self.host
        transports = Transports(self.key, host.entropy)
        self.transfer = Transfer(
            hash_key=self.content.hash_key,
            node_id=self.key.node_id,
            way=transports.way(self.networks),
            clock=host.reactor,
            reactor=host.reactor,
            rng=host.rng,
            workers=host.workers,
            open_store=self._open_store,
            events=self.events,
            budget=self.budget,
            admission=self.admission,
        )
        self.swarms = Swarms()
        self.swarms.add(self.transfer, self.networks)
        self.listener = PeerListener(
            transports=transports,
            clock=host.reactor,
            swarms=self.swarms,
            public=lambda: PUBLIC_NETWORK in self.networks,
            admission=self.admission,
        )
        self.port = host.reactor.listenTCP(PORT, self.listener)

    def place(self) -> Place:
        """Return where it stores."""
        return Place(
            disk=self.disk,
            workers=self.host.workers,
            clock=self.host.reactor,
            directory=DATA,
            state_directory=STATE,
        )

    def _open_store(self, metadata: Metadata) -> Deferred[Store]:
        opening = create(
            self.place(),
            self.content.hash_key,
            metadata,
            self.content.descriptor(),
            self._told,
        )
        return opening.addCallback(self._keep)

    def _told(self, done: int, total: int) -> None:
        """Progress of hashing is of no interest here."""

    def _keep(self, store: Store) -> Store:
        self._stores.append(store)
        return store

    def seed(self) -> None:
        """Start with the whole content on disk."""
        for path, whole in self.content.files().items():
            self.disk.put(f"{DATA}/{path}", whole)
        descriptor: Descriptor = self.content.descriptor()
        locating = locate(self.place(), descriptor, self._told)
        store = self.world.wait_for(locating)
        assert store is not None and store.complete
        self.transfer.start(self._keep(store))

    def leech(self) -> None:
        """Start with nothing."""
        self.transfer.start(None)

    def meet(self, *others: SwarmNode, dial_now: bool = True) -> None:
        """The overlay joins others, as the one who asked."""
        for other in others:
            self.transfer.peer_joined(other.address, other.key.node_id, dial_now=dial_now)

    @property
    def progress(self) -> Progress:
        """Where the transfer stands."""
        return self.transfer.progress()

    @property
    def complete(self) -> bool:
        """Whether the content has its final name."""
        return bool(self.events.named("completed"))

    def saved(self) -> bytes:
        """Return the bytes under the final names, in order."""
        return b"".join(self.disk.get(f"{DATA}/{path}") for path in self.content.files())

    def stop(self) -> None:
        """Stop cleanly, as a session does."""
        self.world.wait_for(self.transfer.stop())
        self.port.stopListening()
        self.listener.stop()
        for store in self._stores:
            self.world.wait_for(store.close())


class FakeSocket:
    """A TCP transport that records: see :class:`p2pdist.swarm.sender.Socket`.

    Attributes:
        sent: bytes written and not taken by :meth:`take`.
        room: bytes until the producer is paused.
        producer: registered one.
        state: ``open``, ``losing`` (closes once written) or ``aborted``.
        reading: whether it is not paused.
    """

    bufferSize = 1 << 16

    def __init__(self, host: str = "10.0.0.9", port: int = 4000) -> None:
        self.sent = bytearray()
        self.room = 1 << 40
        self.producer: IPushProducer | None = None
        self.state = "open"
        self.reading = True
        self._peer = IPv4Address("TCP", host, port)

    def write(self, data: bytes) -> None:
        """Record bytes; pause the producer when there is no more room."""
        self.sent += data
        if len(self.sent) >= self.room and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Record bytes."""
        self.write(b"".join(data))

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Record it."""
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forget it."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Record it."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Record it."""
        self.reading = True

    def loseConnection(self) -> None:
        """Record it."""
        self.state = "losing"

    def abortConnection(self) -> None:
        """Record it."""
        self.state = "aborted"

    def getPeer(self) -> IAddress:
        """Return the other end."""
        return self._peer

    def take(self) -> bytes:
        """Return what was written since the last call; the producer is not told."""
        taken = bytes(self.sent)
        self.sent.clear()
        return taken


Behaviour = Callable[["Liar", Message], None]
"""What a liar does with a message; most fall back on :func:`honest`."""


class Liar(Protocol):
    """One connection of a peer that does what the test says.

    Attributes:
        heard: every message, data parts included.
        proved: whether the handshake is over.
        ended: why it was closed, or ``""``.
    """

    def __init__(self, node: LiarNode, handshake: Handshake) -> None:
        self.node = node
        self.heard: list[Message] = []
        self.proved = False
        self.ended = ""
        self._handshake = handshake
        self._wire = PeerWire()

    def connectionMade(self) -> None:
        """Begin the handshake."""
        self.raw(PREFACE)
        start = self._handshake.start()
        if start is not None:
            self.say(start)

    def dataReceived(self, data: bytes) -> None:
        """Finish the handshake, then behave."""
        for message in self._wire.receive_data(data):
            self.heard.append(message)
            if self.proved:
                self.node.behave(self, message)
            elif not isinstance(message, Bye):
                answer = self._handshake.receive(message)
                if answer is not None:
                    self.say(answer)
                if self._handshake.peer is not None:
                    self.proved = self._wire.proved = True
                    self.node.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember it."""
        self.ended = reason.getErrorMessage()

    def say(self, *messages: Message) -> None:
        """Send messages."""
        self.raw(b"".join(map(encode, messages)))

    def raw(self, data: bytes) -> None:
        """Send any bytes."""
        assert self.transport is not None
        self.transport.write(data)

    def send_piece(self, index: int, data: bytes) -> None:
        """Send a piece, true or not."""
        for start in range(0, len(data), limits.BLOCK_BYTES):
            block = data[start : start + limits.BLOCK_BYTES]
            self.say(Block(PieceIndex(index), start, block))


def honest(liar: Liar, message: Message) -> None:
    """Serve metadata and pieces as a complete node does, one grant after the other."""
    content = liar.node.content
    if isinstance(message, MetadataRequest):
        encoded = content.metadata.encode()
        for start in range(0, len(encoded), limits.BLOCK_BYTES):
            part = encoded[start : start + limits.BLOCK_BYTES]
            liar.say(MetadataPart(len(encoded), start, part))
    elif isinstance(message, Interest) and message.wanted:
        liar.say(Grant(PieceIndex(0)))
    elif isinstance(message, Request):
        liar.send_piece(message.index, content.piece(message.index))
        liar.say(Grant(PieceIndex(0)))


class LiarNode:
    """A node that claims to be complete and behaves as told.

    Attributes:
        content: what it claims to have.
        address: where it listens.
        key: its node key.
        behaviour: what it does with messages.
        connections: every one it ever had, oldest first.
    """

    def __init__(self, world: World, number: int, content: Content, behaviour: Behaviour) -> None:
        self.content = content
        self.key = node_key(number)
        self.address = Address(f"10.0.0.{number}", PORT)
        self.behaviour = behaviour
        self.connections: list[Liar] = []
        self.bits = b"\xff" * (content.count // 8) + bytes(
            [0xFF << (8 - content.count % 8) & 0xFF] if content.count % 8 else []
        )
        self.host = world.host(self.address.host)
        self.host.reactor.listenTCP(PORT, Factory.forProtocol(self._called))

    def _called(self) -> Liar:
        return self._new(Acceptor(self.key, self.host.entropy(32), lambda _: self.content.hash_key))

    def _new(self, handshake: Handshake) -> Liar:
        self.connections.append(Liar(self, handshake))
        return self.connections[-1]

    def dial(self, address: Address) -> None:
        """Call a node."""
        handshake = Dialler(self.content.hash_key, self.key, self.host.entropy(32))
        factory = ClientFactory.forProtocol(lambda: self._new(handshake))
        self.host.reactor.connectTCP(address.host, address.port, factory)

    def opened(self, liar: Liar) -> None:
        """The handshake is over: claim what we claim."""
        if self.bits:
            liar.say(Bitfield(self.bits))

    def behave(self, liar: Liar, message: Message) -> None:
        """Do what the test says."""
        self.behaviour(liar, message)

    def heard(self, kind: type[Message]) -> list[Message]:
        """Return the messages of one type, on all connections."""
        return [
            message
            for liar in self.connections
            for message in liar.heard
            if isinstance(message, kind)
        ]
