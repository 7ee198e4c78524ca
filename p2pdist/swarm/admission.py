"""Who may hold a connection: the process-wide count.

At most ``limits.CONNECTIONS`` in all, fewer where the process may have few files open; a quarter
of them is kept for those we dial; at most ``limits.CONNECTIONS_PER_HOST`` for one global host, of
which one that lies idle goes when we dial it once more; at most ``limits.CONNECTIONS_UNPROVED``
that have called and proved nothing, few of them of one global subnet. When these are too many the
oldest goes, because an honest caller proves itself within a round trip; when all are too many the
one goes that has been useless longest. If every one is useful the newcomer is refused, unless we
dial for a content that has fewer connections than another: that one gives up the one of the least
use. Callers gain nothing there, because what they call for is not known before they have proved
themselves.
Does NOT know bans, duplicates or how many one content wants (``roster``, ``circle``).
Threat: connection exhaustion.
Tests: ``test_admission``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol as Structural

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, limit_key, subnet_key
from p2pdist.ids import HashKey


class Admitted(Structural):
    """What is counted: a connection, as far as this module looks."""

    @property
    def useful_at(self) -> float:
        """Last time a piece's bytes moved."""

    def shed(self) -> None:
        """Make room: close."""


@define
class _Entry:
    key: bytes
    net: bytes | None
    outgoing: bool
    proved: bool
    knocked: bool = False
    content: HashKey | None = None
    connection: Admitted | None = None


@define
class Admission:
    """The count of connections of one process, dialled ones and callers.

    Args:
        most: connections at a time.
    """

    _most: int = limits.CONNECTIONS
    _entries: dict[int, _Entry] = field(init=False, factory=dict)
    _next: int = field(init=False, default=0)

    @classmethod
    def within(cls, open_files: int) -> Admission:
        """Return one for a process that may have so many files open, sockets among them."""
        spare = open_files - limits.FILES_KEPT
        return cls(max(limits.CONNECTIONS_LEAST, min(limits.CONNECTIONS, spare)))

    @property
    def count(self) -> int:
        """Connections counted now."""
        return len(self._entries)

    def enter(
        self, address: Address, *, outgoing: bool, now: float, content: HashKey | None = None
    ) -> int | None:
        """Count a new connection; return its ticket, or ``None`` when it must not be.

        Args:
            address: the other end.
            outgoing: whether we dial.
            now: the time.
            content: what we dial for.
        """
        key, net = limit_key(address), subnet_key(address)
        same = [ticket for ticket, entry in self._entries.items() if entry.key == key]
        host_full = len(same) >= limits.CONNECTIONS_PER_HOST
        if host_full and not (outgoing and self._shed_idle(same, now, limits.HOST_IDLE_S)):
            return None
        if not outgoing:
            self._shed_unproved(net)
        reserved = 0 if outgoing else self._most // 4
        counted = self.count if outgoing else sum(not e.outgoing for e in self._entries.values())
        full = counted >= self._most - reserved
        if full and not (
            self._shed_idle(self._entries, now, limits.IDLE_S) or self._shed_of_most(content, now)
        ):
            return None
        self._next += 1
        self._entries[self._next] = _Entry(key, net, outgoing, proved=outgoing, content=content)
        return self._next

    def hold(self, ticket: int, connection: Admitted) -> None:
        """Name the connection behind a ticket, so that it can be asked to go."""
        if ticket in self._entries:
            self._entries[ticket].connection = connection

    def knocked(self, ticket: int) -> None:
        """The caller has shown that he is in one of our private networks, and is no stranger."""
        if ticket in self._entries:
            self._entries[ticket].knocked = True

    def prove(self, ticket: int, content: HashKey | None = None) -> None:
        """The caller's handshake is over: it is for this content."""
        if ticket in self._entries:
            self._entries[ticket].proved = True
            self._entries[ticket].content = content

    def leave(self, ticket: int) -> None:
        """Count the connection no more; again is fine."""
        self._entries.pop(ticket, None)

    def _shed_unproved(self, net: bytes | None) -> None:
        unproved = [ticket for ticket, entry in self._entries.items() if not entry.proved]
        unproved.sort(key=lambda ticket: self._entries[ticket].knocked)
        near = [ticket for ticket in unproved if net and self._entries[ticket].net == net]
        if len(near) >= limits.CONNECTIONS_UNPROVED_PER_NET:
            self._shed(near[0])
        elif len(unproved) >= limits.CONNECTIONS_UNPROVED:
            self._shed(unproved[0])

    def _shed_idle(self, tickets: Iterable[int], now: float, idle_s: float) -> bool:
        """Let the one of these go that has been useless longest, and for ``idle_s`` at least."""
        idle = [
            (entry.connection.useful_at, ticket)
            for ticket in tickets
            if (entry := self._entries[ticket]).connection is not None
            and now - entry.connection.useful_at >= idle_s
        ]
        if not idle:
            return False
        self._shed(min(idle)[1])
        return True

    def _shed_of_most(self, content: HashKey | None, now: float) -> bool:
        """Take a place from the content that has most, for one that has fewer by two at least."""
        counts = Counter(e.content for e in self._entries.values() if e.content is not None)
        if content is None or not counts:
            return False
        most, count = counts.most_common(1)[0]
        if count < counts[content] + 2:
            return False
        theirs = [ticket for ticket, entry in self._entries.items() if entry.content == most]
        return self._shed_idle(theirs, now, limits.CIRCLE_SWAP_S)

    def _shed(self, ticket: int) -> None:
        connection = self._entries.pop(ticket).connection
        if connection is not None:
            connection.shed()
