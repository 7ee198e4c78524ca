"""What carries the connections of a swarm: plain TCP, or TLS where the descriptor has a secret.

Job: decide, from the networks a swarm lives in, how its connections are made. This is the only
place that does, for those we open; the ``listener`` is the other end. Nothing is negotiated: a
swarm of private networks has no plain connections, one of the public network no others.
Threat: a private content in the clear. Tests: ``test_private_tcp``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from typing import Protocol as Structural

from attrs import define, frozen
from twisted.internet.protocol import Protocol

from p2pdist.ids import HashKey, NodeID
from p2pdist.keys import NetworkKeys, NodeKey
from p2pdist.swarm.binding import PrivateDialler
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.handshake import Dialler, Handshake
from p2pdist.swarm.knock import knock
from p2pdist.swarm.peerwire import NONCE_BYTES

if TYPE_CHECKING:
    from p2pdist.swarm.tls import Credentials

Entropy = Callable[[int], bytes]
Connect = Callable[[Handshake], PeerConnection]
"""Makes a connection with this handshake."""


class Way(Structural):
    """How a swarm's connections are opened."""

    def dial(
        self, hash_key: HashKey, callee: NodeID, turn: int, connect: Connect
    ) -> tuple[PeerConnection, Protocol]:
        """Return a new connection for a content, and the protocol that its socket gets.

        Args:
            hash_key: the content.
            callee: the node called.
            turn: how often it was called in vain.
            connect: makes the connection.
        """


@frozen
class Plain:
    """Plain TCP, where everybody may look on.

    Args:
        node_key: our own.
        entropy: secret random bytes.
    """

    _node_key: NodeKey
    _entropy: Entropy

    def dial(
        self, hash_key: HashKey, callee: NodeID, turn: int, connect: Connect
    ) -> tuple[PeerConnection, Protocol]:
        """See :class:`Way`; whoever has the content will do."""
        del callee, turn
        connection = connect(Dialler(hash_key, self._node_key, self._entropy(NONCE_BYTES)))
        return connection, connection


@frozen
class Private:
    """TLS, for who has the secret.

    A swarm with two secrets, while one is being replaced, does not know which of them the other
    side has: they are tried in turn.

    Args:
        networks: the swarm's.
        credentials: ours.
        entropy: secret random bytes.
    """

    _networks: tuple[NetworkKeys, ...]
    _credentials: Credentials
    _entropy: Entropy

    def dial(
        self, hash_key: HashKey, callee: NodeID, turn: int, connect: Connect
    ) -> tuple[PeerConnection, Protocol]:
        """See :class:`Way`; nobody but ``callee`` will do."""
        from p2pdist.swarm.tlsline import TLSLine

        keys = self._networks[turn % len(self._networks)]
        connection = connect(PrivateDialler(hash_key, keys.tcp_key(hash_key)))
        opening = partial(knock, keys, callee, self._entropy)
        channel = self._credentials.dial(callee)
        return connection, TLSLine(connection, channel, opening)


@define
class Transports:
    """The ways of one node.

    Args:
        node_key: its key.
        entropy: secret random bytes.
    """

    node_key: NodeKey
    entropy: Entropy
    _credentials: Credentials | None = None

    @property
    def credentials(self) -> Credentials:
        """What we show in TLS; made, and OpenSSL loaded, when it is wanted first."""
        if self._credentials is None:
            from p2pdist.swarm.tls import Credentials

            self._credentials = Credentials(self.node_key)
        return self._credentials

    def way(self, networks: tuple[NetworkKeys, ...]) -> Way:
        """Return how connections are opened for a swarm that lives in these networks."""
        if not any(keys.private for keys in networks):
            return Plain(self.node_key, self.entropy)
        assert all(keys.private for keys in networks), "a descriptor is public or private"
        return Private(networks, self.credentials, self.entropy)
