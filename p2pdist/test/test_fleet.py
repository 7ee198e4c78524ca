"""Tests of one content's census at work: what limits a node, and what it tells."""

from __future__ import annotations

import random

from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.census.gossip import Digest, Frame, Records, Summary
from p2pdist.census.records import NodeState, Reason, Report, check, sign
from p2pdist.fleet import SENTENCES, Fleet, limiting, reaches, report_of
from p2pdist.ids import NodeID, Topic
from p2pdist.keys import NodeKey
from p2pdist.stages import Stage
from p2pdist.swarm.parting import Parting
from p2pdist.swarm.progress import Progress
from p2pdist.swarm.standing import Pace
from p2pdist.test.support import TestCase

TOPIC = Topic(bytes(20))
HALF = Progress(length=100, have_bytes=50, pieces=10, have_pieces=5, peers=3)


class LimitingTests(TestCase):
    """Which part of the way is the narrow one."""

    def reason(
        self, stage: Stage = Stage.LEECHING, progress: Progress = HALF, limit=None, **pace
    ) -> Reason:
        """Return what limits a download."""
        held_back = reaches(progress.download_bytes_per_s, limit)
        return limiting(stage, progress, Pace(**pace), held_back=held_back)

    def test_causes(self):
        """Each cause by itself is named."""
        alone = Progress(length=100, pieces=10)
        fast = Progress(pieces=10, peers=2, download_bytes_per_s=95.0)
        full = limits.ASSEMBLY_BYTES
        for expected, found in (
            (Reason.FAILED, self.reason(Stage.FAILED)),
            (Reason.DISK_FULL, self.reason(disk_full=True)),
            (Reason.DONE, self.reason(Stage.SEEDING)),
            (Reason.HASHING, self.reason(Stage.CHECKING)),
            (Reason.FINDING_PEERS, self.reason(Stage.FINDING)),
            (Reason.FINDING_PEERS, self.reason(progress=alone)),
            (Reason.DISK, self.reason(in_flight=2, waiting_bytes=full, room_bytes=full)),
            (Reason.HASHING, self.reason(waiting_bytes=full, room_bytes=full, hashing=True)),
            (Reason.DISK, self.reason(complete=True)),
            (Reason.OWN_LIMIT, self.reason(progress=fast, limit=100, in_flight=3)),
            (Reason.REMOTE_UPLOAD, self.reason(progress=fast, limit=1000, in_flight=3)),
            (Reason.NO_PEER_HAS_PIECES, self.reason(wanted_nowhere=True)),
            (Reason.WAITING_FOR_SLOTS, self.reason()),
        ):
            self.assertIs(expected, found)

    def test_the_end_of_the_way_counts(self):
        """A full disk is the cause of everything before it, whatever else holds."""
        found = self.reason(disk_full=True, wanted_nowhere=True, in_flight=1, limit=1)
        self.assertIs(Reason.DISK_FULL, found)

    def test_every_reason_has_its_sentence(self):
        """``why`` has something to say of all of them."""
        self.assertEqual(set(Reason), set(SENTENCES))

    def test_report(self):
        """The report says what the progress does."""
        report = report_of("host", Stage.LEECHING, HALF, Pace(in_flight=1))
        self.assertEqual(
            ("host", NodeState.DOWNLOADING, Reason.REMOTE_UPLOAD, 5, 10),
            (report.name, report.state, report.reason, report.have, report.pieces),
        )


class PartingTests(TestCase):
    """Connections between complete nodes."""

    def test_some_stay(self):
        """DONE_PEERS stay for ever; the surplus goes after DONE_LINGER_S of being one."""
        parting = Parting()
        few = [NodeID(bytes([number]) * 20) for number in range(limits.DONE_PEERS)]
        many = [*few, NodeID(b"x" * 20), NodeID(b"y" * 20)]
        self.assertEqual((), parting.surplus(many, 0.0))
        self.assertEqual((), parting.surplus(many, limits.DONE_LINGER_S - 1))
        self.assertEqual(many[-2:], parting.surplus(many, limits.DONE_LINGER_S))
        self.assertEqual((), parting.surplus(few, 9e9))
        self.assertEqual((), parting.surplus(many, 9e9), "a new surplus waits anew")


class FleetTests(TestCase):
    """What is told, and when."""

    def setUp(self):
        """A node with two connections."""
        self.clock = Clock()
        self.sent: list[tuple[object, Frame]] = []
        self.peers: list[object] = ["one", "two"]
        self.now = Report(name="me", state=NodeState.DOWNLOADING, have=1, pieces=4)
        self.key = NodeKey.from_seed(b"m" * 32)
        self.fleet = Fleet(
            clock=self.clock,
            key=self.key,
            topic=TOPIC,
            rng=random.Random(1),
            report=lambda: self.now,
            peers=lambda: self.peers,  # type: ignore[arg-type, return-value]
            send=lambda peer, frame: self.sent.append((peer, frame)),
        )

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pump([0.25] * round(seconds / 0.25))

    def test_told_at_the_start(self):
        """Who is connected is told of us at once."""
        self.fleet.start()
        self.assertEqual({"one", "two"}, {peer for peer, _ in self.sent})
        self.assertEqual({Digest}, {type(frame) for _, frame in self.sent})

    def test_alone_nothing_ticks(self):
        """Without connections there is no timer; one wakes it."""
        self.peers.clear()
        self.fleet.start()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.peers.append("one")
        self.fleet.changed()
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.assertTrue(self.sent)

    def test_quiet_ticks_are_rare(self):
        """Of who is done, a refresh a minute and few summaries are all that is sent."""
        self.now = Report(name="me", state=NodeState.SEEDING, have=4, pieces=4)
        self.fleet.start()
        self.run_for(300)
        self.sent.clear()
        self.run_for(300)
        self.assertLess(len(self.sent), 80)
        self.assertIn(Summary, {type(frame) for _, frame in self.sent})

    def test_news_wakes_it(self):
        """What one neighbour tells is passed on within a tick."""
        self.fleet.start()
        self.run_for(300)
        self.sent.clear()
        record = sign(Report(name="far"), 1, NodeKey.from_seed(b"f" * 32), TOPIC)
        news = Records(((0, record.body, record.signature),))
        self.fleet.received("one", news)  # type: ignore[arg-type]
        self.run_for(limits.CENSUS_TICK_S)
        named = [frame for _, frame in self.sent if isinstance(frame, Digest)]
        self.assertIn((record.tag, 1), [name for frame in named for name in frame.entries])
        self.assertEqual(["far", "me"], sorted(h.record.report.name for h in self.fleet.hosts()))

    def test_goodbye(self):
        """At the end everybody connected hears that we leave, and no timer stays."""
        self.fleet.start()
        self.sent.clear()
        self.fleet.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(["one", "two"], [peer for peer, _ in self.sent])
        for _, frame in self.sent:
            assert isinstance(frame, Records)
            ((_, body, signature),) = frame.entries
            self.assertIs(NodeState.LEFT, check(body, signature, TOPIC).report.state)
        self.fleet.changed()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_stragglers_first(self):
        """Hosts come the least complete first; who was not heard of for long is silent."""
        self.fleet.start()
        for number, have in enumerate((4, 0, 3)):
            key = NodeKey.from_seed(bytes([number]) * 32)
            record = sign(Report(name=f"host-{number}", have=have, pieces=4), 1, key, TOPIC)
            frame = Records(((0 if number else 10**6, record.body, record.signature),))
            self.fleet.received("one", frame)  # type: ignore[arg-type]
        hosts = self.fleet.hosts()
        names = [host.record.report.name for host in hosts]
        self.assertEqual(["host-1", "me", "host-2", "host-0"], names)
        self.assertEqual([False, False, False, True], [host.silent for host in hosts])

    def hear(self, number: int, report: Report, age: int = 0) -> None:
        """Let a neighbour tell of a node."""
        record = sign(report, 1, NodeKey.from_seed(bytes([number]) * 32), TOPIC)
        frame = Records(((age, record.body, record.signature),))
        self.fleet.received("one", frame)  # type: ignore[arg-type]

    def lost(self) -> list[str]:
        """Return the names of the lost."""
        return [host.name for host in self.fleet.hosts() if host.lost]

    def test_lost(self):
        """Who was on its way is lost after some CENSUS_ALIVE_S; who is done, or left, is not."""
        self.fleet.start()
        late = int(limits.CENSUS_SILENT_ROUNDS * limits.CENSUS_ALIVE_S) + 1
        done = Report(name="done", state=NodeState.SEEDING, have=4, pieces=4)
        self.hear(1, Report(name="crashed", have=1, pieces=4), late)
        self.hear(2, Report(name="slow", have=1, pieces=4), late - 3)
        self.hear(3, done, late)
        self.hear(4, Report(name="left", state=NodeState.LEFT), late)
        self.assertEqual(["crashed"], self.lost())
        self.assertEqual(
            [False] * 3, [h.silent for h in self.fleet.hosts() if h.name != "crashed"][:3]
        )

    def test_paused(self):
        """Who is paused counts and is not lost, however silent; somebody has to see to it."""
        self.fleet.start()
        late = int(limits.CENSUS_SILENT_ROUNDS * limits.CENSUS_ALIVE_S) + 1
        self.hear(1, Report(name="paused", state=NodeState.PAUSED, have=1, pieces=4), late)
        self.assertEqual([], self.lost())
        (found,) = [host for host in self.fleet.hosts() if host.name == "paused"]
        self.assertTrue(found.counts and found.hopeless)

    def test_lost_and_come_again(self):
        """A lost machine that is back under another key is there once."""
        self.fleet.start()
        self.hear(1, Report(name="again", have=1, pieces=4), 10**6)
        self.assertEqual(["again"], self.lost())
        self.hear(2, Report(name="again", have=3, pieces=4))
        self.assertEqual([], self.lost())
        self.assertEqual(["me", "again"], [host.name for host in self.fleet.hosts()])

    def test_who_is_on_its_way_says_so(self):
        """A node that gets nothing says every CENSUS_ALIVE_S that it is still there."""
        self.fleet.start()
        self.run_for(60)
        before = self.fleet.hosts()[0].record.sequence
        self.run_for(10 * limits.CENSUS_ALIVE_S)
        self.assertIn(self.fleet.hosts()[0].record.sequence - before, (9, 10, 11))
