"""The way in: the addresses of ``nodes``, tried until they answer, and what each of them did.

Job: resolve names off the reactor, ping every address at once, again after 5 s doubling to 60 s (20
where it is the only entry) while it is silent and every ``limits.ENTRY_CHECK_S`` when it is not,
and keep a state for each entry that tells an operator why nothing happens. It does NOT look for
peers. An entry that answered is a neighbour from then on.

States of an entry (:class:`EntryState`)::

    RESOLVING -> NO_NAME            the name service knows no such name (asked again)
        `-> ASKED -> SILENT         no answer (asked again)
               |---> SELF           it is an address of this very node (never asked again)
               |---> WRONG_NETWORK  it answered that it serves another network
               `---> ANSWERED <-> NO_PEERS   it answers; it knows no peers and nobody to ask
                         `------> TCP_BLOCKED   it is a peer, and its TCP port cannot be reached

Threat: a descriptor whose nodes are victims: an address gets at most one 110-byte datagram per try,
3 tries in 2 s, then ever fewer (decision 8). Tests: ``test_bootstrap``.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterable

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, HostPort, canonical_ip, usable
from p2pdist.errors import CalledOneself, NodeStopped, RPCError
from p2pdist.logs import new_logger
from p2pdist.overlay.messages import Reply
from p2pdist.overlay.network import Network

Resolve = Callable[[str], "Deferred[list[str]]"]
"""Resolves a host name to IP texts, off the reactor; fails with DNSLookupError."""


class EntryState(enum.Enum):
    """What a ``nodes`` entry did so far; the value is the sentence for people."""

    RESOLVING = "resolving its name"
    NO_NAME = "its name is not known to the name service"
    ASKED = "asked, no answer yet"
    SILENT = "no answer (is it running, is UDP open?)"
    WRONG_NETWORK = "runs, but serves another network"
    ANSWERED = "answers"
    NO_PEERS = "answers, but knows no peers yet"
    SELF = "is this node itself"
    TCP_BLOCKED = "answers on UDP, but TCP is blocked (open TCP on the same port)"


ANSWERED = frozenset({EntryState.ANSWERED, EntryState.NO_PEERS, EntryState.TCP_BLOCKED})
"""States of an entry that answers our calls."""


@frozen
class EntryReport:
    """A ``nodes`` entry and how it stands.

    Attributes:
        entry: as written in the descriptor.
        state: what it did.
    """

    entry: HostPort
    state: EntryState

    def __str__(self) -> str:
        return f"{self.entry} {self.state.value}"


@define(eq=False)
class _Entry:
    entry: HostPort
    state: EntryState
    addresses: list[Address] = field(factory=list)
    failures: int = 0
    refused: bool = False
    timer: IDelayedCall | None = None
    resolving: Deferred[list[str]] | None = None


@define(eq=False)
class Bootstrap:
    """The known entry points of one network.

    Args:
        network: to get into.
        clock: schedules tries.
        rng: spreads them.
        resolve: resolves names off the reactor.
        changed: called with each report that differs from the one before.
    """

    network: Network
    clock: IReactorTime
    rng: random.Random
    resolve: Resolve
    changed: Callable[[EntryReport], None] = lambda _report: None
    _log = new_logger()
    _entries: dict[HostPort, _Entry] = field(init=False, factory=dict)
    _running: bool = field(init=False, default=False)

    def start(self) -> None:
        """Begin with the entries added so far; later ones begin at once."""
        self._running = True
        self.network.no_route_from.append(self._no_route)
        self.network.offer_from.append(self._has_peers)
        for entry in self._entries.values():
            self._try(entry)

    def stop(self) -> None:
        """Cancel tries and resolutions."""
        if not self._running:
            return
        self._running = False
        self.network.no_route_from.remove(self._no_route)
        self.network.offer_from.remove(self._has_peers)
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
                entry.timer = None
            if entry.resolving is not None:
                entry.resolving.cancel()

    def add(self, entries: tuple[HostPort, ...]) -> None:
        """Add entries; known ones are not tried twice."""
        for named in entries:
            if named in self._entries or len(self._entries) >= limits.BOOTSTRAP_ENTRIES:
                continue
            resolved = canonical_ip(named.host) is not None
            state = EntryState.ASKED if resolved else EntryState.RESOLVING
            entry = self._entries[named] = _Entry(named, state)
            if self._running:
                self._try(entry)

    def reports(self, entries: Iterable[HostPort] | None = None) -> list[EntryReport]:
        """Return how these entries stand; without an argument all, in the order added."""
        named = self._entries if entries is None else entries
        return [EntryReport(e, self._entries[e].state) for e in named if e in self._entries]

    def answered(self, entries: Iterable[HostPort]) -> list[Address]:
        """Return where these entries answered, in their order; without those silent since."""
        peek = self.network.rpc.paths.peek
        known = [self._entries[named] for named in entries if named in self._entries]
        return [
            address
            for entry in known
            if entry.state is not EntryState.SILENT
            for address in entry.addresses
            if (path := peek(address)) is not None and path.proved
        ]

    # --- one entry ---

    def _try(self, entry: _Entry) -> None:
        entry.timer = None
        ip = canonical_ip(entry.entry.host)
        if ip is not None:
            self._ask(entry, [ip])
            return
        entry.resolving = self.resolve(entry.entry.host)
        entry.resolving.addTimeout(limits.DNS_TIMEOUT_S, self.clock)
        entry.resolving.addCallbacks(
            lambda ips: self._cb_resolved(ips, entry), lambda why: self._eb_resolved(why, entry)
        )

    def _cb_resolved(self, ips: list[str], entry: _Entry) -> None:
        entry.resolving = None
        if not self._running:
            return
        texts = [ip for ip in map(canonical_ip, ips) if ip is not None]
        if not texts:
            self._set(entry, EntryState.NO_NAME)
            self._again(entry)
            return
        if entry.state in {EntryState.RESOLVING, EntryState.NO_NAME}:
            self._set(entry, EntryState.ASKED)
        self._ask(entry, texts[: limits.DNS_ADDRESSES])

    def _eb_resolved(self, failure: Failure, entry: _Entry) -> None:
        entry.resolving = None
        if not self._running:
            return
        failure.trap(DNSLookupError, DeferredTimeout)
        self._set(entry, EntryState.NO_NAME)
        self._again(entry)

    def _ask(self, entry: _Entry, ips: list[str]) -> None:
        addresses = [Address(ip, entry.entry.port) for ip in ips]
        entry.addresses = [address for address in addresses if usable(address)]
        left = len(entry.addresses)
        if not left:
            self._set(entry, EntryState.NO_NAME)
            self._again(entry)

        def answered(_pong: Reply) -> None:
            nonlocal left
            left = 0
            entry.failures = 0
            if entry.state not in {EntryState.NO_PEERS, EntryState.TCP_BLOCKED}:
                self._set(entry, EntryState.ANSWERED)
            self._later(entry, min(self._spread(limits.ENTRY_CHECK_S), limits.TOKEN_REFRESH_S))

        def silent(failure: Failure) -> None:
            nonlocal left
            failure.trap(RPCError, NodeStopped)
            if failure.check(CalledOneself):
                left = 0
                self._set(entry, EntryState.SELF)
                return
            left -= 1
            if left or not self._running or failure.check(NodeStopped):
                return
            if not entry.refused:
                self._set(entry, EntryState.SILENT)
            self._again(entry)

        entry.refused = False
        tries = limits.FIRST_CONTACT_TRIES
        if entry.failures:
            tries = 2 if self._answered_once(entry) else 1
        for address in entry.addresses:
            self.network.rpc.ping(address, tries).addCallbacks(answered, silent)

    def _spread(self, pause: float) -> float:
        """Return a pause between two questions to one entry that suits the number of entries."""
        return pause * max(1.0, len(self._entries) / limits.ENTRIES_CHECKED)

    def _answered_once(self, entry: _Entry) -> bool:
        paths = map(self.network.rpc.paths.peek, entry.addresses)
        return any(path is not None and path.proved for path in paths)

    def _again(self, entry: _Entry) -> None:
        """Try again later, ever later."""
        entry.failures += 1
        wait = limits.CONTACT_RETRY_S * 2.0 ** min(entry.failures - 1, 10)
        most = min(limits.CONTACT_RETRY_ONE_S * len(self._entries), limits.CONTACT_RETRY_MAX_S)
        if self._answered_once(entry):
            most = min(most, self._spread(limits.ENTRY_RETURN_S))
        self._later(entry, min(wait, most))

    def _later(self, entry: _Entry, seconds: float) -> None:
        if not self._running:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        spread = 1 - limits.RTO_JITTER * self.rng.random()  # never longer: it is promised
        entry.timer = self.clock.callLater(seconds * spread, self._try, entry)

    # --- what others notice ---

    def wrong_network(self, address: Address) -> None:
        """Note that ``address`` says it serves another network."""
        for entry in self._entries.values():
            if address in entry.addresses:
                entry.refused = True
        self._mark(address, EntryState.WRONG_NETWORK)

    def tcp_blocked(self, address: Address) -> None:
        """Note that the peer at ``address`` answers on UDP but cannot be reached by TCP."""
        self._mark(address, EntryState.TCP_BLOCKED)

    def _no_route(self, address: Address) -> None:
        self._mark(address, EntryState.NO_PEERS)

    def _has_peers(self, address: Address) -> None:
        for entry in self._entries.values():
            if address in entry.addresses and entry.state is EntryState.NO_PEERS:
                self._set(entry, EntryState.ANSWERED)

    def _mark(self, address: Address, state: EntryState) -> None:
        for entry in self._entries.values():
            if address in entry.addresses:
                self._set(entry, state)

    def _set(self, entry: _Entry, state: EntryState) -> None:
        if entry.state is not state:
            entry.state = state
            self.changed(EntryReport(entry.entry, state))
