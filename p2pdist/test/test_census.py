"""Tests of the census: records, and gossip about them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgpack
from attrs import evolve
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.census import records
from p2pdist.census.gossip import Census, Digest, Frame, Records, Summary, Want
from p2pdist.census.records import NodeState, Reason, Record, Report, check, sign
from p2pdist.errors import MalformedMessage
from p2pdist.ids import Topic
from p2pdist.keys import SIGNATURE_BYTES, NodeKey
from p2pdist.test.support import TestCase, given

TOPIC = Topic(bytes(20))
OTHER_TOPIC = Topic(b"o" * 20)
REPORT = Report(
    name="host-1",
    state=NodeState.DOWNLOADING,
    reason=Reason.REMOTE_UPLOAD,
    have=3,
    pieces=9,
    down=1000,
    up=2000,
    disk_free=10**12,
    version="1.0",
)
DONE = evolve(REPORT, state=NodeState.SEEDING, reason=Reason.DONE, have=9)


def key(number: int) -> NodeKey:
    """Return the key of node ``number``."""
    return NodeKey.from_seed(number.to_bytes(32, "big"))


def signed(number: int, sequence: int = 1, report: Report = REPORT) -> Record:
    """Return a record of node ``number``."""
    return sign(report, sequence, key(number), TOPIC)


def carried(record: Record, age: int = 0) -> Records:
    """Return the frame that brings a record."""
    return Records(((age, record.body, record.signature),))


class RecordTests(TestCase):
    """What a node says of itself."""

    def test_round_trip(self):
        """What was signed is what is read."""
        record = signed(1, 7)
        self.assertEqual(record, check(record.body, record.signature, TOPIC))
        self.assertEqual((7, REPORT), (record.sequence, record.report))
        self.assertFalse(record.report.complete)
        self.assertTrue(DONE.complete)
        self.assertFalse(Report(name="no metadata yet").complete)

    def test_paused_is_not_left(self):
        """Who is paused on its way says so, and is neither done nor under way."""
        census: Census[str] = Census(key(1), TOPIC, random.Random(1))
        paused = census.farewell(REPORT, 0.0, paused=True).report
        self.assertEqual((NodeState.PAUSED, Reason.PAUSED), (paused.state, paused.reason))
        self.assertEqual((0, 0), (paused.down, paused.up))
        self.assertFalse(paused.complete or paused.under_way)
        done = census.farewell(DONE, 0.0, paused=True).report
        self.assertIs(NodeState.LEFT, done.state)
        self.assertTrue(done.complete)

    def test_verified_is_not_done(self):
        """Done is who has everything under its final name, or had it when it left."""
        for state, reason, done in (
            (NodeState.SEEDING, Reason.DONE, True),
            (NodeState.DOWNLOADING, Reason.DISK, False),
            (NodeState.FAILED, Reason.FAILED, False),
            (NodeState.LEFT, Reason.DONE, True),
            (NodeState.LEFT, Reason.DISK, False),
        ):
            found = evolve(DONE, state=state, reason=reason).complete
            self.assertEqual(done, found, (state, reason))

    def test_only_its_node_signs(self):
        """Another key, another topic, another byte: none of them counts."""
        record = signed(1)
        forged = sign(REPORT, 1, key(2), TOPIC).signature
        self.assertRaises(MalformedMessage, check, record.body, forged, TOPIC)
        self.assertRaises(MalformedMessage, check, record.body, record.signature, OTHER_TOPIC)
        for place in range(len(record.body)):
            changed = bytearray(record.body)
            changed[place] ^= 1
            self.assertRaises(MalformedMessage, check, bytes(changed), record.signature, TOPIC)

    def test_long_names_are_cut(self):
        """A name is cut to its bound between characters, without what does not print."""
        for name in ("n" * 300, "\N{SNOWMAN}" * 100, "a\x1b[31mb\n"):
            record = signed(1, report=evolve(REPORT, name=name, version="v" * 99))
            read = check(record.body, record.signature, TOPIC).report
            self.assertLessEqual(len(read.name.encode()), limits.CENSUS_NAME_BYTES)
            self.assertEqual(limits.CENSUS_VERSION_BYTES, len(read.version))
            self.assertTrue(read.name.isprintable())
            self.assertTrue(read.name)
            self.assertLessEqual(len(record.body), limits.CENSUS_RECORD_BYTES)

    def made(self, **changes: Any) -> Record:
        """Sign a record whose fields, by place, are changed; return it unread."""
        fields = msgpack.unpackb(signed(1).body)
        for place, value in changes.items():
            fields[int(place[1:])] = value
        body = msgpack.packb(fields)
        return Record(key(1).node_id, 1, REPORT, body, key(1).sign(records.CONTEXT, TOPIC, body))

    def test_fields_are_checked(self):
        """Wrong types, ranges, sizes, names that do not print: each is refused."""
        for changes in (
            {"f0": 2},
            {"f1": b"short"},
            {"f2": 2**32},
            {"f2": -1},
            {"f2": True},
            {"f3": "\x1b[2J"},
            {"f3": "n" * (limits.CENSUS_NAME_BYTES + 1)},
            {"f3": b"bytes"},
            {"f4": 99},
            {"f6": 10},
            {"f7": limits.PIECES_MAX + 1},
            {"f8": 1.5},
            {"f11": "v" * (limits.CENSUS_VERSION_BYTES + 1)},
        ):
            record = self.made(**changes)
            error = self.assertRaises(MalformedMessage, check, record.body, record.signature, TOPIC)
            self.assertEqual("census-record", error.rule, changes)

    def test_what_comes_later_is_borne(self):
        """A reason of a later version is unknown; more fields are no error."""
        record = self.made(f5=77)
        self.assertIs(Reason.UNKNOWN, check(record.body, record.signature, TOPIC).report.reason)
        body = msgpack.packb([*msgpack.unpackb(signed(1).body), "more"])
        signature = key(1).sign(records.CONTEXT, TOPIC, body)
        self.assertEqual(REPORT, check(body, signature, TOPIC).report)

    @given(st.binary(max_size=limits.CENSUS_RECORD_BYTES + 9))
    def test_any_bytes(self, body: bytes):
        """Whatever comes is refused with a clear error."""
        self.assertRaises(MalformedMessage, check, body, bytes(SIGNATURE_BYTES), TOPIC)
        self.assertRaises(MalformedMessage, check, signed(1).body, body, TOPIC)


class CensusCase(TestCase):
    """One census and a neighbour's frames."""

    def setUp(self):
        """Node 0 knows nobody."""
        self.census: Census[str] = Census(key(0), TOPIC, random.Random(1))
        self.now = 1000.0

    def get(self, frame: Frame, peer: str = "peer") -> list[tuple[str, Frame]]:
        """Let a frame arrive."""
        return self.census.received(peer, frame, self.now)

    def known(self) -> dict[str, int]:
        """Return the sequence of every record, by hexadecimal tag."""
        return {r.tag.hex(): r.sequence for r, _ in self.census.entries(self.now)}

    def summary(self) -> Summary:
        """Let time pass until a summary comes."""
        while True:
            for _, frame in self.tick():
                if isinstance(frame, Summary):
                    return frame

    def tick(self, *peers: str) -> list[tuple[str, Frame]]:
        """Let CENSUS_TICK_S pass."""
        self.now += limits.CENSUS_TICK_S
        return self.census.tick(peers or ("peer",), self.now)


class LearningTests(CensusCase):
    """What is believed and kept."""

    def test_last_writer_wins(self):
        """The higher sequence stays, whatever comes in which order."""
        for sequence in (2, 5, 3, 5, 1):
            self.get(carried(signed(1, sequence)))
        self.assertEqual({signed(1).tag.hex(): 5}, self.known())

    def test_age(self):
        """Ages go on counting from what the frame says."""
        self.get(carried(signed(1), age=30))
        self.now += 12
        ((_, age),) = self.census.entries(self.now)
        self.assertEqual(42, age)
        self.assertFalse(self.census.silent(age))
        self.assertTrue(
            self.census.silent(1 + limits.CENSUS_SILENT_ROUNDS * self.census.refresh_every_s())
        )

    def test_false_record_is_an_error(self):
        """Who brings a record its node did not sign is told from who brings none."""
        record = signed(1)
        false = Records(((0, record.body, bytes(SIGNATURE_BYTES)),))
        self.assertRaises(MalformedMessage, self.get, false)
        self.assertEqual({}, self.known())

    def test_named_and_asked_for(self):
        """A digest is answered by asking for what is newer, once for all neighbours."""
        self.get(carried(signed(1, 4)))
        names = Digest(((signed(1).tag, 4), (signed(2).tag, 1), (signed(3).tag, 9)))
        wanted = Want((signed(2).tag, signed(3).tag))
        self.assertEqual([("peer", wanted)], self.get(names))
        self.assertEqual([], self.get(names, "other"))
        self.now += limits.CENSUS_ASK_AGAIN_S
        self.assertEqual([("other", wanted)], self.get(names, "other"))

    def test_what_is_wanted_is_sent(self):
        """Records go out with their age; unknown tags are passed over."""
        self.get(carried(signed(1), age=5))
        self.now += 2
        answer = self.get(Want((signed(9).tag, signed(1).tag)))
        self.assertEqual([("peer", carried(signed(1), age=7))], answer)
        self.assertEqual([], self.get(Want((signed(9).tag,))))

    def test_behind(self):
        """Who names an old record of a node is told of the newer one."""
        self.get(carried(signed(1, 4)))
        self.tick()
        self.get(Digest(((signed(1).tag, 3),)))
        self.assertEqual([("peer", Digest(((signed(1).tag, 4),)))], self.tick())

    def test_checks_are_bounded(self):
        """A neighbour makes us check RATE_CENSUS_CHECKS signatures, and more as time goes."""
        self.patch(limits, "RATE_CENSUS_CHECKS", (10.0, 20.0))
        per_second, burst = limits.RATE_CENSUS_CHECKS
        flood = [signed(1, sequence + 1) for sequence in range(int(burst) + 5)]
        for record in flood:
            self.get(carried(record))
        self.assertEqual([int(burst)], list(self.known().values()))
        self.get(carried(signed(2)), "other")
        self.assertEqual(2, len(self.known()))
        self.now += 1.5 / per_second
        self.get(carried(flood[-1]))
        self.assertEqual(len(flood), self.known()[flood[0].tag.hex()])

    def test_wants_are_bounded(self):
        """However much is named, CENSUS_DIGEST records are asked for at once."""
        names = Digest(tuple((n.to_bytes(8, "big"), 1) for n in range(2 * limits.CENSUS_DIGEST)))
        ((_, want),) = self.get(names)
        assert isinstance(want, Want)
        self.assertEqual(limits.CENSUS_DIGEST, len(want.tags))

    def test_frames_are_bounded(self):
        """However much is wanted, a frame has CENSUS_FRAME_BYTES of records at most."""
        fleet = [signed(number) for number in range(1, limits.CENSUS_FRAME_BYTES // 100)]
        for number, record in enumerate(fleet):
            self.get(carried(record), f"peer {number}")
        ((_, frame),) = self.get(Want(tuple(record.tag for record in fleet)))
        assert isinstance(frame, Records)
        size = sum(len(body) + len(signature) for _, body, signature in frame.entries)
        self.assertLessEqual(size, limits.CENSUS_FRAME_BYTES)
        self.assertGreater(size, limits.CENSUS_FRAME_BYTES * 0.8)


class BoundTests(CensusCase):
    """Fleets larger than is counted."""

    def fill(self, count: int, age: int = 0, state: NodeState = NodeState.SEEDING) -> None:
        """Let ``count`` records come."""
        self.assertGreaterEqual(limits.CENSUS_RECORDS, 5000)
        self.patch(limits, "CENSUS_RECORDS", 6)
        for number in range(1, count + 1):
            record = signed(number, report=evolve(REPORT, state=state))
            self.get(carried(record, age))

    def test_full(self):
        """With CENSUS_RECORDS nodes that are all well, no other is counted."""
        self.fill(9)
        self.assertEqual(6, len(self.census))

    def test_the_silent_make_way(self):
        """A node long silent, or one that left, makes way for another."""
        self.fill(5, age=int(limits.CENSUS_REFRESH_S * limits.CENSUS_SILENT_ROUNDS) + 2)
        self.get(carried(signed(100)))
        self.get(carried(signed(101)))
        self.assertEqual(6, len(self.census))
        self.assertIsNotNone(self.census.get(key(101).node_id))

    def test_who_left_goes_first(self):
        """However lately it left."""
        self.fill(5)
        self.get(carried(signed(100, report=evolve(REPORT, state=NodeState.LEFT))))
        self.get(carried(signed(101)))
        self.assertIsNone(self.census.get(key(100).node_id))
        self.assertIsNotNone(self.census.get(key(101).node_id))

    def test_forgotten_in_the_end(self):
        """After CENSUS_FORGET_ROUNDS refreshes a silent node is not shown any more."""
        self.get(carried(signed(1)))
        self.now += limits.CENSUS_FORGET_ROUNDS * limits.CENSUS_REFRESH_S - 1
        self.tick()
        self.assertEqual(1, len(self.census))
        self.now += limits.CENSUS_REFRESH_S + 2
        self.tick()
        self.assertEqual(0, len(self.census))

    def test_small_frames_cost_too(self):
        """Every frame is charged CENSUS_OVERHEAD_BYTES: a flood of small ones ends like any."""
        self.get(carried(signed(1)))
        sent = 0
        names = Want((signed(1).tag,))
        while self.get(names):
            sent += 1
        size = signed(1).size + limits.CENSUS_OVERHEAD_BYTES
        self.assertLessEqual(sent, limits.RATE_CENSUS_BURST[1] / size + 1)

    def test_rates(self):
        """Nobody makes us send more than RATE_CENSUS and RATE_CENSUS_BURST allow."""
        for number in range(1, 60):
            self.get(carried(signed(number)), f"peer {number}")
        want = Want(tuple(signed(number).tag for number in range(1, 60)))
        sent = 0
        for _ in range(1000):
            for _, frame in self.get(want):
                assert isinstance(frame, Records)
                sent += sum(len(body) + len(signature) for _, body, signature in frame.entries)
        self.assertGreater(sent, 1000)
        self.assertLessEqual(sent, limits.RATE_CENSUS_BURST[1])
        for _ in range(100):
            self.now += 1
            for _ in range(20):
                for _, frame in self.get(want):
                    assert isinstance(frame, Records)
                    sent += sum(len(body) + len(sig) for _, body, sig in frame.entries)
        self.assertLessEqual(sent, limits.RATE_CENSUS[1] + 101 * limits.RATE_CENSUS[0])


class TellingTests(CensusCase):
    """What we say of ourselves, and to whom."""

    def test_state_is_told_at_once(self):
        """A change of state does not wait; progress waits CENSUS_REPORT_S, silence longer."""
        self.assertTrue(self.census.report(REPORT, self.now))
        self.assertFalse(self.census.report(evolve(REPORT, have=4), self.now))
        self.assertTrue(self.census.report(DONE, self.now))
        self.assertFalse(self.census.report(DONE, self.now + limits.CENSUS_REFRESH_S - 1))
        self.assertTrue(self.census.report(DONE, self.now + limits.CENSUS_REFRESH_S))
        again = evolve(DONE, state=NodeState.CHECKING, have=2)
        self.assertTrue(self.census.report(again, self.now))
        more = evolve(again, have=3)
        self.assertTrue(self.census.report(more, self.now + limits.CENSUS_REPORT_S))

    def test_large_fleets_talk_less(self):
        """The more nodes are on their way, the rarer each tells how far it is."""
        for number in range(1, 41):
            self.get(carried(signed(number)), f"peer {number}")
        every = 40 * limits.CENSUS_REPORT_S_PER_NODE
        self.assertEqual(every, self.census.report_every_s())
        for number in range(1, 41):
            self.get(carried(signed(number, 2, DONE)), f"peer {number}")
        self.assertEqual(limits.CENSUS_REPORT_S, self.census.report_every_s())

    def test_some_neighbours_are_told(self):
        """A new record is named to CENSUS_FANOUT neighbours, and then no more."""
        self.census.report(REPORT, self.now)
        peers = [f"peer {number}" for number in range(20)]
        told = self.tick(*peers)
        self.assertEqual(limits.CENSUS_FANOUT, len({peer for peer, _ in told}))
        self.assertEqual({Digest(((signed(0).tag, 1),))}, {frame for _, frame in told})
        self.assertEqual([Summary], [type(frame) for _, frame in self.tick(*peers)])
        self.assertEqual([], self.tick(*peers), "until CENSUS_SUMMARY_S has passed")

    def test_quiet_fleets_are_quiet(self):
        """Summaries come ever more rarely while there is nothing new, and soon when there is."""
        self.get(carried(signed(1)))
        self.tick()
        first, longest = limits.CENSUS_SUMMARY_S
        pauses = []
        for _ in range(20):
            self.summary()
            pauses.append(self.census.tick_in_s(self.now))
        self.assertEqual(sorted(pauses), pauses)
        self.assertAlmostEqual(1.3 * first, pauses[0])
        self.assertEqual(longest, pauses[-1])
        self.get(carried(signed(1, 2)))
        self.assertEqual(limits.CENSUS_TICK_S, self.census.tick_in_s(self.now))
        self.tick()
        self.assertLessEqual(self.census.tick_in_s(self.now), first)

    def test_digests_are_bounded(self):
        """However much is new, a frame names CENSUS_DIGEST records."""
        self.patch(limits, "CENSUS_DIGEST", 3)
        for number in range(1, 9):
            self.get(carried(signed(number)), f"peer {number}")
        sizes = [len(frame.entries) for _, frame in self.tick() if isinstance(frame, Digest)]
        self.assertEqual([3], sizes)

    def test_summaries_find_what_is_missing(self):
        """A group that differs is named; equal ones cost nothing."""
        ours = self.census
        other: Census[str] = Census(key(50), TOPIC, random.Random(2))
        for number in range(1, 30):
            self.get(carried(signed(number)), f"peer {number}")
            if number != 7:
                other.received(f"peer {number}", carried(signed(number)), self.now)
        frame = self.summary()
        ((_, names),) = other.received("us", frame, self.now)
        assert isinstance(names, Digest)
        self.assertLess(len(names.entries), 5)
        self.census = other
        frame = self.summary()
        self.census = ours
        ((_, names),) = self.get(frame)
        assert isinstance(names, Digest)
        self.assertIn(signed(7).tag, [tag for tag, _ in names.entries])

    def test_going_on_after_a_restart(self):
        """A node that meets a newer record of its own goes on counting from there."""
        self.census.report(REPORT, self.now)
        self.get(carried(signed(0, 41, evolve(REPORT, have=9))))
        mine = self.census.get(key(0).node_id)
        assert mine is not None
        self.assertEqual((42, REPORT), (mine.sequence, mine.report))
        self.get(carried(mine))
        self.assertEqual(mine, self.census.get(key(0).node_id), "its own echo changes nothing")


class FleetTests(TestCase):
    """Many of them together."""

    def deliver(self, fleet: Sequence[Census[int]], chance: random.Random, loss: float) -> int:
        """Let frames go to and fro until all know all; return the ticks it took."""
        for ticks in range(1, 200):
            now = ticks * limits.CENSUS_TICK_S
            queue: list[tuple[int, int, Frame]] = []
            for number, census in enumerate(fleet):
                peers = [(number + step) % len(fleet) for step in (1, 2, 5, -1, -2, -5)]
                queue += [(number, to, frame) for to, frame in census.tick(peers, now)]
            while queue:
                source, target, frame = queue.pop(0)
                if chance.random() >= loss:
                    answers = fleet[target].received(source, frame, now)
                    queue += [(target, to, answer) for to, answer in answers]
            if all(sum(r.report.complete for r, _ in c.entries(now)) == len(fleet) for c in fleet):
                return ticks
        raise AssertionError("somebody never heard of somebody")

    def test_everybody_learns_of_everybody(self):
        """Forty nodes on a ring with few shortcuts, a tenth of all frames lost: soon all know."""
        chance = random.Random(7)
        fleet: list[Census[int]] = [Census(key(n), TOPIC, chance) for n in range(40)]
        for census in fleet:
            census.report(DONE, 0.0)
        ticks = self.deliver(fleet, chance, 0.1)
        self.assertLess(ticks * limits.CENSUS_TICK_S, 20.0)
