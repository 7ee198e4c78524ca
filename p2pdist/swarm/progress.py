"""Where a transfer stands, and in plain words what it waits for. Pure. Tests: ``test_progress``."""

from __future__ import annotations

from attrs import frozen

from p2pdist.swarm import masks


@frozen(kw_only=True)
class Progress:
    """A snapshot of one transfer.

    Attributes:
        length: bytes of the content, or ``None`` before the metadata is there.
        have_bytes: bytes of verified pieces.
        pieces: number of pieces, or ``None`` likewise.
        have_pieces: verified ones.
        download_bytes_per_s: over the last ``limits.RATE_WINDOW_S``, pieces only.
        upload_bytes_per_s: likewise.
        peers: connections.
        seeds: of these, to complete nodes.
        eta_s: seconds until complete at the present rate, or ``None`` when unknown.
        waiting_for: what keeps it from moving, or ``""``.
        uploaded_bytes: since the start.
        downloaded_bytes: since the start, with pieces that were dropped, stolen or wrong.
    """

    length: int | None = None
    have_bytes: int = 0
    pieces: int | None = None
    have_pieces: int = 0
    download_bytes_per_s: float = 0.0
    upload_bytes_per_s: float = 0.0
    peers: int = 0
    seeds: int = 0
    eta_s: float | None = None
    waiting_for: str = ""
    uploaded_bytes: int = 0
    downloaded_bytes: int = 0


def count_of(number: int, noun: str) -> str:
    """Return ``1 peer`` or ``3 peers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def waiting_for_peers(known: int, unreachable: int) -> str:
    """Say what a transfer without any connection waits for."""
    if not known:
        return "peers"
    text = f"a connection to {count_of(known, 'peer')}"
    if unreachable:
        text += f" ({unreachable} of them: UDP answers but TCP does not)"
    return text


def waiting_for_metadata(sources: int, peers: int) -> str:
    """Say what a transfer with connections but without metadata waits for."""
    if sources:
        return f"metadata from {count_of(sources, 'peer')}"
    return f"a peer that has the metadata (none of {count_of(peers, 'peer')} has it)"


def waiting_for_pieces(unavailable: int, peers: int) -> str:
    """Say what a transfer with connections but without bytes coming in waits for.

    Args:
        unavailable: mask of missing pieces that nobody connected has.
        peers: connections.
    """
    if not unavailable:
        return f"a turn from {count_of(peers, 'peer')}"
    first = masks.first(unavailable)
    others = unavailable.bit_count() - 1
    if not others:
        return f"a peer that has piece {first} (nobody connected has it)"
    return (
        f"peers that have piece {first} and {count_of(others, 'other')} (nobody connected has them)"
    )
