"""Overlay nodes in the simulated network: node, bootstrap and memberships, without files.

For tests of discovery alone; whole services live in ``servicesworld``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.ids import HashKey
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, NodeKey
from p2pdist.overlay.bootstrap import Bootstrap, EntryReport
from p2pdist.overlay.membership import JoinedPeer, Membership
from p2pdist.overlay.messages import (
    Status,
)
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node
from p2pdist.test.network import Host, World

KEY = HashKey(b"k" * 32)


@define(eq=False)
class PeersSeen:
    """Records what a membership tells, as (event, host, by us)."""

    events: list[tuple[str, str, bool]] = field(factory=list)
    searches: list[bool] = field(factory=list)
    offers: list[Address] = field(factory=list)

    def peer_offered(self, address: Address) -> None:
        """Record it."""
        self.offers.append(address)

    def peer_joined(self, peer: JoinedPeer, *, by_us: bool) -> None:
        """Record it."""
        self.events.append(("joined", peer.address.host, by_us))

    def peer_left(self, peer: JoinedPeer) -> None:
        """Record it."""
        self.events.append(("left", peer.address.host, False))

    def search_over(self, *, found: bool, asked: int) -> None:
        """Record it."""
        del asked
        self.searches.append(found)


@define(eq=False)
class OverlayNode:
    """One node on one host, listening on all of its addresses."""

    host: Host
    node: Node
    network: Network
    bootstrap: Bootstrap
    reports: list[EntryReport]

    @classmethod
    def on(
        cls,
        host: Host,
        *nodes: OverlayNode | str,
        interface: str = "0.0.0.0",
        keys: NetworkKeys = PUBLIC_NETWORK,
        wall: Callable[[], float] | None = None,
    ) -> OverlayNode:
        """Start a node on ``host`` that knows the given ``nodes``."""
        reactor = host.reactor
        wall = wall or reactor.seconds
        key = NodeKey.from_seed(host.entropy(32))
        node = Node(key, reactor, host.rng, host.entropy, wall, host.local_address)
        network = node.add_network(keys)
        reactor.listenUDP(limits.DEFAULT_PORT, node.add_socket(interface), interface=interface)
        reports: list[EntryReport] = []
        bootstrap = Bootstrap(
            network, reactor, host.rng, host.resolver.resolve, changed=reports.append
        )
        network.wrong_network.append(bootstrap.wrong_network)
        bootstrap.add(tuple(HostPort(_host(entry), limits.DEFAULT_PORT) for entry in nodes))
        bootstrap.start()
        return cls(host, node, network, bootstrap, reports)

    @property
    def address(self) -> Address:
        """Where the node is."""
        return Address(self.host.addresses[0], limits.DEFAULT_PORT)

    def join(
        self, status: Status = Status.LEECH, key: HashKey = KEY
    ) -> tuple[Membership, PeersSeen]:
        """Become a member of the swarm of ``key``."""
        seen = PeersSeen()
        membership = Membership(self.network, key, seen)
        membership.start()
        membership.set_status(status)
        return membership, seen

    def stop(self) -> None:
        """Stop what was started here; sockets stay open until the host goes."""
        self.bootstrap.stop()
        self.node.stop()


def _host(entry: OverlayNode | str) -> str:
    return entry if isinstance(entry, str) else entry.host.addresses[0]


def lan(seed: int = 1, count: int = 0) -> tuple[World, list[Host]]:
    """Return a world of 1 to 3 ms one way and ``count`` hosts 10.0.0.1, 10.0.0.2, ..."""
    world = World(seed)
    world.link(delay=(0.001, 0.003))
    return world, [world.host(f"10.0.0.{number}") for number in range(1, count + 1)]
