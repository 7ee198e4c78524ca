"""Whom to serve next, and with what: the uploader's book. Pure; time and chance are parameters.

The scarce thing is an uplink, so whoever uploads decides. A place for a piece goes through:

    ========  ======================================  ==========================================
    state     meaning                                 leaves by
    ========  ======================================  ==========================================
    offered   a grant was sent, no answer yet         ``accepted`` -> waiting, ``declined`` -> end
    waiting   a piece was agreed, no byte sent yet    ``next_start`` -> sending, ``ended`` -> end
    sending   its bytes go out                        ``sent`` -> sent, ``ended`` -> end
    sent      the socket has them, the peer not yet   ``received`` -> end
    ========  ======================================  ==========================================

A few pieces are on the wire at the same time, as many as ``uplink`` finds the line to need, and
``limits.GRANTS_AHEAD`` more are negotiated when a current one is about to end, so that the uplink
never idles and decisions stay late. A sent piece keeps its slot until the peer has it, because
kernels and routers take far more than they can deliver soon; but while pieces drain as fast as ever
there is no queue, the line could take more, and sent ones hold no slot. When a free slot finds
grants unanswered and nothing to start, one more is negotiated ahead from then on; their bound
follows the pieces that go out while a grant and its answer are under way, so that a long way does
not make small pieces slow.

Served is the poorest of ``limits.POOREST_OF`` interested peers drawn by chance; poor is who has
little of what it claims or was given, whichever is more (decision 25). A complete node proposes
what it has sent least, counted when accepted, so that each piece leaves once before any leaves
twice; others propose what is rare.

Does NOT send, read or know sizes in advance. Threat: peers that claim to be poor, never answer,
never read or read drop by drop: what they were given counts, an unanswered grant and a slow piece
hold no slot. Tests: ``test_uploader``.
"""

from __future__ import annotations

import math
import random
from collections import deque

from attrs import define, field, frozen

from p2pdist import limits
from p2pdist.errors import UnexpectedMessage
from p2pdist.ids import NodeID, PieceIndex
from p2pdist.swarm import masks
from p2pdist.swarm.masks import Tally
from p2pdist.swarm.picker import Pace
from p2pdist.swarm.rates import Pipeline
from p2pdist.swarm.uplink import Uplink

_IN_TIME = 8
"""So many slots in a row found a piece waiting: one grant less will do."""


@define
class _Sending:
    """A piece agreed with a peer.

    Attributes:
        size: bytes of the piece.
        started: when the first byte was due, or ``None`` while it waits.
        sent: bytes handed to the socket.
        sent_at: when the last byte was handed to it, or ``None``.
        progress_at: last time PIECE_PROGRESS_BYTES more had been handed over.
        progress: bytes since then.
        ending: whether it was reported to end soon.
    """

    size: int
    started: float | None = None
    sent: int = 0
    sent_at: float | None = None
    progress_at: float = 0.0
    progress: int = 0
    ending: bool = False

    def ends_soon(self, now: float) -> bool:
        left = self.size - self.sent
        if left <= limits.BLOCK_BYTES:
            return True
        if self.started is None or not self.sent:
            return False
        return left * (now - self.started) <= limits.AHEAD_S * self.sent


@define
class _Taker:
    """A peer, as the uploader sees it.

    Attributes:
        pieces: mask of what it claims.
        interested: whether it wants anything.
        declined: whether it refused a grant and has not said that it is ready.
        given: pieces sent to it whole.
        grants: when its unanswered grants were sent, oldest first.
        agreed: what is waiting, sending or sent, in the order of agreement.
        drain_s: shortest time from the last byte in the socket to the peer having the piece.
        queued: whether the last time was much longer.
        last: what was handed to its socket lately.
    """

    pieces: int
    interested: bool = False
    declined: bool = False
    given: int = 0
    grants: list[float] = field(factory=list)
    agreed: dict[PieceIndex, _Sending] = field(factory=dict)
    drain_s: float = math.inf
    queued: bool = True
    last: deque[PieceIndex] = field(factory=lambda: deque(maxlen=limits.DOUBTED_PIECES))

    def holds_slot(self, piece: _Sending, now: float, slow_s: float) -> bool:
        """Tell whether a piece counts as on the wire."""
        if piece.started is None or now - piece.started >= slow_s:
            return False
        return piece.sent_at is None or self.queued

    @property
    def would_take(self) -> bool:
        return self.interested and not self.declined

    @property
    def outstanding(self) -> int:
        return len(self.grants) + len(self.agreed)

    @property
    def negotiated(self) -> int:
        waiting = sum(piece.started is None for piece in self.agreed.values())
        return len(self.grants) + waiting

    @property
    def wealth(self) -> int:
        return max(self.pieces.bit_count(), self.given) + self.outstanding


@frozen
class Offer:
    """A grant to be sent."""

    peer: NodeID
    index: PieceIndex


class Uploader:
    """The uploader's decisions for one content.

    Args:
        count: number of pieces.
        have: mask of the pieces that can be served.
        availability: how many connected peers claim each piece.
        rng: samples peers and breaks ties.
    """

    def __init__(self, *, count: int, have: int, availability: Tally, rng: random.Random) -> None:
        self._all = masks.full(count)
        self._have = have
        self._availability = availability
        self._rng = rng
        self._sent = Tally()
        self._takers: dict[NodeID, _Taker] = {}
        self._busy: dict[NodeID, _Taker] = {}  # those with grants or pieces, few of many
        self._idle: dict[NodeID, _Taker] = {}  # those without, who would take a grant
        self._pace = Pace()
        self._ahead = limits.GRANTS_AHEAD
        self._in_time = 0
        self._uplink = Uplink()
        self._answers = Pipeline()

    # --- what is known ---

    def sent_count(self, index: PieceIndex) -> int:
        """Return how often a piece was agreed to be sent."""
        return self._sent.count(index)

    def is_unsent(self, peer: NodeID, index: PieceIndex) -> bool:
        """Tell whether the piece is waiting for or being sent to the peer."""
        piece = self._takers[peer].agreed.get(index)
        return piece is not None and piece.sent_at is None

    # --- peers and pieces ---

    def add_peer(self, peer: NodeID, pieces: int, *, interested: bool) -> None:
        """Learn of a connected peer."""
        self._takers[peer] = _Taker(pieces, interested)
        self._sort(peer)

    def remove_peer(self, peer: NodeID) -> tuple[PieceIndex, ...]:
        """Forget a peer; what it did not get whole counts as not sent.

        Returns the last pieces that it may have got, ``limits.DOUBTED_PIECES`` at most.
        """
        for index in list(self._takers[peer].agreed):
            self.ended(peer, index)
        self._busy.pop(peer, None)
        self._idle.pop(peer, None)
        return tuple(self._takers.pop(peer).last)

    def peer_pieces(self, peer: NodeID, pieces: int) -> None:
        """Replace the mask of what the peer claims."""
        self._takers[peer].pieces = pieces

    def interest(self, peer: NodeID, *, wanted: bool) -> None:
        """The peer says whether it wants anything."""
        self._takers[peer].interested = wanted
        self._sort(peer)

    def _sort(self, peer: NodeID) -> None:
        """Note down whether the peer is busy, idle or neither, after anything that decides it."""
        taker = self._takers[peer]
        self._idle.pop(peer, None)
        if taker.outstanding:
            self._busy[peer] = taker
            return
        self._busy.pop(peer, None)
        if taker.would_take:
            self._idle[peer] = taker

    def gained(self, index: PieceIndex) -> None:
        """A piece can be served from now on."""
        self._have |= masks.bit(index)

    def lost(self, index: PieceIndex) -> None:
        """A piece cannot be served any more."""
        self._have &= ~masks.bit(index)

    def can_serve(self, index: PieceIndex) -> bool:
        """Tell whether a piece can be served."""
        return bool(self._have & masks.bit(index))

    # --- grants ---

    def adapt(self, now: float, *, clear: bool) -> None:
        """Note whether the line would carry more on more connections (``roundtrips``)."""
        del now
        self._uplink.adapt(clear=clear)

    def next_offer(self, now: float) -> Offer | None:
        """Return the next grant to send, already noted down, or ``None``: nothing to do now."""
        places, ends_soon = self._places(now)
        self._uplink.look(now, wanted=places >= self._uplink.slots)
        slots = self._uplink.slots
        ahead = ends_soon and places < slots + self._ahead
        candidates = list(self._idle) if places < slots or ahead else []
        if ahead and not candidates:
            candidates = [peer for peer, t in self._busy.items() if self._keeps_up(t, now)]
        poorest = self._poorest(candidates)
        if poorest is None:
            return None
        taker = self._takers[poorest]
        index = self._hint(taker)
        taker.grants.append(now)
        self._sort(poorest)
        return Offer(poorest, index)

    def _places(self, now: float) -> tuple[int, bool]:
        """Return how many places are taken, and whether one of them is about to end."""
        places, ends_soon, slow_s = 0, False, self._pace.slow_s
        for taker in self._busy.values():
            for since in taker.grants:
                places += now - since < limits.GRANT_ANSWER_S
            for piece in taker.agreed.values():
                places += piece.started is None or taker.holds_slot(piece, now, slow_s)
                ends_soon = ends_soon or piece.ends_soon(now)
        return places, ends_soon

    def _keeps_up(self, taker: _Taker, now: float) -> bool:
        oldest = min(
            (p.started for p in taker.agreed.values() if p.started is not None), default=now
        )
        return (
            taker.would_take
            and taker.negotiated < self._ahead
            and taker.outstanding < limits.REQUESTS_MAX
            and now - oldest < self._pace.slow_s
        )

    def _poorest(self, candidates: list[NodeID]) -> NodeID | None:
        """Return the one that holds least among POOREST_OF drawn from those we can serve."""
        sample: list[NodeID] = []
        for peer in self._rng.sample(candidates, len(candidates)):
            if self._lacks(self._takers[peer]):
                sample.append(peer)
                if len(sample) == limits.POOREST_OF:
                    break
        return min(sample, key=lambda peer: self._takers[peer].wealth, default=None)

    def _lacks(self, taker: _Taker) -> int:
        """Return what may be granted; one that claims all and wants something lost some of it."""
        wanted = self._have
        if taker.pieces != self._all:
            wanted ^= self._have & taker.pieces
        for index in taker.agreed:
            wanted &= ~masks.bit(index)
        return wanted

    def _hint(self, taker: _Taker) -> PieceIndex:
        wanted = self._lacks(taker)
        complete = self._have == self._all
        return masks.pick((self._sent if complete else self._availability).least(wanted), self._rng)

    def accepted(self, peer: NodeID, index: PieceIndex, size: int, now: float) -> None:
        """Offered -> waiting: the peer took its oldest grant for this piece of ``size`` bytes.

        Raises:
            UnexpectedMessage: nothing was granted, or the piece is agreed already.
        """
        granted_at = self._answered(peer)
        taker = self._takers[peer]
        if index in taker.agreed:
            raise UnexpectedMessage("request-twice", str(index))
        self._answers.took(now - granted_at)
        taker.agreed[index] = _Sending(size)
        self._sent.add(masks.bit(index))

    def declined(self, peer: NodeID) -> None:
        """Offered -> end: the peer refused; it gets no other grant until it is ready.

        Raises:
            UnexpectedMessage: nothing was granted.
        """
        self._answered(peer)
        self._takers[peer].declined = True
        self._sort(peer)

    def _answered(self, peer: NodeID) -> float:
        """Take the peer's oldest grant, and return when it was sent."""
        grants = self._takers[peer].grants
        if not grants:
            raise UnexpectedMessage("no-grant")
        return grants.pop(0)

    def ready(self, peer: NodeID) -> None:
        """The peer takes its refusal back."""
        self._takers[peer].declined = False
        self._sort(peer)

    # --- sending ---

    def next_start(self, now: float) -> Offer | None:
        """Waiting -> sending: return the piece to start, or ``None``."""
        slots, slow_s = 0, self._pace.slow_s
        for taker in self._busy.values():
            for piece in taker.agreed.values():
                slots += taker.holds_slot(piece, now, slow_s)
        if slots >= self._uplink.slots:
            return None
        for peer, taker in self._busy.items():
            for index, piece in taker.agreed.items():
                if piece.started is None:
                    piece.started = piece.progress_at = now
                    return Offer(peer, index)
                if piece.sent_at is None:
                    break  # one after the other to each peer
        return None

    def progressed(self, peer: NodeID, index: PieceIndex, size: int, now: float) -> bool:
        """``size`` more bytes of the piece went to the socket; True once, when it ends soon."""
        piece = self._takers[peer].agreed[index]
        self._uplink.add(size)
        piece.sent += size
        piece.progress += size
        if piece.progress >= limits.PIECE_PROGRESS_BYTES:
            piece.progress_at, piece.progress = now, 0
        if piece.ending or not piece.ends_soon(now):
            return False
        piece.ending = True
        return True

    def sent(self, peer: NodeID, index: PieceIndex, now: float) -> None:
        """Sending -> sent: the whole piece was handed to the socket."""
        taker = self._takers[peer]
        taker.agreed[index].sent_at = now
        taker.last.append(index)

    def received(self, peer: NodeID, index: PieceIndex, now: float) -> None:
        """Sent -> end: the peer has the piece.

        Raises:
            UnexpectedMessage: it cannot have it.
        """
        taker = self._takers[peer]
        piece = taker.agreed.get(index)
        if piece is None or piece.started is None or piece.sent_at is None:
            raise UnexpectedMessage("received-unsent", str(index))
        del taker.agreed[index]
        self._sort(peer)
        taker.given += 1
        self._pace.took(now - piece.started)
        self._answers.passed(now)
        drained_s = now - piece.sent_at
        taker.drain_s = min(taker.drain_s, drained_s)
        taker.queued = drained_s > max(limits.DRAIN_S, 2 * taker.drain_s)
        self._adapt_ahead(now)

    def _adapt_ahead(self, now: float) -> None:
        """A slot is free: negotiate earlier if nothing waits for it, later if that goes on well."""
        if any(piece.started is None for t in self._busy.values() for piece in t.agreed.values()):
            self._in_time += 1
            if self._in_time >= _IN_TIME:
                self._in_time = 0
                self._ahead = max(limits.GRANTS_AHEAD, self._ahead - 1)
        elif any(taker.grants for taker in self._busy.values()):
            self._in_time = 0
            most = limits.GRANTS_AHEAD_MAX + self._answers.filling(now)
            self._ahead = min(most, self._ahead + 1)

    def ended(self, peer: NodeID, index: PieceIndex) -> None:
        """Waiting or sending -> end, without the peer having it."""
        del self._takers[peer].agreed[index]
        self._sort(peer)
        self._sent.remove(masks.bit(index))

    def stalled(self, now: float) -> list[NodeID]:
        """Return the peers that have not read PIECE_PROGRESS_BYTES for PIECE_PROGRESS_S."""
        return [
            peer
            for peer, taker in self._busy.items()
            if any(
                piece.started is not None
                and piece.sent_at is None
                and now - piece.progress_at >= limits.PIECE_PROGRESS_S
                for piece in taker.agreed.values()
            )
        ]
