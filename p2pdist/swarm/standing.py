"""Reads off a transfer's parts where it stands. Pure. Tests: ``test_transfer``."""

from __future__ import annotations

from attrs import evolve, frozen

from p2pdist import limits
from p2pdist.content import Metadata
from p2pdist.swarm.exchange import Exchange
from p2pdist.swarm.progress import (
    Progress,
    waiting_for_metadata,
    waiting_for_peers,
    waiting_for_pieces,
)
from p2pdist.swarm.rates import eta_s
from p2pdist.swarm.roster import Roster


@frozen(kw_only=True)
class Pace:
    """What a download is doing now, for whoever asks what limits it.

    Attributes:
        disk_full: the disk takes no more.
        wanted_nowhere: of the missing pieces nobody connected has any.
        in_flight: pieces on their way in.
        waiting_bytes: that came and are not yet verified and on disk.
        room_bytes: that may be on their way and waiting together.
        hashing: checking pieces takes longer than writing them.
        complete: every piece is verified; what is left is sync, sha256 and final name.
    """

    disk_full: bool = False
    wanted_nowhere: bool = False
    in_flight: int = 0
    waiting_bytes: int = 0
    room_bytes: int = 1
    hashing: bool = False
    complete: bool = False


def pace(exchange: Exchange | None, *, disk_full: bool, hashing: bool = False) -> Pace:
    """Return what a transfer's download is doing; ``hashing`` as in :class:`Pace`."""
    if exchange is None:
        return Pace(disk_full=disk_full)
    missing, _, writing, _ = exchange.picker.states()
    return Pace(
        disk_full=disk_full,
        wanted_nowhere=bool(missing) and exchange.picker.unavailable() == missing,
        in_flight=exchange.picker.in_flight,
        waiting_bytes=writing.bit_count() * exchange.geometry.piece_length,
        room_bytes=limits.ASSEMBLY_BYTES,
        hashing=hashing,
        complete=exchange.picker.complete,
    )


def standing(
    now: float,
    *,
    roster: Roster,
    metadata: Metadata | None,
    exchange: Exchange | None,
    sources: int,
    trouble: str,
    published: bool,
) -> Progress:
    """Return where a transfer stands.

    Args:
        now: the time.
        roster: its connections.
        metadata: of the content, once it is there.
        exchange: of pieces, once the store is open.
        sources: peers that could give the metadata.
        trouble: what only the operator or the disk can mend, or ``""``.
        published: whether the content has its final name.
    """
    down = 0.0 if exchange is None else exchange.received.rate(now)
    waiting_for = trouble
    if not trouble and exchange is not None:
        waiting_for = _waiting_to_end(roster, exchange, down, published=published)
    elif not trouble:
        waiting_for = "the disk" if metadata is not None else _waiting_to_begin(roster, sources)
    start = Progress(
        length=None if metadata is None else metadata.length,
        pieces=None if metadata is None else metadata.count,
        peers=len(roster.members),
        waiting_for=waiting_for,
    )
    if metadata is None or exchange is None:
        return start
    have_bytes = exchange.geometry.bytes_of(exchange.picker.have)
    return evolve(
        start,
        have_bytes=have_bytes,
        have_pieces=exchange.picker.have.bit_count(),
        download_bytes_per_s=down,
        upload_bytes_per_s=exchange.sent.rate(now),
        seeds=exchange.picker.seeds(),
        eta_s=eta_s(metadata.length - have_bytes, down),
        uploaded_bytes=exchange.sent.total,
        downloaded_bytes=exchange.received.total,
    )


def _waiting_to_begin(roster: Roster, sources: int) -> str:
    if roster.members:
        return waiting_for_metadata(sources, len(roster.members))
    return waiting_for_peers(roster.known, roster.unreachable_count)


def _waiting_to_end(
    roster: Roster, exchange: Exchange, download_bytes_per_s: float, *, published: bool
) -> str:
    if exchange.picker.complete:
        return "" if published else "its final name"
    if not roster.members:
        return waiting_for_peers(roster.known, roster.unreachable_count)
    if download_bytes_per_s > 0:
        return ""
    return waiting_for_pieces(exchange.picker.unavailable(), len(roster.members))
