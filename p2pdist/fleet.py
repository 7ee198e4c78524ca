"""One content's census at work: what we say of ourselves, and the timer behind the gossip.

Job: turn a session's status into a report, tick the :class:`~p2pdist.census.gossip.Census` while
there is anybody to tell, say goodbye. It does NOT decide whom to tell what (``gossip``) nor what
limits a node (:func:`limiting`, pure, does). Tests: ``test_fleet``, ``test_control``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from p2pdist import __version__
from p2pdist.census.gossip import Census, Frame, Records
from p2pdist.census.records import NodeState, Reason, Record, Report
from p2pdist.ids import Topic
from p2pdist.keys import NodeKey
from p2pdist.stages import Stage
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.progress import Progress
from p2pdist.swarm.standing import Pace

SEARCHING = frozenset({Stage.RESOLVING, Stage.FINDING, Stage.JOINING})


def reaches(rate: float, limit: int | None) -> bool:
    """Whether bytes a second are all that a limit allows, or nearly."""
    return limit is not None and rate >= NEARLY * limit


def limiting(stage: Stage, progress: Progress, pace: Pace, *, held_back: bool = False) -> Reason:
    """Return which part of the way from a peer's disk to ours is the narrow one now.

    Whatever is nearest to the end of the way and holds things up is the cause of what waits before
    it: a disk that does not keep up leaves bytes waiting, then nothing is asked for any more.

    Args:
        stage: of the session.
        progress: of its transfer.
        pace: likewise.
        held_back: it receives as much as its own rate limits allow.
    """
    backlog = pace.waiting_bytes >= BACKLOG * pace.room_bytes
    causes = (
        (stage in {Stage.FAILED, Stage.STOPPED}, Reason.FAILED),
        (pace.disk_full, Reason.DISK_FULL),
        (stage is Stage.SEEDING, Reason.DONE),
        (stage is Stage.CHECKING, Reason.HASHING),
        (pace.complete, Reason.DISK),
        (backlog and pace.hashing, Reason.HASHING),
        (backlog, Reason.DISK),
        (stage in SEARCHING or not progress.peers, Reason.FINDING_PEERS),
        (held_back, Reason.OWN_LIMIT),
        (pace.in_flight > 0, Reason.REMOTE_UPLOAD),
        (pace.wanted_nowhere, Reason.NO_PEER_HAS_PIECES),
    )
    return next((reason for holds, reason in causes if holds), Reason.WAITING_FOR_SLOTS)


def report_of(
    name: str, stage: Stage, progress: Progress, pace: Pace, *, held_back: bool = False
) -> Report:
    """Return what a node tells the fleet; arguments as in :func:`limiting`."""
    return Report(
        name=name,
        state=STATES.get(stage, NodeState.STARTING),
        reason=limiting(stage, progress, pace, held_back=held_back),
        have=progress.have_pieces,
        pieces=progress.pieces or 0,
        down=round(progress.download_bytes_per_s),
        up=round(progress.upload_bytes_per_s),
        version=__version__,
    )


STATES = {
    Stage.CHECKING: NodeState.CHECKING,
    Stage.LEECHING: NodeState.DOWNLOADING,
    Stage.SEEDING: NodeState.SEEDING,
    Stage.FAILED: NodeState.FAILED,
    Stage.STOPPED: NodeState.LEFT,
}
BACKLOG = 0.5
"""Share of the room for pieces on their way that waits for the disk: then that is slower."""
NEARLY = 0.85
"""Share of a limit that counts as all of it: rates are means over seconds."""

SENTENCES = {
    Reason.UNKNOWN: "does not say what limits it",
    Reason.DONE: "has everything",
    Reason.FINDING_PEERS: "has no peer yet: look at its nodes and its firewall",
    Reason.NO_PEER_HAS_PIECES: "waits for pieces that nobody it knows has",
    Reason.WAITING_FOR_SLOTS: "waits for its turn: its peers upload to others first",
    Reason.REMOTE_UPLOAD: "takes what its peers send; their upload is the limit",
    Reason.OWN_LIMIT: "is held back by its own --download-limit",
    Reason.DISK: "waits for its disk to write",
    Reason.HASHING: "is busy checking hashes; its processor is the limit",
    Reason.DISK_FULL: "has no disk space left; it goes on by itself when there is",
    Reason.PAUSED: "is paused; p2pdist resume lets it go on",
    Reason.FAILED: "failed; its log says why",
}
"""What ``why`` says of a host, after its name."""


@define(eq=False)
class Fleet:
    """The census of one content at this node.

    Args:
        clock: time.
        key: the node's.
        topic: of the content.
        rng: chance.
        report: returns what to say of ourselves now.
        peers: returns the connections that frames may go to.
        send: sends a frame.
    """

    clock: IReactorTime
    key: NodeKey
    topic: Topic
    rng: random.Random
    report: Callable[[], Report]
    peers: Callable[[], Sequence[PeerConnection]]
    send: Callable[[PeerConnection, Frame], None]
    census: Census[PeerConnection] = field(init=False)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _running: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.census = Census(self.key, self.topic, self.rng)

    def start(self) -> None:
        """Begin to tell."""
        self._running = True
        self.changed()

    def stop(self, *, paused: bool = False) -> None:
        """Say that we leave, or are paused, to everybody connected, and stop the timer."""
        if not self._running:
            return
        self._running = False
        self._quiet()
        now = self.clock.seconds()
        record = self.census.farewell(self.report(), now, paused=paused)
        for peer in self.peers():
            self.send(peer, Records(((0, record.body, record.signature),)))

    def changed(self) -> None:
        """Look again: a stage was entered, somebody connected, or time passed."""
        if not self._running:
            return
        self._quiet()
        now = self.clock.seconds()
        self.census.report(self.report(), now)
        peers = self.peers()
        for peer, frame in self.census.tick(peers, now):
            self.send(peer, frame)
        if peers:  # alone there is nobody to tell, and a connection wakes us
            self._timer = self.clock.callLater(self.census.tick_in_s(now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.changed()

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def received(self, peer: PeerConnection, frame: Frame) -> None:
        """Take a frame.

        Raises:
            MalformedMessage: a record that its node did not sign.
        """
        now = self.clock.seconds()
        for target, answer in self.census.received(peer, frame, now):
            self.send(target, answer)
        if (
            self._running
            and self._timer is not None
            and self.census.tick_in_s(now) < (self._timer.getTime() - now)
        ):
            self._timer.reset(self.census.tick_in_s(now))

    def hosts(self) -> list[Host]:
        """Return what is known of everybody, ourselves included, stragglers first.

        A machine that was lost and came again under another key is there once: `get` has a new key
        each time, so what was killed and typed again would be waited for.
        """
        now = self.clock.seconds()
        if self._running:
            self.census.report(self.report(), now)
        hosts = [self._host(record, age_s) for record, age_s in self.census.entries(now)]
        heard = {host.name for host in hosts if not host.silent and not host.gone}
        hosts = [host for host in hosts if not (host.lost and host.name in heard)]
        return sorted(hosts, key=lambda host: host.rank)

    def _host(self, record: Record, age_s: float) -> Host:
        silent = self.census.silent(age_s, under_way=record.report.under_way)
        return Host(record, age_s, silent and record.node_id != self.key.node_id)


@frozen
class Host:
    """One node of the fleet as it is shown.

    Attributes:
        record: what it said last.
        age_s: how long ago.
        silent: it should have been heard of again.
    """

    record: Record
    age_s: float
    silent: bool

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Sorts stragglers first: the incomplete by what they have, then the complete by name."""
        report = self.record.report
        share = report.have / report.pieces if report.pieces else 0.0
        return report.complete, share, report.name

    @property
    def name(self) -> str:
        """What it is called."""
        return self.record.report.name

    @property
    def lost(self) -> bool:
        """Whether it was on its way when it was heard of last, and should have been again."""
        return self.silent and self.record.report.under_way

    @property
    def hopeless(self) -> bool:
        """Whether it will not be done unless somebody sees to it: it is lost, failed or paused."""
        return self.lost or self.record.report.state in {NodeState.FAILED, NodeState.PAUSED}

    @property
    def gone(self) -> bool:
        """Whether it said that it leaves."""
        return self.record.report.state is NodeState.LEFT

    @property
    def counts(self) -> bool:
        """Whether it is one of the fleet: it is still there, or was done when it left."""
        return not self.gone or self.record.report.complete
