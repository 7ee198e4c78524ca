"""Pieces in and out: joins picker, uploader, store and connections of one content.

Everything that happens ends in one of two questions: ``_pump`` asks the uploader whom to serve,
``_wake`` asks the picker whose grants could be taken now after all. Starts when the store is open;
before, and for everything around it, there is ``transfer``.
Does NOT dial, ban or publish. Threat: peers that break the order of messages, lie, stall and spoil;
bounded by picker, uploader and budget. Tests: ``test_transfer``, ``test_hostile``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.errors import HashMismatch, MalformedMessage, StorageError, UnexpectedMessage
from p2pdist.ids import NodeID, PieceIndex
from p2pdist.logs import new_logger
from p2pdist.storage.store import Store
from p2pdist.swarm import masks
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.events import ExchangeOwner
from p2pdist.swarm.haves import HaveBatch
from p2pdist.swarm.messages import (
    Bitfield,
    ByeReason,
    Cancel,
    Decline,
    DeclineReason,
    Grant,
    Have,
    Interest,
    Message,
    Ready,
    Received,
    Reject,
    RejectReason,
    Request,
)
from p2pdist.swarm.parting import Parting
from p2pdist.swarm.peerwire import block_header, encode
from p2pdist.swarm.picker import PiecePicker
from p2pdist.swarm.rates import RateMeter
from p2pdist.swarm.roundtrips import LineWatch
from p2pdist.swarm.sender import Parcel
from p2pdist.swarm.uploader import Offer, Uploader

T = TypeVar("T")


class Exchange:
    """The exchange of pieces of one content.

    Args:
        store: the pieces.
        clock: time.
        rng: chance.
        budget: memory for pieces on their way in.
        owner: told what happens.

    Attributes:
        picker: the receiver's book.
        uploader: the uploader's book.
        received: bytes of wanted pieces.
        sent: bytes of pieces.
    """

    log = new_logger()

    def __init__(
        self,
        *,
        store: Store,
        clock: IReactorTime,
        rng: random.Random,
        budget: AssemblyBudget,
        owner: ExchangeOwner,
    ) -> None:
        have = masks.from_bitfield(store.have.to_bytes())
        self.geometry = store.geometry
        count = self.geometry.count
        self.picker = PiecePicker(count=count, have=have, rng=rng)
        self.uploader = Uploader(
            count=count, have=have, availability=self.picker.availability, rng=rng
        )
        self.received = RateMeter()
        self.sent = RateMeter()
        self._store = store
        self._clock = clock
        self._budget = budget
        self._owner = owner
        self._peers: dict[NodeID, PeerConnection] = {}
        self._interests: dict[NodeID, bool] = {}
        self._parcels: dict[tuple[NodeID, PieceIndex], Parcel] = {}
        self._assembling = 0  # bytes taken from the budget
        self._paused = False
        self._haves = HaveBatch(clock, self._tell_all)
        self._pumping = False
        self._pump_again = False
        self._pending = 0  # store operations under way
        self._idle: list[Deferred[None]] = []
        self._stopped = False
        self._parting = Parting()
        self._line = LineWatch(self.picker, self.uploader)
        self._refused: dict[tuple[NodeID, PieceIndex], float] = {}
        store.on_lost, store.on_found = self._piece_lost, self._piece_found

    # --- peers ---

    def add_peer(self, peer: PeerConnection, *, interested: bool) -> None:
        """Begin with a connected peer that claims nothing yet: tell it what we have."""
        self._peers[peer.node_id] = peer
        self.picker.add_peer(peer.node_id, 0)
        self.uploader.add_peer(peer.node_id, 0, interested=interested)
        peer.send(Bitfield(masks.to_bitfield(self.picker.have, self.geometry.count)))
        self._pump()

    def remove_peer(self, peer: PeerConnection) -> None:
        """End with a peer whose connection is closed."""
        node_id = peer.node_id
        del self._peers[node_id]
        self._interests.pop(node_id, None)
        for key in [key for key in self._parcels if key[0] == node_id]:
            del self._parcels[key]
        for index in self.picker.remove_peer(node_id):
            self._give(index)
        sent = self.uploader.remove_peer(node_id)
        for index in sent if peer.remote_bye == ByeReason.BANNED else ():
            self._store.check(index)  # it may be a liar; if not, one of these is wrong
        self._wake()
        self._pump()

    def peer_has(self, peer: PeerConnection, pieces: int) -> None:
        """A peer claims more pieces.

        Raises:
            MalformedMessage: pieces that do not exist.
        """
        if pieces >> self.geometry.count:
            raise MalformedMessage("piece-index", "a piece beyond the last")
        node_id = peer.node_id
        self.uploader.peer_pieces(node_id, self.picker.peer_has(node_id, pieces))
        self._show_interest(node_id)
        self._wake()

    def _show_interest(self, node_id: NodeID) -> None:
        interesting = self.picker.interesting(node_id)
        interesting = interesting and not self._store.published
        if self._interests.get(node_id, False) != interesting:
            self._interests[node_id] = interesting
            self._peers[node_id].send(Interest(interesting))

    def _tell_all(self, message: Message) -> None:
        frame = encode(message)
        for peer in list(self._peers.values()):
            peer.send_frame(frame)

    # --- messages ---

    def receive(self, peer: PeerConnection, message: Message) -> None:
        """Take a message about pieces.

        Raises:
            RemoteProtocolError: it may not come now.
        """
        take = self._TAKES.get(type(message))
        if take is None:
            raise UnexpectedMessage("message-order", type(message).__name__)
        take(self, peer, message)

    def _have(self, peer: PeerConnection, have: Have) -> None:
        self.peer_has(peer, masks.from_indices(have.indices))

    def _interest(self, peer: PeerConnection, interest: Interest) -> None:
        self.uploader.interest(peer.node_id, wanted=interest.wanted)
        self._pump()

    def _grant(self, peer: PeerConnection, grant: Grant) -> None:
        node_id, now = peer.node_id, self._clock.seconds()
        hint = self.geometry.check(grant.index)
        if not self.picker.claims(node_id, hint):  # its have is still to come
            self.peer_has(peer, masks.bit(hint))
        choice = self.picker.choose(node_id, now, hint=hint, room=self._room())
        if not isinstance(choice, DeclineReason) and not peer.may_request(choice):
            choice = DeclineReason.BUSY  # a cancelled request is not settled yet
        if isinstance(choice, DeclineReason):
            self.picker.declined(node_id, choice)
            peer.send(Decline(choice))
            self._wait_for_budget()
            return
        size = self.geometry.size_of(choice)
        self._assembling += size
        self._budget.take(size)
        self.picker.take(node_id, choice, now)
        peer.request(choice, size, self._budget.buffer)

    def _request(self, peer: PeerConnection, request: Request) -> None:
        node_id = peer.node_id
        index = self.geometry.check(request.index)
        size = self.geometry.size_of(index)
        self.uploader.accepted(node_id, index, size, self._clock.seconds())
        if not self.uploader.can_serve(index):
            self._unserve(peer, index, RejectReason.GONE)
        self._pump()

    def _decline(self, peer: PeerConnection, _decline: Decline) -> None:
        self.uploader.declined(peer.node_id)
        self._pump()

    def _ready(self, peer: PeerConnection, _ready: Ready) -> None:
        self.uploader.ready(peer.node_id)
        self._pump()

    def _received(self, peer: PeerConnection, received: Received) -> None:
        self.uploader.received(peer.node_id, received.index, self._clock.seconds())
        self._pump()

    def _cancel(self, peer: PeerConnection, cancel: Cancel) -> None:
        """Stop sending; a cancel that crossed the last block means nothing any more."""
        if self.uploader.is_unsent(peer.node_id, cancel.index):
            self._unserve(peer, cancel.index, RejectReason.CANCELLED)
            self._pump()

    def _reject(self, peer: PeerConnection, reject: Reject) -> None:
        """A piece will not come; of one that we cancelled ourselves nothing is left to do."""
        node_id, index = peer.node_id, reject.index
        if not self.picker.is_promised(node_id, index):
            return
        self.picker.dropped(node_id, index)
        self._give(index)
        self.uploader.peer_pieces(node_id, self.picker.peer_lacks(node_id, index))
        self._strike(node_id)
        self._wake()

    _TAKES: ClassVar[Mapping[type[Any], Callable[[Exchange, PeerConnection, Any], None]]] = {
        Have: _have,
        Interest: _interest,
        Grant: _grant,
        Request: _request,
        Decline: _decline,
        Ready: _ready,
        Received: _received,
        Cancel: _cancel,
        Reject: _reject,
    }

    # --- fetching ---

    def _room(self) -> bool:
        """Tell whether another piece may be asked for."""
        if self._paused or self._store.published:
            return False
        if not self.picker.has_room(self._clock.seconds()):
            return False
        return not self._assembling or self._budget.fits(self.geometry.piece_length)

    def _give(self, index: PieceIndex) -> None:
        size = self.geometry.size_of(index)
        self._assembling -= size
        self._budget.give(size)

    def _wait_for_budget(self) -> None:
        if not self._budget.fits(self.geometry.piece_length):
            self._budget.when_freed(self, self._wake)

    def _wake(self) -> None:
        """Tell peers whose grants were refused that one would be welcome now."""
        if self._stopped:
            return
        if self.picker.has_refused:
            for node_id in self.picker.ready_again(self._clock.seconds(), room=self._room()):
                self._peers[node_id].send(Ready())
        self._wait_for_budget()

    def piece_bytes_received(self, peer: PeerConnection, size: int) -> None:
        """``size`` more bytes of a wanted piece are here."""
        now = self._clock.seconds()
        self.received.add(size, now)
        self.picker.progressed(peer.node_id, size, now)

    def piece_received(self, peer: PeerConnection, index: PieceIndex, data: bytearray) -> None:
        """A wanted piece is whole: have it verified and written."""
        for node_id in self.picker.arrived(peer.node_id, index, self._clock.seconds()):
            self._peers[node_id].cancel(index)
            self._give(index)
        self._pending += 1
        written = self._store.write_piece(index, memoryview(data))
        written.addBoth(self._budget.recycle, data)
        written.addCallbacks(
            self._cb_written, self._eb_written, callbackArgs=(index,), errbackArgs=(peer, index)
        )
        written.addErrback(self._eb_bug)
        written.addBoth(self._cb_over)
        self._wake()

    def _cb_written(self, _: None, index: PieceIndex) -> None:
        self.picker.verified(index)
        self._give(index)
        self._stored(index)

    def _stored(self, index: PieceIndex) -> None:
        self.uploader.gained(index)
        if self._stopped:
            return
        self._haves.add(index)
        self._paused = False
        self._owner.disk_works()
        self._owner.piece_verified(index)
        if self.picker.complete:
            self._finish()
        self._wake()
        self._pump()

    def _eb_written(self, failure: Failure, peer: PeerConnection, index: PieceIndex) -> None:
        self.picker.spoiled(index)
        self._give(index)
        failure.trap(StorageError)
        error = cast("StorageError", failure.value)
        if self._stopped:
            return
        if isinstance(error, HashMismatch):
            self._owner.piece_spoiled(peer, index)
        else:
            self._paused = True
            self._owner.disk_failed(error)
        self._wake()

    def _finish(self) -> None:
        self._haves.flush()
        for node_id in list(self._peers):
            self._show_interest(node_id)
        self._owner.all_verified()

    def resume(self) -> None:
        """Fetch again after ``disk_failed``."""
        self._paused = False
        self._wake()

    def _piece_lost(self, index: int) -> None:
        self.picker.lost(PieceIndex(index))
        self.uploader.lost(PieceIndex(index))
        if self._stopped:
            return
        if self._store.published:
            self._owner.published_piece_lost(PieceIndex(index))
        for node_id in list(self._peers):
            self._show_interest(node_id)
        self._wake()

    def _piece_found(self, number: int) -> None:
        index = PieceIndex(number)
        for node_id in self.picker.holders(index):
            self._drop(node_id, index)
        if self.picker.found(index):
            self._stored(index)

    def _drop(self, node_id: NodeID, index: PieceIndex) -> None:
        self.picker.dropped(node_id, index)
        self._give(index)
        self._peers[node_id].cancel(index)

    def _strike(self, node_id: NodeID) -> None:
        if self.picker.strike(node_id):
            self._peers[node_id].close(ByeReason.STALLED)

    # --- serving ---

    def _pump(self) -> None:
        """Send the grants and start the pieces that are due; calls from within come here too."""
        self._pump_again = True
        if self._pumping or self._stopped:
            return
        self._pumping = True
        self._line.look(self._peers.values(), self._clock.seconds())
        try:
            while self._pump_again:
                self._pump_again = False
                now = self._clock.seconds()
                starts = []
                while start := self.uploader.next_start(now):
                    starts.append(start)
                # Grants go first: behind the piece they would come back too late.
                while offer := self.uploader.next_offer(now):
                    self._peers[offer.peer].send(Grant(offer.index))
                for start in starts:
                    self._start(start)
        finally:
            self._pumping = False

    def _start(self, start: Offer) -> None:
        peer, index = self._peers[start.peer], start.index
        parcel = Parcel(
            size=self.geometry.size_of(index),
            header=partial(block_header, index),
            read=partial(self._read, peer, index),
            progressed=partial(self._block_sent, peer, index),
            done=partial(self._piece_sent, peer, index),
            failed=partial(self._read_failed, peer, index),
        )
        self._parcels[start.peer, index] = parcel
        peer.sender.send(parcel)

    def _read(self, peer: PeerConnection, index: PieceIndex, *span: int) -> Deferred[Any]:
        self._pending += 1
        lend = peer.sender.line is not None
        return self._store.read(index, *span, lend=lend).addBoth(self._cb_over)

    def _block_sent(self, peer: PeerConnection, index: PieceIndex, size: int) -> None:
        now = self._clock.seconds()
        peer.useful_at = now
        peer.sent_bytes += size
        self.sent.add(size, now)
        if self.uploader.progressed(peer.node_id, index, size, now):
            self._pump()

    def _piece_sent(self, peer: PeerConnection, index: PieceIndex) -> None:
        del self._parcels[peer.node_id, index]
        self.uploader.sent(peer.node_id, index, self._clock.seconds())
        self._pump()

    def _read_failed(self, peer: PeerConnection, index: PieceIndex, failure: Failure) -> None:
        self.log.debug("piece {index} cannot be read: {error}", index=index, error=failure.value)
        if self.uploader.can_serve(index):  # disk or system were only busy
            self._refused[peer.node_id, index] = self._clock.seconds()
        self._unserve(peer, index, RejectReason.GONE)
        self._pump()

    def _offer_again(self, now: float) -> None:
        """Tell whoever was refused a piece that is still here; it believes that it is gone."""
        for key, since in list(self._refused.items()):
            if now - since >= limits.DISK_RETRY_S:
                del self._refused[key]
                node_id, index = key
                if node_id in self._peers and self.uploader.can_serve(index):
                    self._peers[node_id].send(Have((index,)))

    def _unserve(self, peer: PeerConnection, index: PieceIndex, reason: RejectReason) -> None:
        self.uploader.ended(peer.node_id, index)
        parcel = self._parcels.pop((peer.node_id, index), None)
        if parcel is not None:
            peer.sender.cancel(parcel)
        peer.send(Reject(index, reason))

    # --- time and end ---

    def tick(self, now: float) -> None:
        """Look at deadlines: called every ``limits.TICK_S``."""
        for node_id, promised in self.picker.stalled(now):
            for index in promised:
                self._drop(node_id, index)
            self._strike(node_id)
        displaced = self.picker.displaceable(now)
        if displaced is not None:
            self._drop(*displaced)
            self._strike(displaced[0])
        for node_id in self.uploader.stalled(now):
            if node_id in self._peers:
                self._peers[node_id].close(ByeReason.STALLED)
        for node_id in list(self._peers):
            self._show_interest(node_id)
        self._offer_again(now)
        done = self._peers if self.picker.complete else ()
        complete = [node_id for node_id in done if self.picker.is_complete(node_id)]
        for node_id in self._parting.surplus(complete, now):
            self._peers[node_id].close(ByeReason.DONE)
        self._wake()
        self._pump()

    def stop(self) -> Deferred[None]:
        """Do nothing more; fires when no store operation is under way. Never fails."""
        self._stopped = True
        self._budget.forget(self)
        self._haves.stop()
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        self._tell_idle()
        return waiting

    def _cb_over(self, result: T) -> T:
        self._pending -= 1
        self._tell_idle()
        return result

    def _tell_idle(self) -> None:
        if self._pending == 0:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def _eb_bug(self, failure: Failure) -> None:
        self.log.failure("a written piece could not be accounted for", failure)
