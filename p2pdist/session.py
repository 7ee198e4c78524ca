"""One descriptor's life: what is on disk, finding peers, joining, leeching, seeding.

Job: wire one content's membership (overlay) and transfer (swarm) to its store, keep the stage,
say in plain words what it waits for, log its few great moments. It does NOT speak any protocol.
Tests: ``test_session``, ``test_sim_swarm``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.census.gossip import Frame
from p2pdist.census.records import Report
from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.errors import DiskTrouble, NodeStopped, P2PDistError, StorageError
from p2pdist.fleet import Fleet, reaches, report_of
from p2pdist.ids import HashKey, PieceIndex, format_hash_key
from p2pdist.logs import new_logger
from p2pdist.memberships import Memberships
from p2pdist.overlay.bootstrap import EntryReport
from p2pdist.overlay.membership import JoinedPeer
from p2pdist.overlay.messages import Status
from p2pdist.presence import Presence
from p2pdist.stages import Core, Course, Stage, new_course
from p2pdist.standing import SessionStatus
from p2pdist.storage.locate import create, locate
from p2pdist.storage.place import Place
from p2pdist.storage.store import Store
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.diskpause import DiskPause
from p2pdist.swarm.throttle import RateLimits
from p2pdist.swarm.transfer import Transfer, TransferEvents
from p2pdist.workers import when_over

LOG_PARTS = 10
"""Progress lines in the log of one download."""

MakeTransfer = Callable[
    [HashKey, Callable[[Metadata], "Deferred[Store]"], TransferEvents], Transfer
]


@define(eq=False)
class Session:
    """One descriptor at work.

    Args:
        descriptor: of the content.
        place: where it goes on disk.
        presences: the networks its swarm lives in, one at least.
        make_transfer: builds the content's transfer.
        known_peers: peers of an earlier run.
        seed_only: fail instead of fetching what is not there.
        searches_lan: whether nodes may turn up on the local network.
        member: called once the node is a member of the content's swarm.
        make_fleet: builds the content's census.
    """

    descriptor: Descriptor
    place: Place
    presences: tuple[Presence, ...]
    make_transfer: MakeTransfer
    known_peers: tuple[Address, ...] = ()
    seed_only: bool = False
    searches_lan: bool = True
    member: Callable[[], None] = lambda: None
    make_fleet: Callable[[Session], Fleet] = field(kw_only=True)
    transfer: Transfer = field(init=False)
    fleet: Fleet = field(init=False)
    membership: Memberships = field(init=False)
    stage: Stage = field(init=False, default=Stage.CHECKING)
    nodes: tuple[HostPort, ...] = field(init=False)
    _log = new_logger()
    _course: Course = field(init=False)
    _store: Store | None = field(init=False, default=None)
    _metadata: Metadata | None = field(init=False, default=None)
    _opening: Deferred[Store] | Deferred[Store | None] | None = field(init=False, default=None)
    _checked: tuple[int, int] | None = field(init=False, default=None)
    _pause: DiskPause = field(init=False)
    """Of the look at the disk; the transfer has its own."""
    _error: str = field(init=False, default="")
    _outcome: str | Failure | None = field(init=False, default=None)
    _waiting: list[Deferred[str]] = field(init=False, factory=list)
    _started_at: float = field(init=False, default=0.0)
    _logged_parts: int = field(init=False, default=0)
    _logged_wait: str = field(init=False, default="")
    _waiting_logged_at: float = field(init=False, default=0.0)
    _blocked: dict[Address, None] = field(init=False, factory=dict)
    _stalled_at: float | None = field(init=False, default=None)
    _stall_searches: int = field(init=False, default=0)
    _stopped: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._course = new_course(Core(self._entered))
        self._pause = DiskPause(self.place.clock, self.paused, self.resumed)
        self.nodes = self.descriptor.nodes
        self.transfer = self.make_transfer(self.descriptor.hash_key, self._open_store, self)
        self.membership = Memberships(
            self.presences, self.descriptor.hash_key, self, nodes=lambda: self.nodes
        )
        self.fleet = self.make_fleet(self)

    @property
    def name(self) -> str:
        """What to call the content."""
        if self._metadata is not None:
            return self._metadata.name
        return self.descriptor.name or format_hash_key(self.descriptor.hash_key)[:11]

    @property
    def complete(self) -> Deferred[str]:
        """A Deferred of the caller's own, at any time, also after the end.

        Fires with the content's path once every piece is here; fails with what broke, or with
        NodeStopped.
        """
        waiting: Deferred[str] = Deferred(self._waiting.remove)
        if self._outcome is None:
            self._waiting.append(waiting)
        else:
            waiting.callback(self._outcome)
        return waiting

    def _decide(self, outcome: str | Failure) -> None:
        """Tell whoever waits for the content, once."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        while self._waiting:
            self._waiting.pop(0).callback(outcome)

    # --- life ---

    def start(self) -> None:
        """Look at the disk, then go and find peers."""
        self._started_at = self._waiting_logged_at = self.place.clock.seconds()
        self.membership.add_nodes(self.nodes)
        self.membership.watch(self.way_in)
        self._look()

    def _look(self) -> None:
        located = locate(self.place, self.descriptor, self._hashed)
        self._opening = located
        located.addCallbacks(self._cb_located, self._eb_located)
        located.addErrback(self._eb_bug)

    @property
    def limits(self) -> RateLimits:
        """What this content may move, within what its service may."""
        return self.transfer.share.limits

    def set_limits(self, rates: RateLimits) -> None:
        """Change it, from now on."""
        self.transfer.share.set_limits(rates)

    def merge_nodes(self, nodes: tuple[HostPort, ...]) -> None:
        """Take further nodes to ask: of a second descriptor of the content, or of an option."""
        self.nodes = tuple(dict.fromkeys(self.nodes + nodes))
        self.membership.add_nodes(nodes)

    def _cb_located(self, store: Store | None) -> None:
        self._opening = None
        self._checked = None
        if store is not None:
            self._take(store)
        if self._stopped:
            return  # ``stop`` waits for this, and closes the store
        self._pause.over()
        if self.seed_only and (store is None or not store.complete):
            target = self.place.target_path(self.name)
            self._broke(
                StorageError(f"{target} is not there or not complete; p2pdist get fetches it")
            )
            return
        self.transfer.start(store)
        self.fleet.start()
        self.membership.start(self.known_peers)
        self.member()
        if store is not None and store.complete and store.published:
            self._log.info("{name} is complete at {path}", name=self.name, path=store.path)
            self.completed()
            return
        self._log.info("{name}: looking for peers of {hash_key}", **self._naming())
        self._course.looked()
        if self.membership.has_way_in:
            self._course.way_in()

    def _open_store(self, metadata: Metadata) -> Deferred[Store]:
        """Make the store of metadata that came from a peer (see ``Transfer.open_store``)."""
        self._metadata = metadata
        opening = create(
            self.place, self.descriptor.hash_key, metadata, self.descriptor, self._hashed
        )
        self._opening = opening

        def opened(result: Store | Failure) -> Store | Failure:
            self._opening = None
            self._checked = None
            if isinstance(result, Store):
                self._take(result)
            return result

        opening.addBoth(opened)
        return opening

    def _take(self, store: Store) -> None:
        self._store = store
        self._metadata = store.metadata

    def _hashed(self, done: int, total: int) -> None:
        self._checked = (done, total)

    def stop(self) -> Deferred[None]:
        """End: leave the swarm, close connections, sync and close the files.

        Returns:
            Fires when nothing of this session is left; never fails.
        """
        self._stopped = True
        self.membership.unwatch(self.way_in)
        self.membership.stop()
        self.fleet.stop()
        waits: list[Deferred[None]] = [self.transfer.stop()]
        if self._opening is not None:
            waits.append(when_over(self._opening))
        done: Deferred[None] = Deferred()

        def ended(_result: object) -> None:
            self._course.ended()
            self._decide(Failure(NodeStopped(f"stopped before {self.name} was complete")))
            self._close().chainDeferred(done)

        gatherResults(waits, consumeErrors=True).addBoth(ended)
        return done

    def _close(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if self._store is None:
            done.callback(None)
            return done
        store, self._store = self._store, None

        def closed(result: object) -> None:
            if isinstance(result, Failure):
                self._log.warn(
                    "{name}: not everything was saved: {reason}",
                    name=self.name,
                    reason=result.getErrorMessage(),
                )
            done.callback(None)

        store.close().addBoth(closed)
        return done

    # --- what the overlay tells (MembershipEvents) ---

    def peer_offered(self, address: Address) -> None:
        """Somebody named a peer."""
        del address
        self._course.peer_offered()

    def peer_joined(self, peer: JoinedPeer, *, by_us: bool) -> None:
        """A peer joined: it may be dialled."""
        self._log.debug("{name}: {peer} joined", name=self.name, peer=str(peer.address))
        if self.stage not in {Stage.LEECHING, Stage.SEEDING}:
            self._log.info("{name}: first peer {peer}", name=self.name, peer=str(peer.address))
        self._course.peer_joined()
        is_open = self.membership.is_open(peer.address)
        self.transfer.peer_joined(peer.address, peer.node_id, dial_now=by_us, is_open=is_open)

    def peer_left(self, peer: JoinedPeer) -> None:
        """A peer left."""
        joined = self.membership.joined
        if peer.node_id not in joined:  # else it is still there in another network
            self.transfer.peer_left(peer.node_id)
        if not joined:
            self._course.last_peer_left()

    def search_over(self, *, found: bool, asked: int) -> None:
        """A lookup ended."""
        del asked
        if not found:
            self._course.search_failed()

    def way_in(self, address: Address) -> None:
        """A node of a network answered; while nothing comes it may know who has something."""
        del address
        self._course.way_in()
        if self._stalled_at is not None:
            self.membership.search()

    # --- what the swarm tells (TransferEvents) ---

    def metadata_arrived(self, metadata: Metadata) -> None:
        """The metadata is here and is what the key names."""
        self._metadata = metadata
        self._log.info(
            "{name}: {length} bytes in {count} pieces",
            name=self.name,
            length=metadata.length,
            count=metadata.count,
        )

    def store_opened(self, store: object) -> None:
        """Pieces can be exchanged."""
        del store

    def piece_verified(self, index: PieceIndex) -> None:
        """A piece is on disk: log every tenth of the way."""
        del index
        if self._store is None:
            return
        count = self._store.have.count
        part = self._store.have.count_set * LOG_PARTS // max(count, 1)
        if part > self._logged_parts and part < LOG_PARTS and count > LOG_PARTS:
            self._logged_parts = part
            progress = self.transfer.progress()
            self._log.info(
                "{name}: {percent} %, {rate:.1f} MiB/s from {peers} peers",
                name=self.name,
                percent=100 * part // LOG_PARTS,
                rate=progress.download_bytes_per_s / limits.MIB,
                peers=progress.peers,
            )

    def completed(self) -> None:
        """Every piece is here, under the final name."""
        downloading = self.stage is not Stage.CHECKING
        self._course.completed()
        if self._store is None or self._outcome is not None:
            return
        if downloading:
            seconds = self.place.clock.seconds() - self._started_at
            self._log.info(
                "{name}: complete and verified after {seconds:.1f} s, seeding {path}",
                name=self.name,
                seconds=seconds,
                path=self._store.path,
            )
        self._decide(self._store.path)

    def paused(self, reason: str) -> None:
        """The disk does not take more."""
        self._log.warn("{name}: paused: {reason}", name=self.name, reason=reason)

    def resumed(self) -> None:
        """The disk takes data again."""
        self._log.info("{name}: goes on", name=self.name)

    def failed(self, error: Exception) -> None:
        """Something only the operator can mend."""
        self._broke(error)

    def peer_unreachable(self, address: Address, reason: str) -> None:
        """A peer answers on UDP but not on TCP: the commonest firewall fault, so name it."""
        self.membership.tcp_blocked(address)
        if address not in self._blocked and len(self._blocked) < limits.STATUS_PEERS:
            self._blocked[address] = None
            self._log.warn(
                "{name}: {peer} answers on UDP, but TCP is blocked ({reason}); "
                "open TCP port {port} there",
                name=self.name,
                peer=str(address),
                reason=reason,
                port=address.port,
            )

    def peer_connected(self) -> None:
        """There is one more to tell of the fleet."""
        self.fleet.changed()

    def census_received(self, peer: PeerConnection, frame: Frame) -> None:
        """A peer told of the fleet."""
        self.fleet.received(peer, frame)

    def peer_told(self, address: Address) -> None:
        """A connected peer named another: it goes the way of every offered address."""
        self.membership.candidate(address)

    # --- stages and reports ---

    def _entered(self, stage: Stage) -> None:
        self.stage = stage
        self.fleet.changed()
        if stage is Stage.LEECHING:
            self.membership.set_status(Status.LEECH)
        elif stage is Stage.SEEDING:
            self.membership.set_status(Status.SEED)

    def _broke(self, error: BaseException) -> None:
        known, self._error = self._error, str(error) or type(error).__name__
        if not known:  # what still serves may break again and again; the first time says it all
            self._log.error("{name}: {reason}", name=self.name, reason=self._error)
        self._course.broke()
        self._decide(Failure(error))

    def _eb_located(self, failure: Failure) -> None:
        self._opening = None
        failure.trap(P2PDistError)
        error = failure.value
        assert error is not None
        if isinstance(error, DiskTrouble):
            self._pause.begin(error, self._look)
        elif not self._stopped:
            self._broke(error)

    def _eb_bug(self, failure: Failure) -> None:
        self._log.failure("{name}: a bug", failure, name=self.name)
        assert failure.value is not None
        self._broke(failure.value)

    def upkeep(self) -> None:
        """Every few seconds: search again while nothing comes in, log what is waited for."""
        if self.stage is Stage.SEEDING:  # waits for nothing; there may be a thousand of them
            self._stalled_at = None
            self._logged_wait = ""
            return
        now = self.place.clock.seconds()
        self._pause.tick(now)
        progress = self.transfer.progress()
        moving = progress.download_bytes_per_s > 0 or self.stage is not Stage.LEECHING
        if moving:
            self._stalled_at = None
            self._stall_searches = 0
        elif self._stalled_at is None:
            self._stalled_at = now
        low, high = limits.STALL_SEARCH_S
        if self._stalled_at is not None and now - self._stalled_at >= min(
            low * 2.0 ** min(self._stall_searches, 10), high
        ):
            self._stalled_at = now
            self._stall_searches += 1
            self.membership.search()
        self._log_wait(now)

    def _log_wait(self, now: float) -> None:
        """Log what is waited for when it is something new, at a pace that people can read."""
        waiting = self.status().waiting_for
        if not waiting:
            self._logged_wait = ""
            return
        if waiting != self._logged_wait and now - self._waiting_logged_at >= limits.QUIET_S:
            self._logged_wait = waiting
            self._waiting_logged_at = now
            self._log.info("{name}: waiting for {what}", name=self.name, what=waiting)

    def status(self) -> SessionStatus:
        """Return how it stands."""
        reports = self.membership.reports(self.nodes)
        path = self._store.path if self._store is not None else None
        return SessionStatus(
            name=self.name,
            hash_key=format_hash_key(self.descriptor.hash_key),
            stage=self.stage,
            progress=self.transfer.progress(),
            checked=self._checked,
            joined=len(self.membership.joined),
            nodes=reports,
            waiting_for=self._waiting_for(reports),
            path=path,
            error=self._error,
        )

    def report(self, name: str, *, held_back: bool = False) -> Report:
        """Return what the fleet is told of this node, which is called ``name``.

        ``held_back`` if all contents together receive as much as they may.
        """
        progress = self.transfer.progress()
        held_back = held_back or reaches(progress.download_bytes_per_s, self.limits.download)
        return report_of(name, self.stage, progress, self.transfer.pace(), held_back=held_back)

    def _waiting_for(self, reports: tuple[EntryReport, ...]) -> str:
        told = "; ".join(str(report) for report in reports)
        if self.stage is Stage.CHECKING:
            return self._pause.reason or "the check of what is on disk"
        if self.stage is Stage.RESOLVING:
            return f"an answer of a node: {told}" if told else self._lonely()
        if self.stage is Stage.FINDING:
            return f"a peer to appear: {told}" if told else "a peer to appear"
        if self.stage is Stage.JOINING:
            return "answers of offered peers"
        if self.stage is Stage.LEECHING:
            return self.transfer.progress().waiting_for
        return ""

    def _lonely(self) -> str:
        if self.searches_lan:
            return "a node on the local network"
        return "a node to call: none is named, and the local network is not searched"

    def _naming(self) -> dict[str, str]:
        return {"name": self.name, "hash_key": format_hash_key(self.descriptor.hash_key)}
