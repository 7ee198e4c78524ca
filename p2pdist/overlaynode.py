"""The overlay's side of a process: one UDP node, and its presence in each network.

Job: make and keep them. It does NOT know contents. Tests: ``test_service``, ``test_private``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from twisted.application.service import Service

from p2pdist.addresses import Address
from p2pdist.config import Config
from p2pdist.ids import Topic, short
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, NodeKey
from p2pdist.logs import new_logger
from p2pdist.machine import Machine
from p2pdist.neighbours import Remembered
from p2pdist.overlay.bootstrap import Bootstrap
from p2pdist.overlay.lan import LANDiscovery
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node
from p2pdist.presence import Presence
from p2pdist.secret import Secret


class LANPeers(Protocol):
    """Takes peers that hailed on the local network."""

    def lan_peer(self, network: Network, topic: Topic, address: Address) -> None:
        """Take one, of a swarm in ``network``."""


class NodeService(Service):
    """The overlay's side of the node: one socket, and a presence in each network it serves.

    Those are the networks of the contents and of the secrets in the settings. Only a node that has
    neither serves the public one all the same: a private node answers nobody without the key.

    Args:
        config: settings.
        machine: seams.
        key: the node's.
        remembered: of earlier runs, by the network's tag.

    Attributes:
        node: the socket's side.
        presences: by tag, in the order of joining.
    """

    log = new_logger()

    def __init__(
        self,
        config: Config,
        machine: Machine,
        key: NodeKey,
        remembered: dict[bytes, Remembered],
    ) -> None:
        self.config = config
        self.machine = machine
        self.node = Node(
            key,
            machine.reactor,
            machine.rng,
            machine.entropy,
            machine.wall,
            machine.local_address,
        )
        self.presences: dict[bytes, Presence] = {}
        self.remembered = remembered
        self._begun: tuple[int, LANPeers] | None = None
        self.serve(config.secrets)

    def serve(self, secrets: Iterable[Secret]) -> None:
        """Be in the private networks of these secrets, besides those where the node is.

        Raises:
            ConfigurationError: as :meth:`join`.
        """
        for secret in secrets:
            self.join(NetworkKeys.from_secret(secret.raw))

    @property
    def network(self) -> Network:
        """The network joined first: of most nodes the only one."""
        return next(iter(self.presences.values())).network

    def join(self, keys: NetworkKeys) -> Presence:
        """Return the node's presence in a network; a new one begins with the node, or at once.

        Raises:
            ConfigurationError: too many networks, see :meth:`Node.add_network`.
        """
        network = self.node.add_network(keys)
        presence = self.presences.get(keys.tag)
        if presence is None:
            machine = self.machine
            bootstrap = Bootstrap(network, machine.reactor, machine.rng, machine.resolve)
            presence = Presence(network, machine.reactor, bootstrap)
            self.presences[keys.tag] = presence
            if keys.tag in self.remembered:
                bootstrap.add(self.remembered[keys.tag].neighbours)
            if self._begun is not None:
                self._go_in(presence)
        return presence

    def begin(self, port: int, sessions: LANPeers) -> None:
        """Go to work; ``port`` is the number that is bound."""
        # Said once the reactor runs: from then on a signal stops the node in order.
        self.machine.reactor.callWhenRunning(
            self.log.info,
            "node {node} listens on {hosts}, UDP and TCP port {port}",
            node=short(self.node.key.node_id),
            hosts=" and ".join(self.config.listen) or "all addresses",
            port=port,
        )
        self._begun = port, sessions
        for presence in list(self.presences.values()):
            self._go_in(presence)
        if not self.presences:
            self.join(PUBLIC_NETWORK)

    def _go_in(self, presence: Presence) -> None:
        assert self._begun is not None
        port, sessions = self._begun
        if presence.network.keys.private:
            self.machine.reactor.callWhenRunning(
                self.log.info, "serving {network}", network=presence.name
            )
        presence.bootstrap.add(self.config.nodes)
        if self.config.searches_lan:
            presence.lan = LANDiscovery(
                presence.network,
                self.machine.reactor,
                self.machine.rng,
                port,
                self.machine.private_addresses,
                partial(sessions.lan_peer, presence.network),
            )
        presence.begin()

    def stopService(self) -> None:
        """Stop everything of the overlay; sockets belong to ``Ports``."""
        super().stopService()
        for presence in self.presences.values():
            presence.stop()
        self.node.stop()
