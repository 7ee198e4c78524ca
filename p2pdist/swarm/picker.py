"""Which piece to fetch from whom: the receiver's book. Pure; time and chance are parameters.

A piece is in exactly one state:

    ==========  =======================================  =================================
    state       meaning                                  leaves by
    ==========  =======================================  =================================
    missing     nobody sends it                          ``take`` -> in flight
                                                         ``found`` -> have
    in flight   one peer promised it (in endgame up to   ``arrived`` -> writing
                ``limits.ENDGAME_COPIES`` peers)         ``dropped`` -> missing
    writing     all bytes are here, not verified yet     ``verified`` -> have
                                                         ``spoiled`` -> missing
    have        verified and on disk                     ``lost`` -> missing
    ==========  =======================================  =================================

An uploader's hint is taken when it is as rare as the rarest missing piece it has, else swapped for
that one: so the hints of a complete node, each piece once before any twice, are followed as long as
they cost nothing. Rarity counts connected peers; ties are broken by chance.

Does NOT know bytes, sizes, budgets or sockets. Threat: peers lie about what they have, promise and
stall, or drip. A stalled piece is dropped, a slow one fetched twice at the end, and displaced
before when others wait; each is one strike for the peer. Tests: ``test_picker``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from attrs import define, field

from p2pdist import limits
from p2pdist.ids import NodeID, PieceIndex
from p2pdist.swarm import masks
from p2pdist.swarm.masks import Tally
from p2pdist.swarm.messages import DeclineReason
from p2pdist.swarm.rates import Pipeline

_INSTANT_S = 1e-4
"""Nothing takes less: simulated time may stand still."""
_LEAST_SHARE = 0.2
"""Even a piece of a very slow peer takes that much of a place."""
_MEMORY = 0.25
"""Weight of the newest duration in what is usual."""


@define
class Pace:
    """How long a piece usually takes, and from when on one is slow.

    One that took long counts as twice the usual at most, so that drips cannot make themselves
    usual. Below ``limits.TICK_S`` everything is quick.
    """

    _usual_s: float | None = None
    _patience_s: float = limits.SLOW_S

    def took(self, duration_s: float) -> None:
        """Learn from a piece that came."""
        usual = self._usual_s
        if usual is None:
            self._usual_s = duration_s
        else:
            believed_s = min(duration_s, max(2 * usual, limits.TICK_S))
            self._usual_s = usual + _MEMORY * (believed_s - usual)

    def lost_patience(self) -> None:
        """Wait longer the next time, as long as nothing has shown what is usual."""
        self._patience_s *= 2

    @property
    def late_s(self) -> float:
        """Time after which a second source is asked at the end."""
        if self._usual_s is None:
            return limits.PIECE_PROGRESS_S
        return max(limits.TICK_S, limits.ENDGAME_FACTOR * self._usual_s)

    @property
    def slow_s(self) -> float:
        """Time after which a piece loses its place to others that wait for one."""
        if self._usual_s is None:
            return self._patience_s
        return max(limits.PIECE_PROGRESS_S, limits.SLOW_FACTOR * self._usual_s)


@define
class _Source:
    """A peer, as the receiver sees it.

    Attributes:
        pieces: mask of what it claims.
        flights: pieces it promised, with the time of the request, oldest first.
        progress_at: last time it had sent PIECE_PROGRESS_BYTES or started from nothing.
        progress: bytes since then.
        declined: why its last grant was refused, until it is told that we are ready.
        arrived_at: when its last piece was whole.
        piece_s: what a piece takes from it lately; 0 before the first.
        strikes: pieces refused or stalled since the last one delivered.
    """

    pieces: int
    flights: dict[PieceIndex, float] = field(factory=dict)
    progress_at: float = 0.0
    progress: int = 0
    declined: DeclineReason | None = None
    strikes: int = 0
    arrived_at: float = -math.inf
    piece_s: float = 0.0

    def delivered(self, index: PieceIndex, now: float) -> None:
        """Learn from a piece that came; the time it waited behind others is not counted."""
        took_s = max(now - max(self.flights[index], self.arrived_at), _INSTANT_S)
        self.arrived_at = now
        weight = _MEMORY if self.piece_s else 1.0
        self.piece_s += weight * (took_s - self.piece_s)


class PiecePicker:
    """The receiver's decisions for one content.

    Args:
        count: number of pieces.
        have: mask of the pieces that are on disk.
        rng: breaks ties.

    Attributes:
        availability: how many connected peers claim each piece; shared with the uploader.
    """

    def __init__(self, *, count: int, have: int, rng: random.Random) -> None:
        self.availability = Tally()
        self._all = masks.full(count)
        self._have = have
        self._missing = self._all ^ have
        self._flying = 0
        self._writing = 0
        self._copies: dict[PieceIndex, dict[NodeID, None]] = {}
        self._sources: dict[NodeID, _Source] = {}
        self._refused: dict[NodeID, None] = {}  # whose last grant was refused, oldest first
        self._invited: dict[NodeID, float] = {}  # who was told that we are ready, and when
        self._pace = Pace()
        self._pipeline = Pipeline()
        self._places = limits.PIECES_IN_FLIGHT
        self._rng = rng

    # --- what is known ---

    @property
    def have(self) -> int:
        """Mask of the verified pieces."""
        return self._have

    @property
    def complete(self) -> bool:
        """Whether every piece is verified."""
        return self._have == self._all

    @property
    def in_flight(self) -> int:
        """Number of promised pieces, copies counted each."""
        return sum(map(len, self._copies.values()))

    def has_room(self, now: float) -> bool:
        """Tell whether one more piece may be promised.

        There are ``limits.PIECES_IN_FLIGHT`` places, up to ``limits.PIECES_IN_FLIGHT_MOST`` on long
        ways without a queue, and more where so many pieces are under way. A piece of a slow peer
        takes the share of a place that its peer's speed is of the usual one: it brings that much
        less, and must not keep others out.
        """
        return self.in_flight < limits.PROMISES_MAX and self._places_free(now) >= 1

    def _places_free(self, now: float) -> float:
        places = self._places + self._pipeline.filling(now)
        return places - self._places_taken()

    def adapt(self, now: float, *, clear: bool) -> None:
        """Have a place more where all are taken and the line shows no queue (``roundtrips``)."""
        if not clear:
            self._places = max(limits.PIECES_IN_FLIGHT, self._places - 1)
        elif self._places_free(now) < 1:
            self._places = min(limits.PIECES_IN_FLIGHT_MOST, self._places + 1)

    def _places_taken(self) -> float:
        speeds = [1 / source.piece_s for source in self._sources.values() if source.piece_s]
        total = sum(speeds)
        # The speed at which the usual byte comes. All speeds fall alike when our own line is full,
        # so only their ratio is used.
        usual = sum(speed * speed for speed in speeds) / total if total else 0.0
        taken = 0.0
        for source in self._sources.values():
            if source.flights:
                share = 1 / (source.piece_s * usual) if source.piece_s else 1.0
                taken += len(source.flights) * min(1.0, max(_LEAST_SHARE, share))
        return taken

    def states(self) -> tuple[int, int, int, int]:
        """Return the masks of the missing, in flight, writing and have pieces."""
        return self._missing, self._flying, self._writing, self._have

    def unavailable(self) -> int:
        """Return the mask of missing pieces that no connected peer claims."""
        return self.availability.uncounted(self._missing)

    def is_promised(self, peer: NodeID, index: PieceIndex) -> bool:
        """Tell whether the peer has been asked for the piece and is still to send it."""
        return index in self._sources[peer].flights

    def interesting(self, peer: NodeID) -> bool:
        """Tell whether the peer claims a piece that is not verified yet."""
        return bool(self._sources[peer].pieces & (self._all ^ self._have))

    def claims(self, peer: NodeID, index: PieceIndex) -> bool:
        """Tell whether the peer claims the piece."""
        return bool(self._sources[peer].pieces & masks.bit(index))

    def is_complete(self, peer: NodeID) -> bool:
        """Tell whether the peer claims every piece."""
        return self._sources[peer].pieces == self._all

    def seeds(self) -> int:
        """Return how many connected peers claim every piece."""
        return sum(source.pieces == self._all for source in self._sources.values())

    # --- peers ---

    def add_peer(self, peer: NodeID, pieces: int) -> None:
        """Learn of a connected peer and what it claims."""
        self._sources[peer] = _Source(pieces)
        self.availability.add(pieces)

    def remove_peer(self, peer: NodeID) -> list[PieceIndex]:
        """Forget a peer; return the pieces it had promised, which are dropped."""
        promised = list(self._sources[peer].flights)
        for index in promised:
            self.dropped(peer, index)
        self.availability.remove(self._sources.pop(peer).pieces)
        self._refused.pop(peer, None)
        self._invited.pop(peer, None)
        return promised

    def peer_has(self, peer: NodeID, pieces: int) -> int:
        """Add a mask to what the peer claims; return all it claims now."""
        source = self._sources[peer]
        self.availability.add(pieces ^ (pieces & source.pieces))
        source.pieces |= pieces
        return source.pieces

    def peer_lacks(self, peer: NodeID, index: PieceIndex) -> int:
        """Take one piece from what the peer claims; return all it claims now."""
        source = self._sources[peer]
        gone = source.pieces & masks.bit(index)
        self.availability.remove(gone)
        source.pieces ^= gone
        return source.pieces

    def strike(self, peer: NodeID) -> bool:
        """Count a refused or stalled piece; True when the peer has had its chances."""
        self._sources[peer].strikes += 1
        return self._sources[peer].strikes >= limits.STRIKES

    # --- choosing ---

    def choose(
        self, peer: NodeID, now: float, *, hint: PieceIndex | None = None, room: bool = True
    ) -> PieceIndex | DeclineReason:
        """Answer a grant: the piece to take, or why not. Changes nothing but the random state.

        Args:
            peer: who grants.
            now: the time.
            hint: what it proposes.
            room: whether there is room for another piece.
        """
        source = self._sources[peer]
        wanted = source.pieces & self._missing
        if not wanted:
            late = self._late(peer, now)
            if late is None:
                return DeclineReason.NOTHING
            return late if room else DeclineReason.BUSY
        if not room:
            return DeclineReason.BUSY
        rarest = self.availability.least(wanted)
        if hint is not None and rarest & masks.bit(hint):
            return hint
        return masks.pick(rarest, self._rng)

    def _late(self, peer: NodeID, now: float) -> PieceIndex | None:
        """Return the piece to fetch a second time from this peer, the one promised first."""
        source = self._sources[peer]
        for index, holders in self._copies.items():
            if (
                source.pieces & masks.bit(index)
                and peer not in holders
                and len(holders) < limits.ENDGAME_COPIES
                and now - self._since(index) >= self._pace.late_s
            ):
                return index
        return None

    def _since(self, index: PieceIndex) -> float:
        return max(self._sources[peer].flights[index] for peer in self._copies[index])

    def declined(self, peer: NodeID, reason: DeclineReason) -> None:
        """Remember that the peer's grant was refused."""
        self._sources[peer].declined = reason
        self._refused[peer] = None
        self._invited.pop(peer, None)

    @property
    def has_refused(self) -> bool:
        """Whether any peer waits to be told that its grant would be welcome."""
        return bool(self._refused)

    def ready_again(self, now: float, *, room: bool) -> Iterator[NodeID]:
        """Iterate over refused peers whose grant would now be taken; each is told once.

        No more than there are places for, lest most of their grants are refused again; who does not
        grant anything within READY_S holds no place. If nothing is on its way, all are told.
        """
        if not room:
            return
        for peer, since in list(self._invited.items()):
            if now - since >= limits.READY_S:
                del self._invited[peer]
        places = self._places_free(now) if self._flying else math.inf
        for peer in list(self._refused):
            if len(self._invited) >= places:
                return
            if not isinstance(self.choose(peer, now), DeclineReason):
                self._sources[peer].declined = None
                del self._refused[peer]
                self._invited[peer] = now
                yield peer

    # --- moves of a piece ---

    def take(self, peer: NodeID, index: PieceIndex, now: float) -> None:
        """Missing (or, in endgame, in flight) -> in flight: the peer was asked for it."""
        source = self._sources[peer]
        self._invited.pop(peer, None)
        assert (self._missing | self._flying) & masks.bit(index), "neither missing nor in flight"
        self._missing &= ~masks.bit(index)
        self._flying |= masks.bit(index)
        self._copies.setdefault(index, {})[peer] = None
        if not source.flights:
            source.progress_at, source.progress = now, 0
        source.flights[index] = now

    def progressed(self, peer: NodeID, size: int, now: float) -> None:
        """The peer sent ``size`` more bytes of something it promised."""
        source = self._sources[peer]
        if not source.progress and source.progress_at == next(iter(source.flights.values()), None):
            self._pipeline.took(now - source.progress_at)  # its first bytes, behind no other piece
        source.progress += size
        if source.progress >= limits.PIECE_PROGRESS_BYTES:
            source.progress_at, source.progress = now, 0

    def arrived(self, peer: NodeID, index: PieceIndex, now: float) -> list[NodeID]:
        """In flight -> writing; return the peers whose copy is not needed any more."""
        source = self._sources[peer]
        self._pace.took(now - source.flights[index])
        source.delivered(index, now)
        self._pipeline.passed(now)
        source.strikes = 0
        source.progress_at, source.progress = now, 0
        holders = list(self._copies[index])
        for holder in holders:
            self._forget_flight(holder, index)
        self._flying ^= masks.bit(index)
        self._writing |= masks.bit(index)
        return [holder for holder in holders if holder != peer]

    def dropped(self, peer: NodeID, index: PieceIndex) -> None:
        """In flight -> missing, unless another copy is on its way."""
        self._forget_flight(peer, index)
        if index not in self._copies:
            self._flying ^= masks.bit(index)
            self._missing |= masks.bit(index)

    def _forget_flight(self, peer: NodeID, index: PieceIndex) -> None:
        del self._sources[peer].flights[index]
        holders = self._copies[index]
        del holders[peer]
        if not holders:
            del self._copies[index]

    def verified(self, index: PieceIndex) -> None:
        """Writing -> have."""
        assert self._writing & masks.bit(index), "not writing"
        self._writing ^= masks.bit(index)
        self._have |= masks.bit(index)

    def spoiled(self, index: PieceIndex) -> None:
        """Writing -> missing: the bytes were wrong or could not be stored."""
        assert self._writing & masks.bit(index), "not writing"
        self._writing ^= masks.bit(index)
        self._missing |= masks.bit(index)

    def lost(self, index: PieceIndex) -> None:
        """Have -> missing: the disk changed underneath. Other states stay."""
        if self._have & masks.bit(index):
            self._have ^= masks.bit(index)
            self._missing |= masks.bit(index)

    def holders(self, index: PieceIndex) -> list[NodeID]:
        """Return the peers that promised a piece."""
        return list(self._copies.get(index, ()))

    def found(self, index: PieceIndex) -> bool:
        """Missing -> have: the disk gives it after all; false if it is being written."""
        if not self._missing & masks.bit(index):
            return False
        self._missing ^= masks.bit(index)
        self._have |= masks.bit(index)
        return True

    # --- time ---

    def stalled(self, now: float) -> list[tuple[NodeID, list[PieceIndex]]]:
        """Return peers without progress for PIECE_PROGRESS_S, with what they promised."""
        return [
            (peer, list(source.flights))
            for peer, source in self._sources.items()
            if source.flights and now - source.progress_at >= limits.PIECE_PROGRESS_S
        ]

    def displaceable(self, now: float) -> tuple[NodeID, PieceIndex] | None:
        """Return the oldest promise that is slow while a refused peer waits for room, if any."""
        if all(self._sources[peer].declined is not DeclineReason.BUSY for peer in self._refused):
            return None
        promises = [
            (since, peer, index)
            for peer, source in self._sources.items()
            for index, since in source.flights.items()
        ]
        if not promises:
            return None
        since, peer, index = min(promises, key=lambda promise: promise[0])
        if now - since < self._pace.slow_s:
            return None
        self._pace.lost_patience()
        return peer, index
