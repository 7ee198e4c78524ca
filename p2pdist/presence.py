"""One node in one network: its ways in, what keeps it there, what it remembers of it.

Job: hold together a network, its entry points and its LAN discovery, so that a node of several
networks keeps them apart. Knows no content. Tests: ``test_service``, ``test_private``.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from p2pdist import limits
from p2pdist.addresses import HostPort
from p2pdist.errors import NodeStopped
from p2pdist.logs import new_logger
from p2pdist.overlay.bootstrap import Bootstrap, EntryReport, EntryState
from p2pdist.overlay.lan import LANDiscovery
from p2pdist.overlay.network import Network

FIND_SELF_S = (0.5, 60.0, 240.0, 900.0)
"""When the node looks for its own id, which fills its nearest buckets."""
_GOOD = frozenset({EntryState.ANSWERED, EntryState.ASKED, EntryState.RESOLVING, EntryState.SELF})


@define(eq=False)
class Presence:
    """What this node is in one network.

    Args:
        network: which.
        clock: time.
        bootstrap: the ways into it; reports here.
        lan: finds others of it on the local network, or ``None``.
    """

    network: Network
    clock: IReactorTime
    bootstrap: Bootstrap
    lan: LANDiscovery | None = None
    log = new_logger()
    _begun_at: float | None = field(init=False, default=None)
    _find_self: list[float] = field(init=False, factory=lambda: list(FIND_SELF_S))

    def __attrs_post_init__(self) -> None:
        self.bootstrap.changed = self._entry_changed
        self.network.wrong_network.append(self.bootstrap.wrong_network)

    @property
    def name(self) -> str:
        """What to call the network; a tag is no secret."""
        keys = self.network.keys
        return f"private network {keys.tag.hex()}" if keys.private else "public network"

    def begin(self) -> None:
        """Go in."""
        self._begun_at = self.clock.seconds()
        self.bootstrap.start()
        if self.lan is not None:
            self.lan.start()

    def stop(self) -> None:
        """End; the network itself ends with its node."""
        if self.lan is not None:
            self.lan.stop()
        self.bootstrap.stop()

    def content_added(self) -> None:
        """Tell the local network of a further content."""
        if self.lan is not None:
            self.lan.hail_soon()

    def look_for_ourselves(self) -> None:
        """When it is time, find the nodes nearest to our own id."""
        if self._begun_at is None or not len(self.network.neighbours):
            return
        elapsed = self.clock.seconds() - self._begun_at
        if self._find_self and elapsed >= self._find_self[0]:
            while self._find_self and elapsed >= self._find_self[0]:
                self._find_self.pop(0)
            self.network.converge(self.network.node_id, limits.STORERS).addErrback(
                lambda failure: failure.trap(NodeStopped) and None
            )

    def good_neighbours(self) -> tuple[HostPort, ...]:
        """Return neighbours worth asking in the next run, the latest heard first."""
        found = [e for e in self.network.neighbours if not e.suspect and not e.nat]
        found.sort(key=lambda entry: -entry.seen_at)
        return tuple(HostPort(*entry.address) for entry in found[: limits.SAVED_NEIGHBOURS])

    def _entry_changed(self, report: EntryReport) -> None:
        """Log how a ``nodes`` entry stands."""
        emit = self.log.info if report.state in _GOOD else self.log.warn
        where = f" ({self.name})" if self.network.keys.private else ""
        emit(
            "node {entry}{where}: {state}",
            entry=str(report.entry),
            where=where,
            state=report.state.value,
        )
