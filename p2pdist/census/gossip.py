"""Everybody's records at every node: what a node knows, and whom it tells what. Pure.

Rumours: a record that is new here is named, by its node's tag and sequence, to
``limits.CENSUS_FANOUT`` random neighbours; who lacks it asks, and gets it once. Where nothing is
new a summary of all that is known (a hash for each of 64 groups) goes to one neighbour a second,
later more rarely, and a group that differs is named in full: so nothing stays missing. Frames::

    digest    [[tag, sequence], ...] as 12 bytes each
    want      [tag, ...] as 8 bytes each
    records   [[age, body, signature], ...]
    summary   64 hashes of 4 bytes

How often a node says that it got further depends on how many are on their way
(:meth:`Census.report_every_s`), so that the whole costs each node ``limits.RATE_CENSUS`` at most,
however large the fleet; what changes its state is told at once.

Job: decide. It does NOT send: :meth:`Census.tick` returns frames. Time is a parameter.
Threat: floods of records and of nodes that do not exist. At most ``limits.CENSUS_RECORDS`` records
are kept, those of nodes long silent go first, and no neighbour makes us check more than
``limits.RATE_CENSUS_CHECKS`` signatures. Source: Demers et al., "Epidemic algorithms for replicated
database maintenance" (1987): rumours with anti-entropy behind them. Tests: ``test_census``.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from attrs import define, evolve, field, frozen

from p2pdist import limits
from p2pdist.census.records import TAG_BYTES, NodeState, Reason, Record, Report, check, sign
from p2pdist.ids import NodeID, Topic
from p2pdist.keys import NodeKey

GROUPS: Final = 64
GROUP_HASH_BYTES: Final = 4
Peer = TypeVar("Peer", bound=Hashable)


@frozen
class Digest:
    """Names records: ``(tag, sequence)``."""

    entries: tuple[tuple[bytes, int], ...]


@frozen
class Want:
    """Asks for records by tag."""

    tags: tuple[bytes, ...]


@frozen
class Records:
    """Records: ``(age in seconds, body, signature)``."""

    entries: tuple[tuple[int, bytes, bytes], ...]


@frozen
class Summary:
    """One hash for each group of records."""

    hashes: bytes


Frame = Digest | Want | Records | Summary


@define(eq=False)
class Entry:
    """A record and when its node made it.

    Attributes:
        record: the newest known.
        born: when it was made, on our clock.
        heat: neighbours still to be told of it.
    """

    record: Record
    born: float
    heat: int = 0


@define
class Bucket:
    """A token bucket that may be overdrawn once: what is sent is counted afterwards.

    Args:
        rate: (units per second, burst).
    """

    rate: tuple[float, float]
    _level: float = field(init=False)
    _at: float | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._level = self.rate[1]

    def left(self, now: float) -> float:
        """Return what may be taken now."""
        if self._at is not None:
            per_second, burst = self.rate
            self._level = min(burst, self._level + (now - self._at) * per_second)
        self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        """Take ``amount``, whether it is there or not."""
        self.left(now)
        self._level -= amount


@define(eq=False)
class Census(Generic[Peer]):
    """What this node knows of the nodes of one swarm.

    Args:
        key: this node's.
        topic: of the content.
        rng: decides who is told.
    """

    key: NodeKey
    topic: Topic
    rng: random.Random
    _entries: dict[bytes, Entry] = field(init=False, factory=dict)
    _hashes: list[int] = field(init=False, factory=lambda: [0] * GROUPS)
    _hot: dict[bytes, None] = field(init=False, factory=dict)
    _asked: dict[bytes, float] = field(init=False, factory=dict)
    _checks: dict[Peer, Bucket] = field(init=False, factory=dict)
    _waiting: dict[Peer, dict[bytes, None]] = field(init=False, factory=dict)
    _rate: Bucket = field(init=False, factory=lambda: Bucket(limits.RATE_CENSUS))
    _burst: Bucket = field(init=False, factory=lambda: Bucket(limits.RATE_CENSUS_BURST))
    _sequence: int = field(init=False, default=0)
    _reported_at: float | None = field(init=False, default=None)
    _own: Report | None = field(init=False, default=None)
    _summary_at: float = field(init=False, default=0.0)
    _quiet_s: float = field(init=False, default=limits.CENSUS_SUMMARY_S[0])
    _swept_at: float = field(init=False, default=0.0)
    active: int = field(init=False, default=0)
    """Nodes that are still on their way."""

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self, now: float) -> list[tuple[Record, float]]:
        """Return every record and its age in seconds, nodes of the same name side by side."""
        found = [(entry.record, max(0.0, now - entry.born)) for entry in self._entries.values()]
        return sorted(found, key=lambda pair: (pair[0].report.name, pair[0].node_id))

    def get(self, node_id: NodeID) -> Record | None:
        """Return the record of a node."""
        entry = self._entries.get(node_id[:TAG_BYTES])
        return entry.record if entry is not None and entry.record.node_id == node_id else None

    def silent(self, age_s: float, *, under_way: bool = False) -> bool:
        """Tell whether a node whose record is so old should have been heard of again."""
        return age_s > limits.CENSUS_SILENT_ROUNDS * self.refresh_every_s(under_way=under_way)

    # --- what we say of ourselves ---

    def report_every_s(self) -> float:
        """Return how often progress is worth telling, by how many nodes make any."""
        return max(limits.CENSUS_REPORT_S, self.active * limits.CENSUS_REPORT_S_PER_NODE)

    def refresh_every_s(self, *, under_way: bool = False) -> float:
        """Return how often a node says that it is still there.

        Who is on its way says so oftener the fewer there are: it is these that are waited for.
        """
        if under_way:
            rounds = 2 * self.active * limits.CENSUS_REPORT_S_PER_NODE
            return max(limits.CENSUS_ALIVE_S, rounds)
        per_node = len(self._entries) * limits.CENSUS_REPORT_S_PER_NODE
        return max(limits.CENSUS_REFRESH_S, 2 * per_node)

    def report(self, report: Report, now: float) -> bool:
        """Tell of our own progress, if it is time to; return whether a record was made.

        A change of state is told at once, progress every :meth:`report_every_s`, what limits us no
        oftener, and that we are still there every :meth:`refresh_every_s`.
        """
        if self._own is not None and self._reported_at is not None:
            urgent = report.state is not self._own.state or report.complete != self._own.complete
            moved = report.have != self._own.have or report.reason is not self._own.reason
            same = self.refresh_every_s(under_way=report.under_way)
            every = self.report_every_s() if moved else same
            if not urgent and now - self._reported_at < every:
                return False
        self._own, self._reported_at = report, now
        self._sequence += 1
        self._put(sign(report, self._sequence, self.key, self.topic), now)
        return True

    def farewell(self, report: Report, now: float, *, paused: bool = False) -> Record:
        """Return the record that says we leave; nothing is told after it.

        Args:
            report: what we have to say.
            now: seconds.
            paused: somebody has to let us go on; who is complete leaves all the same.
        """
        self._sequence += 1
        last = evolve(report, state=NodeState.LEFT)
        if paused and not report.complete:
            last = evolve(report, state=NodeState.PAUSED, reason=Reason.PAUSED, down=0, up=0)
        record = sign(last, self._sequence, self.key, self.topic)
        self._put(record, now)
        return record

    # --- what others say ---

    def received(self, peer: Peer, frame: Frame, now: float) -> list[tuple[Peer, Frame]]:
        """Take a frame; return the answers.

        Raises:
            MalformedMessage: a record that its node did not sign.
        """
        if isinstance(frame, Digest):
            self._named(peer, frame.entries, now)
            return self._flush(peer, now)
        if isinstance(frame, Want):
            return self._wanted(peer, frame.tags, now)
        if isinstance(frame, Summary):
            return self._compared(peer, frame.hashes, now)
        self._learn(peer, frame.entries, now)
        return []

    def _named(self, peer: Peer, entries: Iterable[tuple[bytes, int]], now: float) -> None:
        waiting = self._waiting.setdefault(peer, {})
        for tag, sequence in entries:
            known = self._entries.get(tag)
            if known is not None and known.record.sequence >= sequence:
                if known.record.sequence > sequence and len(self._hot) < limits.CENSUS_RECORDS:
                    known.heat = max(known.heat, 1)
                    self._hot[tag] = None
                continue
            if now - self._asked.get(tag, -1e9) < limits.CENSUS_ASK_AGAIN_S:
                continue
            if len(waiting) < limits.CENSUS_DIGEST:
                waiting[tag] = None

    def _flush(self, peer: Peer, now: float) -> list[tuple[Peer, Frame]]:
        """Ask ``peer`` for what it named."""
        tags = tuple(self._waiting.pop(peer, {}))
        if not tags:
            return []
        for tag in tags:
            self._asked.pop(tag, None)
            self._asked[tag] = now
        while len(self._asked) > limits.CENSUS_RECORDS:
            del self._asked[next(iter(self._asked))]
        return self._sent(peer, Want(tags), TAG_BYTES * len(tags), now)

    def _wanted(self, peer: Peer, tags: Sequence[bytes], now: float) -> list[tuple[Peer, Frame]]:
        found = []
        size = 0
        left = min(self._rate.left(now), self._burst.left(now), limits.CENSUS_FRAME_BYTES)
        for tag in tags:
            entry = self._entries.get(tag)
            if entry is None:
                continue
            size += entry.record.size
            if size > left:
                size -= entry.record.size
                break  # who asked names it again, or is told by somebody else
            age = min(int(now - entry.born), 2**31)
            found.append((max(age, 0), entry.record.body, entry.record.signature))
        return self._sent(peer, Records(tuple(found)), size, now) if found else []

    def _compared(self, peer: Peer, hashes: bytes, now: float) -> list[tuple[Peer, Frame]]:
        """Name what is in the groups that differ, at most ``limits.CENSUS_DIGEST`` records."""
        if self._rate.left(now) <= 0 or self._burst.left(now) <= 0:
            return []
        groups = set()
        for group, ours in enumerate(self._hashes):
            begin = GROUP_HASH_BYTES * group
            if int.from_bytes(hashes[begin : begin + GROUP_HASH_BYTES], "big") != ours:
                groups.add(group)
        names = [
            (tag, entry.record.sequence)
            for tag, entry in self._entries.items()
            if tag[0] % GROUPS in groups
        ]
        if len(names) > limits.CENSUS_DIGEST:
            names = self.rng.sample(names, limits.CENSUS_DIGEST)
        return self._sent(peer, Digest(tuple(names)), 12 * len(names), now) if names else []

    def _learn(self, peer: Peer, entries: Iterable[tuple[int, bytes, bytes]], now: float) -> None:
        bucket = self._checks.setdefault(peer, Bucket(limits.RATE_CENSUS_CHECKS))
        for age, body, signature in entries:
            if bucket.left(now) < 1:
                return
            bucket.take(1, now)
            record = check(body, signature, self.topic)
            self._asked.pop(record.tag, None)
            if record.node_id == self.key.node_id:
                self._met_ourselves(record, now)
                continue
            known = self._entries.get(record.tag)
            if known is None or record.sequence > known.record.sequence:
                self._put(record, now - age)

    def _met_ourselves(self, record: Record, now: float) -> None:
        """Go on counting from a record we made before a restart (decision 26)."""
        if record.sequence < self._sequence or (
            (own := self._entries.get(record.tag)) is not None and own.record.body == record.body
        ):
            return
        self._sequence = record.sequence
        self._reported_at = None
        if self._own is not None:
            self.report(self._own, now)

    def _put(self, record: Record, born: float) -> None:
        known = self._entries.get(record.tag)
        if known is None and len(self._entries) >= limits.CENSUS_RECORDS and not self._evict():
            return
        if known is not None:
            self._count(known.record, -1)
        self._quiet_s = limits.CENSUS_SUMMARY_S[0]
        # "done" is what everybody waits for: few should need a summary to learn of it
        heat = limits.CENSUS_FANOUT * (2 if record.report.complete else 1)
        self._entries[record.tag] = Entry(record, born, heat)
        self._hot[record.tag] = None
        self._count(record, 1)

    def _count(self, record: Record, change: int) -> None:
        report = record.report
        self.active += change if report.under_way else 0
        text = record.tag + record.sequence.to_bytes(4, "big")
        value = hashlib.sha256(text).digest()[:GROUP_HASH_BYTES]
        self._hashes[record.tag[0] % GROUPS] ^= int.from_bytes(value, "big")

    def _evict(self) -> bool:
        """Forget the node that left or was heard of longest ago; False if all are well."""
        own = self.key.node_id[:TAG_BYTES]
        tag, oldest = min(
            ((tag, entry) for tag, entry in self._entries.items() if tag != own),
            key=lambda pair: (pair[1].record.report.state is not NodeState.LEFT, pair[1].born),
        )
        newest = max(entry.born for entry in self._entries.values())
        left = oldest.record.report.state is NodeState.LEFT
        if not left and not self.silent(newest - oldest.born):
            return False
        self._forget(tag)
        return True

    def _forget(self, tag: bytes) -> None:
        self._count(self._entries.pop(tag).record, -1)
        self._hot.pop(tag, None)

    # --- what is due ---

    def tick(self, neighbours: Sequence[Peer], now: float) -> list[tuple[Peer, Frame]]:
        """Return what to send now; call it again after :meth:`tick_in_s`.

        Args:
            neighbours: connected peers of the swarm that speak of the census.
            now: seconds.
        """
        if now >= self._swept_at + limits.CENSUS_REFRESH_S:
            self._sweep(neighbours, now)
        if not neighbours or min(self._rate.left(now), self._burst.left(now)) <= 0:
            return []
        if self._hot:
            return self._rumours(neighbours, now)
        if now - self._summary_at < self._quiet_s:
            return []
        self._summary_at = now
        self._quiet_s = min(1.3 * self._quiet_s, limits.CENSUS_SUMMARY_S[1])
        hashes = b"".join(h.to_bytes(GROUP_HASH_BYTES, "big") for h in self._hashes)
        return self._sent(self.rng.choice(neighbours), Summary(hashes), len(hashes), now)

    def tick_in_s(self, now: float) -> float:
        """Return in how many seconds :meth:`tick` has something to do."""
        if self._hot:
            return limits.CENSUS_TICK_S
        due = self._summary_at + self._quiet_s
        if self._own is not None and self._reported_at is not None and self._own.under_way:
            due = min(due, self._reported_at + self.refresh_every_s(under_way=True))
        return max(limits.CENSUS_TICK_S, due - now)

    def _sweep(self, neighbours: Sequence[Peer], now: float) -> None:
        """Forget nodes long silent, and what we counted of neighbours that are gone."""
        self._swept_at = now
        for peer in [peer for peer in self._checks if peer not in neighbours]:
            del self._checks[peer]
        old = limits.CENSUS_FORGET_ROUNDS * self.refresh_every_s()
        own = self.key.node_id[:TAG_BYTES]
        for tag in [t for t, e in self._entries.items() if t != own and now - e.born > old]:
            self._forget(tag)

    def _rumours(self, neighbours: Sequence[Peer], now: float) -> list[tuple[Peer, Frame]]:
        sent: list[tuple[Peer, Frame]] = []
        told = min(limits.CENSUS_FANOUT, len(neighbours))
        for peer in self.rng.sample(list(neighbours), told):
            names = []
            for tag in list(self._hot)[: limits.CENSUS_DIGEST]:
                entry = self._entries[tag]
                names.append((tag, entry.record.sequence))
                entry.heat -= 1
                if entry.heat <= 0:
                    del self._hot[tag]
            if not names:
                break
            sent += self._sent(peer, Digest(tuple(names)), 12 * len(names), now)
        return sent

    def _sent(self, peer: Peer, frame: Frame, size: int, now: float) -> list[tuple[Peer, Frame]]:
        self._rate.take(size + limits.CENSUS_OVERHEAD_BYTES, now)
        self._burst.take(size + limits.CENSUS_OVERHEAD_BYTES, now)
        return [(peer, frame)]
