"""The story of one lookup, datagram by datagram, for people.

Job: watch a ``Crowd``, open what one lookup of a ``Study`` causes with the senders' own envelopes,
and tell it in lines of at most 100 columns. Does NOT change what happens.

Nodes are named by number, followed by the leading bits their id shares with the topic, and by what
they are: ``#4711/12 storer``. Tests: ``test_simulation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import define, field, frozen

from p2pdist.addresses import Address
from p2pdist.errors import RemoteProtocolError
from p2pdist.ids import shared_prefix_bits
from p2pdist.overlay.messages import (
    Accept,
    Accepted,
    Challenge,
    Error,
    Find,
    Flag,
    Forwarded,
    Found,
    GetPeers,
    Message,
    Offer,
    Verdict,
)
from p2pdist.overlay.wire import decode
from p2pdist.simulation.crowd import Tally
from p2pdist.simulation.population import Role
from p2pdist.simulation.study import Lookup, Study

_CRAWL: Final = 255
"""Number of the walk (last byte of the qid) by which an iterative lookup asks whom it meets."""
_ROLES: Final = {
    Role.DEAD: "dead",
    Role.NATED: "NAT",
    Role.BLACK_HOLE: "hole",
    Role.LIAR: "liar",
}
_VERDICTS: Final = {Verdict.NO_ROUTE: "no route", Verdict.BUSY: "busy"}
_NOWHERE: Final = "(no node)"


def plural(count: int, noun: str) -> str:
    """Return ``"1 peer"`` or ``"3 peers"``."""
    return f"{count} {noun}{'s' * (count != 1)}"


@frozen
class Sent:
    """One datagram.

    Attributes:
        after_s: since the lookup began.
        source: node.
        target: node, ``None`` where there is none.
        message: what it says.
        fate: "" or why it never arrives.
    """

    after_s: float
    source: int
    target: int | None
    message: Message
    fate: str


@define(eq=False)
class Trace:
    """Watches one lookup.

    Args:
        study: whose crowd is watched, from now on.
        number: which of its lookups, 0-based.

    Attributes:
        events: its datagrams, in the order they were sent.
    """

    study: Study
    number: int
    events: list[Sent] = field(init=False, factory=list)
    _storers: list[int] = field(init=False, factory=list)
    _width: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        digits = len(str(len(self.study.population) - 1))
        self._width = digits + len("#/12 storer")
        self.study.crowd.watcher = self

    @property
    def lookup(self) -> Lookup | None:
        """The lookup, once it has begun."""
        lookups = self.study.lookups
        return lookups[self.number] if self.number < len(lookups) else None

    def sent(
        self, now: float, source: int, target: int | None, datagram: bytes, fate: str, tally: Tally
    ) -> None:
        """Keep what belongs to the lookup; see ``crowd.Watcher``."""
        lookup = self.lookup
        if lookup is None or (tally is not lookup.cost and tally is not lookup.contact):
            return
        try:
            message = decode(self.study.crowd.node(source).envelope.open_own(datagram))
        except RemoteProtocolError:
            return  # sealed before its sender took a new boot id, or by no node at all
        self.events.append(Sent(now - lookup.started, source, target, message, fate))

    # --- telling ---

    def lines(self) -> Iterator[str]:
        """Yield the story, then what came of it; one line if the lookup never began."""
        lookup = self.lookup
        if lookup is None:
            yield f"there is no lookup {self.number + 1}"
            return
        self._storers = self.study.storers(lookup.topic)
        yield f"lookup {self.number + 1}: who has topic {lookup.topic.hex()[:16]}...?"
        width = self._width
        yield f"{'ms':>8}  {'from/shared bits':{width}}    {'to':{width}}  what"
        for sent in self.events:
            whom = _NOWHERE if sent.target is None else self._name(sent.target)
            fate = f"  -- {sent.fate}" if sent.fate and sent.target is not None else ""
            yield (
                f"{sent.after_s * 1e3:8.1f}  {self._name(sent.source):{width}} -> {whom:{width}}  "
                f"{_say(sent.message)}{fate}"
            )
        yield from self._summary(lookup)

    def _name(self, node: int) -> str:
        lookup = self.lookup
        assert lookup is not None
        population = self.study.population
        role = _ROLES.get(population.roles[node], "")
        if node == lookup.initiator:
            role = "me"
        elif node in lookup.members:
            role = "peer"
        elif node in self._storers and not role:
            role = "storer"
        bits = shared_prefix_bits(population.node_id(node), lookup.topic)
        return f"#{node}/{bits} {role}".rstrip()

    def _summary(self, lookup: Lookup) -> Iterator[str]:
        if lookup.offered_s is None:
            yield "found nobody"
        else:
            yield f"first peers after {lookup.offered_s * 1e3:.1f} ms{self._way(lookup)}"
        if lookup.alive_s is None:
            yield "no live peer in time"
        else:
            yield f"first live peer after {lookup.alive_s * 1e3:.1f} ms"
        yield (
            f"cost: {plural(lookup.cost.packets, 'datagram')}, {lookup.cost.size:,} bytes, "
            f"{lookup.cost.hottest} at the busiest node; {lookup.contact.packets} more to try peers"
        )

    def _way(self, lookup: Lookup) -> str:
        """Say through which walk the first peers came: the datagram that was due when they did."""
        assert lookup.offered_s is not None
        due = lookup.offered_s
        best: tuple[float, str] | None = None
        hops: dict[tuple[bytes, int], int] = {}
        accepts: dict[bytes, bytes] = {}
        for sent in self.events:
            message = sent.message
            if isinstance(message, GetPeers) and sent.target is not None:
                hops[message.qid, sent.target] = message.hops + 1
            elif isinstance(message, Accept):
                accepts[message.rid] = message.qid
            qid = self._brings_peers(sent, lookup, accepts)
            if qid is None:
                continue
            travel_s = self.study.terrain.rtt_s(sent.source, lookup.initiator) / 2
            finder = self._finder(sent)
            away = abs(sent.after_s + travel_s - due)
            if best is None or away < best[0]:
                best = away, _way_of(qid, hops.get((qid, finder), 0))
        return best[1] if best is not None else ""

    def _brings_peers(
        self, sent: Sent, lookup: Lookup, accepts: dict[bytes, bytes]
    ) -> bytes | None:
        """Return the query for which a datagram brings the initiator a member, if it does."""
        message = sent.message
        if sent.fate or sent.target != lookup.initiator:
            return None
        number: Callable[[Address], int | None] = self.study.crowd.number
        if isinstance(message, Offer):
            told = [number(peer) for peer in message.peers4]
            if message.flags & Flag.MEMBER:
                told.append(self._finder(sent))
            return message.qid if any(node in lookup.members for node in told) else None
        if isinstance(message, Accepted):
            told = [number(peer) for peer in message.peers4]
            return accepts.get(message.rid) if any(n in lookup.members for n in told) else None
        return None

    def _finder(self, sent: Sent) -> int:
        """Return who made an offer, which a relay may have passed on."""
        message = sent.message
        if isinstance(message, Offer) and message.finder is not None:
            finder = self.study.crowd.number(message.finder)
            return sent.source if finder is None else finder
        return sent.source


def _walk(qid: bytes) -> str:
    return "crawl" if qid[-1] == _CRAWL else f"walk {qid[-1]}"


def _way_of(qid: bytes, hops: int) -> str:
    over = f" over {plural(hops, 'hop')}" if hops else ""
    through = "the iterative lookup" if qid[-1] == _CRAWL else f"walk {qid[-1]}"
    return f" through {through}{over}"


def _say(message: Message) -> str:
    """Return what matters of a message."""
    say = _WORDS.get(type(message))
    return type(message).__name__.lower() if say is None else say(message)


def _get_peers(message: GetPeers) -> str:
    via = " via" if message.flags & Flag.VIA else ""
    return f"get_peers {_walk(message.qid)} hop {message.hops + 1} units {message.units}{via}"


def _forwarded(message: Forwarded) -> str:
    verdict = _VERDICTS.get(message.verdict)
    return "taken" if verdict is None else f"{verdict}, units back: {message.units}"


def _offer(message: Offer) -> str:
    peers = plural(len(message.peers4) + len(message.peers6), "peer")
    itself = " and itself" if message.flags & Flag.MEMBER else ""
    relayed = ", relayed" if message.finder is not None else ""
    return f"offer {_walk(message.qid)}: {peers}{itself}{relayed}"


def _accepted(message: Accepted) -> str:
    return (
        f"accepted: {plural(len(message.peers4) + len(message.peers6), 'peer')}, {_nodes(message)}"
    )


def _nodes(message: Accepted | Found) -> str:
    return plural(len(message.nodes4) + len(message.nodes6), "node")


_WORDS: Final[dict[type[Message], Callable[[Any], str]]] = {
    GetPeers: _get_peers,
    Forwarded: _forwarded,
    Offer: _offer,
    Accept: lambda message: f"accept {_walk(message.qid)}: tell me more",
    Accepted: _accepted,
    Find: lambda _message: "find nodes near the topic",
    Found: lambda message: f"found: {_nodes(message)}",
    Challenge: lambda _message: "challenge: use this token",
    Error: lambda message: f"refused, code {message.error}",
}
