"""Peer exchange: what we tell peers of other peers, and what becomes of what they tell. Pure.

Told is who is connected now, was proved by a handshake and has room for callers, at an address we
know ourselves: the one we called, or for a caller the one it joined from. An address of narrower
scope is never told to a peer of wider scope (decision 15).

What is told to us is hearsay. An address is tried (ping, then join, as one offered by the overlay)
only while our circle lacks peers. Who is asked next is drawn among the tellers first, then among
what that one told: a long list gains nothing. Each try costs its teller credit until the address
has joined, and the credit is bounded twice: by PEX_VAIN, and by the bytes the teller itself has
sent us: what a liar makes us send to strangers he has sent to us before.

Does NOT ping or dial. Threat: liars. Tests: ``test_pex``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, Scope, is_ipv6, limit_key, scope
from p2pdist.errors import UnexpectedMessage
from p2pdist.ids import NodeID
from p2pdist.swarm.messages import PeerFlag, PeerNote, Peers

View = Mapping[Address, PeerFlag]
"""Who can be told of now."""


def compose(added: list[PeerNote], left: list[Address], *, room: bool) -> Peers:
    """Return the message that says so."""
    return Peers(
        room,
        added4=tuple(note for note in added if not is_ipv6(note.address)),
        added6=tuple(note for note in added if is_ipv6(note.address)),
        left4=tuple(address for address in left if not is_ipv6(address)),
        left6=tuple(address for address in left if is_ipv6(address)),
    )


@define
class Telling:
    """What one peer was told, and when it may be told more.

    Args:
        reach: scope of its address.
    """

    reach: Scope
    _told: dict[Address, None] = field(factory=dict, init=False)
    _room: bool = field(default=True, init=False)
    _pause: float = field(default=limits.PEX_EVERY_S[0], init=False)
    _next: float = field(default=0.0, init=False)

    def news(self, view: View, itself: Address | None, now: float, *, room: bool) -> Peers | None:
        """Return what to tell now, or ``None``: nothing is new, or it is too soon.

        Args:
            view: who can be told of.
            itself: where the peer is, of which it need not be told.
            now: the time.
            room: whether we have a place for one more caller.
        """
        if now < self._next:
            return None
        left = [told for told in self._told if told not in view][: limits.PEX_PEERS]
        added = [
            PeerNote(address, flags)
            for address, flags in view.items()
            if address not in self._told and address != itself and scope(address) >= self.reach
        ][: limits.PEX_PEERS]
        if not added and not left and room == self._room:
            return None
        self._room = room
        for address in left:
            del self._told[address]
        self._told.update((note.address, None) for note in added)
        self._next = now + self._pause
        self._pause = min(2 * self._pause, limits.PEX_EVERY_S[1])
        return compose(added, left, room=room)


@define(eq=False)
class _Teller:
    reach: Scope
    frames: float
    frames_at: float
    notes: dict[bytes, PeerNote] = field(factory=dict)  # by limit_key: one of a global host
    sent_bytes: int = 0
    vain: int = 0

    @property
    def credit(self) -> int:
        paid = limits.PEX_FREE + self.sent_bytes // limits.PEX_TRY_BYTES
        return min(limits.PEX_VAIN, paid) - self.vain


@define
class Hearsay:
    """What the peers of one content told of others.

    Args:
        rng: chooses whom to believe next.
    """

    rng: random.Random
    _tellers: dict[NodeID, _Teller] = field(factory=dict, init=False)
    _trying: dict[Address, tuple[_Teller, float]] = field(factory=dict, init=False)

    @property
    def addresses(self) -> int:
        """How many addresses are remembered; each counts once for every teller."""
        return sum(len(teller.notes) for teller in self._tellers.values())

    @property
    def tellers(self) -> int:
        """How many peers are remembered, connected or not."""
        return len(self._tellers)

    def met(self, node_id: NodeID, address: Address, now: float) -> None:
        """A peer is connected: it may tell. What it told before, and its credit, stays."""
        known = self._tellers.pop(node_id, None)
        if known is None:
            known = _Teller(scope(address), 0.0, now)
        known.reach = scope(address)
        known.frames, known.frames_at = limits.RATE_PEX[1], now
        self._tellers[node_id] = known
        if len(self._tellers) > limits.PEX_TELLERS:
            del self._tellers[next(iter(self._tellers))]

    def received(self, node_id: NodeID, size: int) -> None:
        """A peer sent so many bytes: so many it may make us send."""
        teller = self._tellers.get(node_id)
        if teller is not None:
            teller.sent_bytes += size

    def heard(self, node_id: NodeID, message: Peers, now: float) -> None:
        """Take what a peer tells.

        Raises:
            UnexpectedMessage: it tells too often.
        """
        teller = self._tellers.get(node_id)
        if teller is None:
            return  # so many came after it that it is forgotten
        rate, burst = limits.RATE_PEX
        teller.frames = min(burst, teller.frames + (now - teller.frames_at) * rate) - 1
        teller.frames_at = now
        if teller.frames < 0:
            raise UnexpectedMessage("pex-rate")
        for address in (*message.left4, *message.left6):
            teller.notes.pop(limit_key(address), None)
        for note in (*message.added4, *message.added6):
            # nobody names hosts of our LAN from outside
            if scope(note.address) >= teller.reach and len(teller.notes) < limits.PEX_KEPT:
                teller.notes.setdefault(limit_key(note.address), note)

    def draw(self, lack: int, now: float, wanted: Callable[[Address], bool]) -> list[Address]:
        """Return addresses to try now.

        Args:
            lack: how many peers are looked for, those being tried included.
            now: the time.
            wanted: tells whether an address is worth a try, and not known already.
        """
        for address, (_, since) in list(self._trying.items()):
            if now - since >= limits.PEX_TRY_S:
                del self._trying[address]  # in vain: the credit is gone
        drawn: list[Address] = []
        while len(self._trying) < lack:
            tellers = [teller for teller in self._tellers.values() if teller.notes]
            tellers = [teller for teller in tellers if teller.credit > 0]
            if not tellers:
                break
            teller = self.rng.choice(tellers)
            notes = list(teller.notes.values())
            reached = [note for note in notes if note.flags & PeerFlag.REACHED]
            address = self.rng.choice(reached or notes).address
            for other in self._tellers.values():
                other.notes.pop(limit_key(address), None)
            if address not in self._trying and wanted(address):
                teller.vain += 1
                self._trying[address] = (teller, now)
                drawn.append(address)
        return drawn

    def joined(self, address: Address) -> None:
        """An address proved to be a peer's: whoever told it has told the truth."""
        tried = self._trying.pop(address, None)
        if tried is not None:
            tried[0].vain -= 1
