"""One content at close range: the map of its pieces, and its connections. Pure reading.

Job: what a page shows beside the status. It does NOT know who asks. Tests: ``test_closeup``.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from attrs import frozen

from p2pdist.ids import format_hash_key
from p2pdist.session import Session
from p2pdist.swarm import masks
from p2pdist.swarm.picker import PiecePicker


@frozen
class PieceMap:
    """Where every piece stands, as masks.

    Attributes:
        count: pieces; 0 while that is not known.
        have: verified.
        in_flight: promised by a peer.
        writing: here, and not verified yet.
        planes: how many connected peers have each piece, binary: the first mask holds bit 0.
    """

    count: int = 0
    have: int = 0
    in_flight: int = 0
    writing: int = 0
    planes: tuple[int, ...] = ()

    @classmethod
    def of(cls, session: Session) -> PieceMap:
        """Return that of a content."""
        picker: PiecePicker | None = session.transfer.picker
        if picker is None or session.transfer.store is None:
            return cls()
        count = session.transfer.store.geometry.count
        _, flying, writing, have = picker.states()
        there = masks.full(count)
        planes = tuple(plane & there for plane in picker.availability.planes())
        return cls(count, have, flying, writing, planes)

    def layers(self) -> list[int]:
        """Return all masks, those of the planes last."""
        return [self.have, self.in_flight, self.writing, *self.planes]


def pieces(session: Session) -> dict[str, Any]:
    """Return the map as JSON: bitfields in base64, piece 0 in the high bit of the first byte."""
    found = PieceMap.of(session)

    def text(mask: int) -> str:
        return b64encode(masks.to_bitfield(mask, found.count)).decode()

    return {
        "name": session.name,
        "hash_key": format_hash_key(session.descriptor.hash_key),
        "pieces": found.count,
        "have": text(found.have),
        "in_flight": text(found.in_flight),
        "writing": text(found.writing),
        "availability": [text(plane) for plane in found.planes],
    }


def peers(session: Session) -> dict[str, Any]:
    """Return the connections, with what moved over each since it was made."""
    return {
        "name": session.name,
        "hash_key": format_hash_key(session.descriptor.hash_key),
        "peers": [
            {
                "node": peer.node_id.hex(),
                "address": str(peer.address),
                "outgoing": peer.outgoing,
                "received_bytes": peer.received_bytes,
                "sent_bytes": peer.sent_bytes,
            }
            for peer in session.transfer.connections()
        ],
    }
