"""What an exchange tells its transfer, and that the session. Tests: ``test_transfer``."""

from __future__ import annotations

from typing import Protocol

from p2pdist.addresses import Address
from p2pdist.census.gossip import Frame
from p2pdist.content import Metadata
from p2pdist.errors import StorageError
from p2pdist.ids import PieceIndex
from p2pdist.storage.store import Store
from p2pdist.swarm.connection import PeerConnection


class TransferEvents(Protocol):
    """All called in the reactor thread; none may raise."""

    def metadata_arrived(self, metadata: Metadata) -> None:
        """A peer sent the metadata, and it is what the hash_key names."""

    def store_opened(self, store: Store) -> None:
        """Pieces can be exchanged."""

    def piece_verified(self, index: PieceIndex) -> None:
        """A piece is on disk."""

    def completed(self) -> None:
        """The content has its final name."""

    def paused(self, reason: str) -> None:
        """The disk does not take more; told once until :meth:`resumed`."""

    def resumed(self) -> None:
        """It does again."""

    def failed(self, error: Exception) -> None:
        """Only the operator can mend this; what is verified is still served."""

    def peer_unreachable(self, address: Address, reason: str) -> None:
        """A peer answers on UDP but not on TCP: ``refused``, ``timed out`` or what was said.

        Told once until it can be reached.
        """

    def peer_connected(self) -> None:
        """There is one more connection."""

    def census_received(self, peer: PeerConnection, frame: Frame) -> None:
        """A peer told of the fleet; a :class:`RemoteProtocolError` closes its connection."""

    def peer_told(self, address: Address) -> None:
        """A peer says that there is another; it is not worth more than a ping."""


class ExchangeOwner(Protocol):
    """What an exchange reports."""

    def piece_verified(self, index: PieceIndex) -> None:
        """A piece is on disk."""

    def piece_spoiled(self, peer: PeerConnection, index: PieceIndex) -> None:
        """A peer, and nobody else, sent wrong bytes."""

    def disk_failed(self, error: StorageError) -> None:
        """A piece could not be stored; nothing is fetched until it resumes."""

    def disk_works(self) -> None:
        """A piece was stored."""

    def all_verified(self) -> None:
        """Every piece is on disk."""

    def published_piece_lost(self, index: PieceIndex) -> None:
        """A piece of the published content is not there any more."""
