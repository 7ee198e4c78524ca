"""One content's places in the overlay: a membership in each network its swarm lives in.

Nearly always there is one network. While a secret is being replaced there are two: the swarm is
found in either, and a peer that is in both counts once.
Job: make several memberships look like one. Tests: ``test_session``, ``test_private``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from attrs import define, field

from p2pdist.addresses import Address, HostPort
from p2pdist.ids import HashKey, NodeID
from p2pdist.overlay.bootstrap import ANSWERED, EntryReport
from p2pdist.overlay.membership import JoinedPeer, Membership, MembershipEvents
from p2pdist.overlay.messages import Status
from p2pdist.overlay.network import Network
from p2pdist.presence import Presence


@define(eq=False)
class Memberships:
    """All memberships of one content.

    Args:
        presences: where its swarm lives, one at least.
        hash_key: the content.
        events: told of peers, of whatever network.
        nodes: returns the descriptor's nodes.
    """

    presences: tuple[Presence, ...]
    hash_key: HashKey
    events: MembershipEvents
    nodes: Callable[[], tuple[HostPort, ...]]
    _each: tuple[Membership, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._each = tuple(
            Membership(
                presence.network,
                self.hash_key,
                self.events,
                entries=partial(self._answered, presence),
            )
            for presence in self.presences
        )

    def _answered(self, presence: Presence) -> list[Address]:
        return presence.bootstrap.answered(self.nodes())

    def start(self, known_peers: tuple[Address, ...]) -> None:
        """Become a member; see :meth:`Membership.start`."""
        for membership in self._each:
            membership.start(known_peers)

    def stop(self) -> None:
        """Leave."""
        for membership in self._each:
            membership.stop()

    def set_status(self, status: Status) -> None:
        """Declare what we are."""
        for membership in self._each:
            membership.set_status(status)

    def search(self) -> None:
        """Look for peers."""
        for membership in self._each:
            membership.search()

    def candidate(self, address: Address, network: Network | None = None) -> None:
        """Try an address that somebody named, in ``network`` if it was told there."""
        for membership in self._each:
            if network is None or membership.network is network:
                membership.candidate(address)

    @property
    def joined(self) -> dict[NodeID, JoinedPeer]:
        """The joined peers; who is joined twice stands here once."""
        if len(self._each) == 1:
            return self._each[0].joined
        merged: dict[NodeID, JoinedPeer] = {}
        for membership in reversed(self._each):
            merged.update(membership.joined)
        return merged

    def joined_in(self, network: Network) -> tuple[Address, ...]:
        """Return where the peers are that joined in one network, to be remembered."""
        return tuple(
            peer.address
            for membership in self._each
            if membership.network is network
            for peer in membership.joined.values()
        )

    # --- the ways in ---

    def add_nodes(self, nodes: tuple[HostPort, ...]) -> None:
        """Ask these nodes too."""
        for presence in self.presences:
            presence.bootstrap.add(nodes)

    def reports(self, nodes: Iterable[HostPort]) -> tuple[EntryReport, ...]:
        """Return how nodes stand, each in the network where it answers, if it does anywhere."""
        best: dict[HostPort, EntryReport] = {}
        for presence in self.presences:
            for report in presence.bootstrap.reports(nodes):
                if report.entry not in best or report.state in ANSWERED:
                    best[report.entry] = report
        return tuple(best.values())

    def tcp_blocked(self, address: Address) -> None:
        """Note that a peer answers on UDP and not on TCP."""
        for presence in self.presences:
            presence.bootstrap.tcp_blocked(address)

    @property
    def has_way_in(self) -> bool:
        """Whether a node of any of the networks has answered."""
        return any(len(presence.network.neighbours) for presence in self.presences)

    def is_open(self, address: Address) -> bool:
        """Tell whether nobody says that the node at ``address`` is behind a NAT."""
        known = [presence.network.neighbours.get(address) for presence in self.presences]
        return not any(entry is not None and entry.nat for entry in known)

    def watch(self, found: Callable[[Address], None]) -> None:
        """Call ``found`` with every new neighbour, until :meth:`unwatch`."""
        for presence in self.presences:
            presence.network.neighbour_found.append(found)

    def unwatch(self, found: Callable[[Address], None]) -> None:
        """Call it no more."""
        for presence in self.presences:
            if found in presence.network.neighbour_found:
                presence.network.neighbour_found.remove(found)
