"""What tests of the swarm stand on: contents, nodes in the simulated network, peers that lie.

Job: fixtures only. A :class:`SwarmNode` is one process with the production listener, transfer and
store on a simulated disk; a :class:`Liar` speaks the protocol by hand. Tests: used by
``test_transfer``, ``test_hostile`` and their kin.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from p2pdist.addresses import Address
from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.ids import PieceIndex
from p2pdist.keys import NodeKey
from p2pdist.storage.locate import create, locate
from p2pdist.storage.place import Place
from p2pdist.storage.store import Store
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.listener import PeerListener
from p2pdist.swarm.progress import Progress
from p2pdist.swarm.transfer import Transfer
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

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """Return the events of one name."""
        return [event for event in self.seen if event[0] == name]


class SwarmNode:
    """One node: a host with listener, transfer and, once it has one, a store.

    Attributes:
        host: where it runs.
        key: its node key.
        address: where it listens.
        disk: what it stores on.
        events: what the transfer told.
        transfer: of ``content``.
    """

    def __init__(self, world: World, number: int, content: Content, **disk: Any) -> None:
        self.world = world
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
        self.transfer = Transfer(
            hash_key=self.content.hash_key,
            node_key=self.key,
            clock=host.reactor,
            reactor=host.reactor,
            rng=host.rng,
            entropy=host.entropy,
            workers=host.workers,
            open_store=self._open_store,
            events=self.events,
            budget=self.budget,
            admission=self.admission,
        )
        self.listener = PeerListener(
            node_key=self.key,
            clock=host.reactor,
            entropy=host.entropy,
            find_transfer=lambda topic: self.transfer if topic == self.transfer.topic else None,
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
