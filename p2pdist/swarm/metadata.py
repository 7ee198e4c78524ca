"""The metadata: fetched whole from one peer at a time, the next one when that leads nowhere.

A peer that sent a bitfield has the metadata and is a source. Its parts must come in order and fill
what it announced; the hash is checked by the owner when all is there. Within
``limits.METADATA_PROGRESS_S`` a source must bring 16 KiB or a sixteenth of the whole, whichever is
more; once every source has failed, all get another chance and twice the time.
Does NOT send, hash or decode. Pure; time and chance are parameters.
Threat: wrong bytes, wrong totals, stalls, drips; memory is taken by bytes that came, up to
``limits.METADATA_BYTES``. Tests: ``test_metadata``.
"""

from __future__ import annotations

import random
from functools import partial

from twisted.internet.defer import succeed

from p2pdist import limits
from p2pdist.errors import UnexpectedMessage
from p2pdist.ids import NodeID
from p2pdist.swarm.messages import MetadataPart
from p2pdist.swarm.peerwire import metadata_header
from p2pdist.swarm.sender import Parcel

_SHARE = 16


class MetadataFetch:
    """One fetch, from its first source to all bytes.

    Args:
        rng: chooses among sources.

    Attributes:
        current: whom the metadata is asked from now, or ``None``.
    """

    def __init__(self, rng: random.Random) -> None:
        self.current: NodeID | None = None
        self._rng = rng
        self._sources: dict[NodeID, None] = {}
        self._failed: dict[NodeID, None] = {}  # in this round; calling again makes nobody new
        self._patience_s = limits.METADATA_PROGRESS_S
        self._data = bytearray()
        self._total: int | None = None
        self._mark = 0
        self._mark_at = 0.0

    @property
    def sources(self) -> int:
        """How many peers could be asked."""
        return len(self._sources)

    def add_source(self, peer: NodeID) -> None:
        """Learn that a connected peer has the metadata."""
        self._sources[peer] = None

    def remove_source(self, peer: NodeID) -> None:
        """Forget a peer; its bytes are dropped when it was being asked."""
        self._sources.pop(peer, None)
        if peer == self.current:
            self._reset()

    def ask(self, now: float) -> NodeID | None:
        """Return whom to ask now, or ``None``: somebody is being asked, or nobody is there."""
        if self.current is not None or not self._sources:
            return None
        fresh = [peer for peer in self._sources if peer not in self._failed]
        if not fresh:
            fresh = list(self._sources)
            self._failed.clear()
            self._patience_s *= 2
        self.current = self._rng.choice(fresh)
        self._mark_at = now
        return self.current

    def part(self, peer: NodeID, part: MetadataPart, now: float) -> bytes | None:
        """Take the next bytes; return all of them when they are the last.

        Raises:
            UnexpectedMessage: not asked, or not the next bytes.
        """
        if peer != self.current:
            raise UnexpectedMessage("unrequested-metadata")
        if self._total is None:
            self._total = part.total
        if part.total != self._total or part.offset != len(self._data):
            raise UnexpectedMessage("metadata-range", f"{part.offset} of {part.total}")
        self._data += part.data
        if len(self._data) - self._mark >= max(limits.PIECE_PROGRESS_BYTES, self._total // _SHARE):
            self._mark, self._mark_at = len(self._data), now
        if len(self._data) < self._total:
            return None
        data = bytes(self._data)
        self._fail(peer)
        return data

    def stalled(self, now: float) -> NodeID | None:
        """Return the source that is too slow, if so; its bytes are dropped."""
        if self.current is None or now - self._mark_at < self._patience_s:
            return None
        peer = self.current
        self._fail(peer)
        return peer

    def _fail(self, peer: NodeID) -> None:
        """Ask others first from now on; all bytes that prove right end the fetch anyway."""
        self._failed[peer] = None
        if len(self._failed) > limits.PEERS_PER_OWN_TOPIC:
            del self._failed[next(iter(self._failed))]
        self._reset()

    def _reset(self) -> None:
        self.current = None
        self._data = bytearray()
        self._total = None
        self._mark = 0


def metadata_parcel(encoded: bytes) -> Parcel:
    """Return what serves the metadata to a peer."""

    def nothing(*_: object) -> None:
        """Metadata takes no slot and is read from memory: nobody needs to know."""

    return Parcel(
        size=len(encoded),
        header=partial(metadata_header, len(encoded)),
        read=lambda offset, size: succeed(encoded[offset : offset + size]),
        progressed=nothing,
        done=nothing,
        failed=nothing,
    )
