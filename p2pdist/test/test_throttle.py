"""Rate limits without a clock: buckets, turns, fairness."""

from __future__ import annotations

from attrs import define, field
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import ConfigurationError
from p2pdist.swarm.throttle import UNLIMITED, Bucket, Lane, RateLimits, Throttle
from p2pdist.test.support import TestCase, given

RATES = (50_000, 1_000_000, 33_333_333, 1_000_000_000)
MEASURED_S = 10.0
EXACT = 0.05


@define(eq=False)
class Mover:
    """One connection that moves as much as it may, in blocks, while it has any.

    Attributes:
        moved: bytes.
        left: bytes it still has.
    """

    crowd: Crowd
    block: int
    left: float
    moved: int = 0
    lane: Lane = field(init=False)

    def go(self) -> None:
        """Move."""
        throttle = self.crowd.throttle
        while self.left > 0 and (room := throttle.room(self.lane, self.crowd.now)):
            size = int(min(room, self.block, self.left))
            throttle.spent(self.lane, size)
            self.moved += size
            self.left -= size


class Crowd:
    """A throttle with connections, and the time."""

    def __init__(self, rate: int | None) -> None:
        self.now = 1000.0
        self.throttle = Throttle()
        self.throttle.set_rate(self.throttle.total, rate, self.now)
        self.movers: list[Mover] = []

    def add(
        self,
        bucket: Bucket | None = None,
        *,
        block: int = limits.BLOCK_BYTES,
        left: float = float("inf"),
    ) -> Mover:
        """Add one of the transfer with this bucket and let it go."""
        mover = Mover(self, block, left)
        mover.lane = self.throttle.lane(bucket or Bucket(), mover.go)
        self.movers.append(mover)
        mover.go()
        return mover

    def limited(self, rate: int) -> Bucket:
        """Return the bucket of a transfer."""
        bucket = Bucket()
        self.throttle.set_rate(bucket, rate, self.now)
        return bucket

    def run(self, seconds: float) -> None:
        """Give turns as the timer of ``shaper`` does."""
        end = self.now + seconds
        while (due_s := self.throttle.due_s(self.now)) is not None:
            if self.now + max(due_s, limits.TURNS_S) > end:
                break
            self.now += max(due_s, limits.TURNS_S)
            self.throttle.serve(self.now)
        self.now = end

    @property
    def moved(self) -> int:
        """Bytes of all together."""
        return sum(mover.moved for mover in self.movers)


class RateTests(TestCase):
    """How much goes."""

    def assert_exact(self, rate: int, moved: int) -> None:
        """Fail unless so much was moved in MEASURED_S."""
        self.assertLess(abs(moved / (rate * MEASURED_S) - 1), EXACT, (rate, moved))

    def test_exact(self) -> None:
        """In 10 s any number of connections moves what the limit says, from 50 kB/s to 1 GB/s."""
        for rate in RATES:
            for count in (1, 7, 50):
                crowd = Crowd(rate)
                for _ in range(count):
                    crowd.add()
                crowd.run(MEASURED_S)
                self.assert_exact(rate, crowd.moved)

    def test_late_timer_loses_nothing(self) -> None:
        """Turns that come late, but not later than BURST_S, make up for it."""
        crowd = Crowd(1_000_000)
        crowd.add()
        for _ in range(int(MEASURED_S / limits.BURST_S)):
            crowd.now += limits.BURST_S
            crowd.throttle.serve(crowd.now)
        self.assert_exact(1_000_000, crowd.moved)

    def test_burst(self) -> None:
        """After an idle hour BURST_S of the rate goes at once, and no more."""
        crowd = Crowd(1_000_000)
        crowd.now += 3600
        crowd.add()
        self.assertEqual(1_000_000 * limits.BURST_S, crowd.moved)

    def test_starts_empty(self) -> None:
        """A limit gives nothing on credit when it begins."""
        crowd = Crowd(1_000_000)
        crowd.add()
        self.assertEqual(0, crowd.moved)

    def test_turn_is_bounded(self) -> None:
        """A turn takes BLOCK_S at the limit, within QUANTUM_BYTES."""
        least, most = limits.QUANTUM_BYTES
        for rate, quantum in (
            (limits.RATE_LIMIT_MIN, least),
            (1_000_000, int(1_000_000 * limits.BLOCK_S)),
            (1_000_000_000, most),
            (None, most),
        ):
            self.assertEqual(quantum, Bucket(rate).quantum)

    def test_unlimited(self) -> None:
        """Without any limit there is always room, and nobody waits."""
        crowd = Crowd(None)
        mover = crowd.add(left=10**12)
        self.assertEqual(10**12, mover.moved)
        self.assertEqual(UNLIMITED, crowd.throttle.room(mover.lane, crowd.now))
        self.assertIsNone(crowd.throttle.due_s(crowd.now))

    def test_lower_limit_counts(self) -> None:
        """A transfer's connections together obey its limit, and all obey the process's."""
        crowd = Crowd(1_000_000)
        slow = crowd.limited(200_000)
        few = [crowd.add(slow) for _ in range(3)]
        others = [crowd.add() for _ in range(3)]
        crowd.run(MEASURED_S)
        self.assert_exact(200_000, sum(mover.moved for mover in few))
        self.assert_exact(1_000_000, crowd.moved)
        self.assertGreater(min(m.moved for m in others), max(m.moved for m in few))

    def test_transfer_alone(self) -> None:
        """A transfer's limit holds where the process has none, and binds nobody else."""
        crowd = Crowd(None)
        mover = crowd.add(crowd.limited(100_000))
        self.assertEqual(10**9, crowd.add(left=10**9).moved)
        crowd.run(MEASURED_S)
        self.assert_exact(100_000, mover.moved)

    def test_what_never_waits_counts(self) -> None:
        """Control frames go at once and are paid for by the blocks after them."""
        crowd = Crowd(100_000)
        talker = crowd.add(left=0)
        crowd.add()
        talked = 0
        for _ in range(int(MEASURED_S)):
            crowd.throttle.spent(talker.lane, 30_000)
            talked += 30_000
            crowd.run(1.0)
        self.assert_exact(100_000, crowd.moved + talked)

    @given(
        st.integers(limits.RATE_LIMIT_MIN, 10**8),
        st.lists(st.floats(0.0, 3.0), max_size=20),
        st.lists(st.integers(2000, limits.BLOCK_BYTES), min_size=1, max_size=9),
        st.none() | st.integers(limits.RATE_LIMIT_MIN, 10**7),
    )
    def test_never_more(
        self, rate: int, steps: list[float], blocks: list[int], lower: int | None
    ) -> None:
        """Between any two turns, at most rate * t and one burst goes, whatever the timing."""
        crowd = Crowd(rate)
        bucket = Bucket() if lower is None else crowd.limited(lower)
        for block in blocks:
            crowd.add(bucket, block=block)
        rate = min(rate, lower or rate)
        burst = max(rate * limits.BURST_S, limits.QUANTUM_BYTES[0])
        seen = [(crowd.now, crowd.moved)]
        for step in steps:
            crowd.now += step
            crowd.throttle.serve(crowd.now)
            seen.append((crowd.now, crowd.moved))
        for since, before in seen:
            for until, after in seen:
                if since <= until:
                    self.assertLessEqual(after - before, rate * (until - since) + burst + 1)


class TurnTests(TestCase):
    """Who goes."""

    @given(
        st.integers(limits.RATE_LIMIT_MIN, 10**9),
        st.lists(st.integers(2000, limits.BLOCK_BYTES), min_size=2, max_size=40),
    )
    def test_fair_and_nobody_starves(self, rate: int, blocks: list[int]) -> None:
        """Connections that always have something move the same, to a turn, in any blocks."""
        crowd = Crowd(rate)
        movers = [crowd.add(block=block) for block in blocks]
        turn_s = crowd.throttle.total.quantum / rate
        crowd.run(3 * len(blocks) * turn_s + 2 * limits.TURNS_S)
        moved = [mover.moved for mover in movers]
        self.assertGreater(min(moved), 0)
        self.assertLessEqual(max(moved) - min(moved), crowd.throttle.total.quantum)

    def test_newcomer_does_not_push_in(self) -> None:
        """Who comes when a turn is due stands behind those who wait."""
        crowd = Crowd(100_000)
        first = crowd.add()
        crowd.now += 1.0
        second = crowd.add(left=1)
        self.assertEqual((0, 0), (first.moved, second.moved))
        crowd.throttle.serve(crowd.now)
        self.assertEqual(1, second.moved)
        self.assertGreater(first.moved, 0)

    def test_transfer_does_not_hold_up_others(self) -> None:
        """Who waits for its own transfer's limit lets others pass."""
        crowd = Crowd(10_000_000)
        slow = crowd.limited(limits.RATE_LIMIT_MIN)
        for _ in range(20):
            crowd.add(slow)
        fast = crowd.add()
        crowd.run(1.0)
        self.assertGreater(fast.moved, 9_000_000)

    def test_closed(self) -> None:
        """A closed connection is not called, and what it had been given goes to others."""
        crowd = Crowd(1_000_000)
        crowd.now += 1.0
        owner, waiting = crowd.add(left=1), crowd.add()
        crowd.throttle.close(waiting.lane)
        crowd.throttle.close(waiting.lane)
        credit = owner.lane.credit
        self.assertGreater(credit, 0)
        before = crowd.throttle.total.level(crowd.now)
        crowd.throttle.close(owner.lane)
        self.assertEqual(before + credit, crowd.throttle.total.level(crowd.now))
        moved = waiting.moved
        crowd.now += 1.0
        crowd.throttle.serve(crowd.now)
        self.assertEqual(moved, waiting.moved)
        self.assertIsNone(crowd.throttle.due_s(crowd.now))
        self.assertEqual(UNLIMITED, crowd.throttle.room(waiting.lane, crowd.now))

    def test_closed_by_another(self) -> None:
        """A connection that is closed in somebody else's turn gets none."""
        crowd = Crowd(1_000_000)
        first, second = crowd.add(), crowd.add()
        first.lane.resume = lambda: crowd.throttle.close(second.lane)
        crowd.now += 1.0
        crowd.throttle.serve(crowd.now)
        self.assertEqual(0, second.moved)


class ChangeTests(TestCase):
    """Limits that change."""

    def test_lifted(self) -> None:
        """When a limit goes, those who wait go on at once."""
        crowd = Crowd(100_000)
        mover = crowd.add(left=10**9)
        crowd.throttle.set_rate(crowd.throttle.total, None, crowd.now)
        crowd.throttle.serve(crowd.now)
        self.assertEqual(10**9, mover.moved)

    def test_lowered(self) -> None:
        """A lower limit counts at once: neither credit nor debts of the old rate last."""
        crowd = Crowd(1_000_000_000)
        owner, mover = crowd.add(left=1), crowd.add()
        crowd.run(1.0)
        owner.left = 10**9
        crowd.throttle.spent(owner.lane, 50_000_000)
        before = crowd.moved
        crowd.throttle.set_rate(crowd.throttle.total, 50_000, crowd.now)
        crowd.throttle.serve(crowd.now)
        crowd.run(MEASURED_S)
        moved = crowd.moved - before
        self.assertLess(abs(moved / (50_000 * MEASURED_S) - 1), EXACT)
        self.assertGreater(mover.moved, 0)

    def test_same_again(self) -> None:
        """Setting the same limit again and again neither gives nor takes anything."""
        crowd = Crowd(1_000_000)
        crowd.add()
        for _ in range(100):
            crowd.throttle.set_rate(crowd.throttle.total, 1_000_000, crowd.now)
            crowd.run(MEASURED_S / 100)
        self.assertLess(abs(crowd.moved / (1_000_000 * MEASURED_S) - 1), EXACT)

    def test_too_low(self) -> None:
        """A limit below RATE_LIMIT_MIN is refused in words; the bound itself and none are fine."""
        for value in (limits.RATE_LIMIT_MIN, None):
            self.assertEqual(value, RateLimits(upload=value, download=value).upload)
        for value in (limits.RATE_LIMIT_MIN - 1, 0, -1):
            error = self.assertRaises(ConfigurationError, RateLimits, download=value)
            self.assertIn(f"download limit of {value} bytes/s", str(error))

    def test_room_for_progress(self) -> None:
        """At the lowest limit ten connections each still move what counts as progress in time."""
        crowd = Crowd(limits.RATE_LIMIT_MIN)
        movers = [crowd.add() for _ in range(10)]
        crowd.run(3 * limits.PIECE_PROGRESS_S)
        self.assertGreaterEqual(
            min(mover.moved for mover in movers), 2.5 * limits.PIECE_PROGRESS_BYTES
        )
