"""One content from join to seed: peers, metadata, store, exchange, publishing.

    no metadata  -> opening     a peer's metadata matches the hash_key
    opening      -> exchanging  ``open_store`` gave a store (or ``start`` did)
    exchanging   -> seeding     every piece verified, the store published
    any          -> stopped     ``stop``; or failed, by an error only the operator can mend

Connections are kept in every state: one without metadata waits for somebody who has it.
Does NOT know pieces (``exchange``), addresses of peers beyond those it was told (overlay), or
descriptors. Threat: peers under two connections, banned peers, false metadata.
Tests: ``test_transfer``, ``test_hostile``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.python.failure import Failure

from p2pdist.addresses import Address
from p2pdist.census.gossip import Digest, Records, Summary, Want
from p2pdist.content import Metadata, decode_metadata
from p2pdist.errors import (
    AuthenticationFailed,
    DiskTrouble,
    MalformedMessage,
    P2PDistError,
    RemoteProtocolError,
    StorageError,
    UnexpectedMessage,
)
from p2pdist.ids import HashKey, NodeID, PieceIndex
from p2pdist.keys import topic_of
from p2pdist.logs import new_logger
from p2pdist.storage.pieces import Bitfield as PieceSet
from p2pdist.storage.store import Store
from p2pdist.swarm import masks
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.diskpause import DiskPause
from p2pdist.swarm.events import TransferEvents
from p2pdist.swarm.exchange import Exchange
from p2pdist.swarm.messages import (
    Bitfield,
    ByeReason,
    Decline,
    DeclineReason,
    Grant,
    Have,
    Interest,
    Message,
    MetadataPart,
    MetadataRequest,
)
from p2pdist.swarm.metadata import MetadataFetch, metadata_parcel
from p2pdist.swarm.picker import PiecePicker
from p2pdist.swarm.progress import Progress
from p2pdist.swarm.roster import Member, Roster
from p2pdist.swarm.shaper import Shaper, Share
from p2pdist.swarm.standing import Pace, pace, standing
from p2pdist.swarm.ticker import Ticker
from p2pdist.swarm.transport import Way
from p2pdist.workers import IWorkers

__all__ = ["Transfer", "TransferEvents"]
T = TypeVar("T")


class Transfer:
    """One content's exchange with its swarm.

    Args:
        hash_key: the content.
        node_id: ours.
        way: how connections are opened.
        clock: time.
        reactor: where to dial.
        rng: chance.
        workers: for hashing and decoding the metadata.
        open_store: makes the store once the metadata is there. DiskTrouble is tried again every
            ``limits.DISK_RETRY_S``, every other error is told as ``failed``.
        events: told what happens.
        budget: memory for pieces on their way in, shared by the process.
        admission: count of connections, shared by the process.
        bind_host: local address to dial from, or ``None``.
        share: the rate limits it obeys; none by default.

    Attributes:
        topic: what the overlay and the handshake know of the content.
        share: its rate limits.
        store: the pieces, or ``None`` yet.
    """

    log = new_logger()

    def __init__(
        self,
        *,
        hash_key: HashKey,
        node_id: NodeID,
        way: Way,
        clock: IReactorTime,
        reactor: IReactorTCP,
        rng: random.Random,
        workers: IWorkers,
        open_store: Callable[[Metadata], Deferred[Store]],
        events: TransferEvents,
        budget: AssemblyBudget,
        admission: Admission,
        bind_host: str | None = None,
        share: Share | None = None,
    ) -> None:
        self.hash_key = hash_key
        self.topic = topic_of(hash_key)
        self.share = share or Shaper(clock).share()
        self.store: Store | None = None
        self._clock = clock
        self._rng = rng
        self._workers = workers
        self._open_store = open_store
        self._events = events
        self._budget = self.share.within(budget)
        self._fetch = MetadataFetch(rng)
        self._metadata: Metadata | None = None
        self._encoded = b""  # the metadata's bytes, once somebody asked for them
        self._exchange: Exchange | None = None
        self._roster = Roster(
            clock=clock,
            reactor=reactor,
            node_id=node_id,
            way=way,
            hash_key=hash_key,
            rng=rng,
            admission=admission,
            bind_host=bind_host,
            owner=self,
            events=events,
        )
        self._pause = DiskPause(clock, events.paused, events.resumed)
        self._trouble = ""
        self._started = False
        self._busy = 0  # workers and store operations of ours under way
        self._ticker = Ticker(clock, self._tick, self._rests)
        self._stopping: Deferred[None] | None = None

    # --- for the session ---

    def start(self, store: Store | None) -> None:
        """Begin; with a store the pieces are exchanged at once, complete or not.

        Peers may have called before; nothing is asked of them while the disk is looked at.
        """
        self._started = True
        self._ticker.start()
        if store is not None:
            self._metadata = store.metadata
            self._store_opened(store)
        self._ask_for_metadata()

    def peer_joined(
        self, address: Address, node_id: NodeID, *, dial_now: bool, is_open: bool = True
    ) -> None:
        """The overlay joined a peer.

        Args:
            address: of its UDP, and so of its TCP.
            node_id: as the overlay knows it; the connection will prove it.
            dial_now: False when the peer is going to call us; after ``limits.DIAL_WAIT_S`` we call.
            is_open: False when strangers cannot call it: then nobody is told of it.
        """
        self._ticker.stir()
        self._roster.add(address, node_id, dial_now=dial_now, is_open=is_open)

    def peer_left(self, node_id: NodeID) -> None:
        """The overlay lost a peer: it is called no more; a connection stays as long as it lives."""
        self._roster.remove(node_id)

    def progress(self) -> Progress:
        """Return where the transfer stands now."""
        return standing(
            self._clock.seconds(),
            roster=self._roster,
            metadata=self._metadata,
            exchange=self._exchange,
            sources=self._fetch.sources,
            trouble=self._trouble or self._pause.reason,
            published=self.store is not None and self.store.published,
        )

    def pace(self) -> Pace:
        """Return what the download is doing, for whoever asks what limits it."""
        hashing = self.store is not None and self.store.effort.mostly_hashing
        return pace(self._exchange, disk_full=self._pause.full, hashing=hashing)

    @property
    def picker(self) -> PiecePicker | None:
        """The book of pieces, to look at, once the store is open."""
        return None if self._exchange is None else self._exchange.picker

    def connections(self) -> list[PeerConnection]:
        """Return the connections to peers."""
        return [member.connection for member in self._roster.members.values()]

    def stop(self) -> Deferred[None]:
        """Close every connection; the store stays open.

        Fires when no connection, timer or operation of ours is left. Never fails.
        """
        if self._stopping is None:
            self._stopping = Deferred()
            self._ticker.stop()
            if self._exchange is not None:
                self._follow(self._exchange.stop(), lambda _: None, self._fail)
            self._roster.stop()
        waiting: Deferred[None] = Deferred()
        self._stopping.chainDeferred(waiting)
        self._look_for_end()
        return waiting

    def _look_for_end(self) -> None:
        done = not self._busy and self._roster.idle
        if self._stopping is not None and done and not self._stopping.called:
            self._stopping.callback(None)

    # --- connections ---

    def accept(self, connection: PeerConnection) -> None:
        """Take a proved connection of a caller; one that must not be is closed."""
        self._ticker.stir()
        self._roster.accept(connection)

    def is_complete(self) -> bool:
        """See :class:`~p2pdist.swarm.roster.RosterOwner`."""
        return self._exchange is not None and self._exchange.picker.complete

    def member_joined(self, member: Member) -> None:
        """See :class:`~p2pdist.swarm.roster.RosterOwner`."""
        member.connection.obey(self.share)
        if self._exchange is not None:
            self._exchange.add_peer(member.connection, interested=False)
        self._events.peer_connected()

    def member_left(self, member: Member) -> bool:
        """See :class:`~p2pdist.swarm.roster.RosterOwner`."""
        complete = False
        self._fetch.remove_source(member.node_id)
        if self._exchange is not None:
            complete = self._exchange.picker.is_complete(member.node_id)
            self._exchange.remove_peer(member.connection)
        self._ask_for_metadata()
        return complete

    def roster_changed(self) -> None:
        """See :class:`~p2pdist.swarm.roster.RosterOwner`."""
        self._look_for_end()

    def connection_closed(self, peer: PeerConnection, reason: str) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionOwner`."""
        del reason
        self._roster.closed(peer)

    def connection_gone(self, peer: PeerConnection) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionOwner`."""
        self._roster.gone(peer)

    # --- messages ---

    def message_received(self, peer: PeerConnection, message: Message) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionOwner`."""
        known = self._roster.members[peer.node_id]
        if isinstance(message, (Digest, Want, Records, Summary)):
            self._events.census_received(peer, message)
        elif not self._roster.heard(known, message):
            self._take(peer, known, message)

    def _take(self, peer: PeerConnection, known: Member, message: Message) -> None:
        if isinstance(message, Bitfield):
            self._bitfield(known, message)
        elif isinstance(message, MetadataRequest):
            self._serve_metadata(known)
        elif isinstance(message, MetadataPart):
            self._metadata_part(peer.node_id, message)
        elif isinstance(message, Have) and known.bits is None:
            raise UnexpectedMessage("have-before-bitfield")
        elif self._exchange is not None:
            self._exchange.receive(peer, message)
        elif isinstance(message, Have):
            known.pieces |= masks.from_indices(message.indices)
        elif isinstance(message, Interest):
            known.interested = message.wanted
        elif isinstance(message, Grant):
            peer.send(Decline(DeclineReason.NOTHING))
        else:
            raise UnexpectedMessage("message-order", type(message).__name__)

    def piece_bytes_received(self, peer: PeerConnection, size: int) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionOwner`."""
        assert self._exchange is not None, "nothing was requested before"
        self._exchange.piece_bytes_received(peer, size)

    def piece_received(self, peer: PeerConnection, index: PieceIndex, data: bytearray) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionOwner`."""
        assert self._exchange is not None, "nothing was requested before"
        self._roster.received(self._roster.members[peer.node_id], len(data))
        self._exchange.piece_received(peer, index, data)

    def _bitfield(self, known: Member, message: Bitfield) -> None:
        if known.bits is not None:
            raise UnexpectedMessage("bitfield-twice")
        known.bits = len(message.bits)
        pieces = masks.from_bitfield(message.bits)
        if self._exchange is None:
            known.pieces = pieces
            self._fetch.add_source(known.node_id)
            self._ask_for_metadata()
        else:
            PieceSet.from_bytes(message.bits, self._exchange.geometry.count)
            self._exchange.peer_has(known.connection, pieces)

    # --- metadata ---

    def _serve_metadata(self, known: Member) -> None:
        if self._exchange is None or self._metadata is None or known.metadata_served:
            raise UnexpectedMessage("metadata-request")
        known.metadata_served = True
        if self._encoded:
            known.connection.sender.send(metadata_parcel(self._encoded))
        else:  # in a worker: of many files it takes a while
            encoding = self._workers.run(self._metadata.encode)
            self._follow(encoding, partial(self._cb_encoded, known), self._fail)

    def _cb_encoded(self, known: Member, encoded: bytes) -> None:
        self._encoded = encoded
        if self._roster.members.get(known.node_id) is known:
            known.connection.sender.send(metadata_parcel(encoded))

    def _ask_for_metadata(self) -> None:
        idle = self._started and not (self._stopping or self._busy or self._trouble)
        if self._metadata is None and idle:
            node_id = self._fetch.ask(self._clock.seconds())
            if node_id is not None:
                self._roster.members[node_id].connection.send(MetadataRequest())

    def _metadata_part(self, node_id: NodeID, part: MetadataPart) -> None:
        data = self._fetch.part(node_id, part, self._clock.seconds())
        if data is not None:
            source = self._roster.members[node_id].connection
            self._follow(
                self._workers.run(partial(decode_metadata, data, self.hash_key)),
                self._cb_metadata,
                partial(self._eb_metadata, source),
            )

    def _cb_metadata(self, metadata: Metadata) -> None:
        if self._stopping is None:
            self._metadata = metadata
            self._fetch = MetadataFetch(self._rng)
            self._events.metadata_arrived(metadata)
            self._open_the_store()

    def _eb_metadata(self, source: PeerConnection, failure: Failure) -> None:
        """Blame the source for other bytes; for right bytes that are no metadata, nobody."""
        if failure.check(AuthenticationFailed):
            self._roster.ban(source, "wrong metadata")
        else:
            self._fail(failure)
        self._ask_for_metadata()

    # --- store ---

    def _follow(
        self,
        work: Deferred[T],
        done: Callable[[T], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """Count work as under way until it is over."""

        def over(result: T | Failure) -> T | Failure:
            self._busy -= 1
            return result

        self._busy += 1
        followed = work.addBoth(over).addCallbacks(done, failed)
        followed.addErrback(self._fail).addCallback(lambda _: self._look_for_end())

    def _open_the_store(self) -> None:
        assert self._metadata is not None, "the metadata comes first"
        trouble = partial(self._disk_trouble, self._open_the_store)
        self._follow(self._open_store(self._metadata), self._cb_store, trouble)

    def _cb_store(self, store: Store) -> None:
        if self._stopping is None:
            self.disk_works()
            self._store_opened(store)

    def _store_opened(self, store: Store) -> None:
        self.store = store
        exchange = self._exchange = Exchange(
            store=store, clock=self._clock, rng=self._rng, budget=self._budget, owner=self
        )
        self._events.store_opened(store)
        size = (exchange.geometry.count + 7) // 8
        for peer in self._roster:
            exchange.add_peer(peer.connection, interested=peer.interested)
            try:
                if peer.bits not in (None, size):
                    raise MalformedMessage("bitfield-size", f"{peer.bits} bytes, not {size}")
                exchange.peer_has(peer.connection, peer.pieces)
            except RemoteProtocolError as error:
                peer.connection.refuse(error)
        if exchange.picker.complete:
            self.all_verified()

    def all_verified(self) -> None:
        """See :class:`~p2pdist.swarm.exchange.ExchangeOwner`."""
        assert self.store is not None, "pieces are in the store"
        trouble = partial(self._disk_trouble, self.all_verified)
        self._follow(self.store.publish(), self._cb_published, trouble)

    def _cb_published(self, _: None) -> None:
        if self._stopping is None:
            self.disk_works()
            self._events.completed()

    def piece_verified(self, index: PieceIndex) -> None:
        """See :class:`~p2pdist.swarm.exchange.ExchangeOwner`."""
        self._events.piece_verified(index)

    def piece_spoiled(self, peer: PeerConnection, index: PieceIndex) -> None:
        """See :class:`~p2pdist.swarm.exchange.ExchangeOwner`."""
        self._roster.ban(peer, f"a wrong piece {index}")

    def published_piece_lost(self, index: PieceIndex) -> None:
        """See :class:`~p2pdist.swarm.exchange.ExchangeOwner`."""
        assert self.store is not None, "pieces are in the store"
        trouble = partial(self._disk_trouble, partial(self.published_piece_lost, index))
        self._follow(self.store.mend(), self._cb_mending, trouble)

    def _cb_mending(self, _: None) -> None:
        assert self._exchange is not None, "pieces were lost"
        self._ticker.stir()
        self._exchange.resume()

    def disk_failed(self, error: StorageError) -> None:
        """See :class:`~p2pdist.swarm.exchange.ExchangeOwner`."""
        assert self._exchange is not None, "it has just told us"
        self._pause.begin(error, self._exchange.resume)
        self._ticker.stir()

    def disk_works(self) -> None:
        """See :class:`~p2pdist.swarm.exchange.ExchangeOwner`."""
        self._pause.over()

    def _disk_trouble(self, again: Callable[[], None], failure: Failure) -> None:
        """Try again later when the disk refuses for now; everything else needs the operator."""
        if self._stopping is not None:
            return
        if isinstance(failure.value, DiskTrouble):
            self._pause.begin(failure.value, again)
            self._ticker.stir()
        else:
            self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        """Tell the operator, loudly when it is a bug of ours."""
        error = failure.value
        assert isinstance(error, Exception)
        if not isinstance(error, P2PDistError):
            self.log.failure("a transfer met an error of our own", failure)
        self._trouble = str(error)
        self._events.failed(error)

    # --- time ---

    def _rests(self) -> bool:
        quiet = self._roster.idle and not self._pause.waiting
        rests = quiet and (self.is_complete() or not self._roster.known)
        if rests and self.store is not None:
            self.store.rest()
        return rests

    def _tick(self, now: float) -> None:
        self._roster.tick(now)
        stalled = self._fetch.stalled(now)
        if stalled is not None:
            self._roster.members[stalled].connection.close(ByeReason.STALLED)
            self._ask_for_metadata()
        if self._exchange is not None:
            self._exchange.tick(now)
        self._pause.tick(now)
