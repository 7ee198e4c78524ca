"""A joined peer, and what a membership tells of it. Tests: ``test_membership``."""

from __future__ import annotations

from typing import Protocol

from attrs import define

from p2pdist.addresses import Address
from p2pdist.ids import NodeID
from p2pdist.overlay.messages import Status


@define(eq=False)
class JoinedPeer:
    """A peer that proved it knows the content's key.

    Attributes:
        node_id: its node.
        address: where it is, UDP and TCP.
        status: what it last declared; idle at first.
        since: when it joined, or was seen again.
    """

    node_id: NodeID
    address: Address
    status: Status
    since: float = 0.0


class MembershipEvents(Protocol):
    """What a membership tells."""

    def peer_offered(self, address: Address) -> None:
        """Somebody named a peer; it is pinged now."""

    def peer_joined(self, peer: JoinedPeer, *, by_us: bool) -> None:
        """A peer joined; ``by_us``: we asked it, so we dial."""

    def peer_left(self, peer: JoinedPeer) -> None:
        """A joined peer said goodbye, or answers no more."""

    def search_over(self, *, found: bool, asked: int) -> None:
        """A lookup ended; ``asked`` first hops were asked."""
