"""One run of ``swarm.py``: a scenario, acted out by one client on shaped links.

Job: :class:`Scenario` says what happens and what the fluid bound is, :class:`Run` starts, kills,
looks and counts, :class:`Outcome` is what it saw. Not job: which runs, and what they are held to.
"""

from __future__ import annotations

import contextlib
import filecmp
import math
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen
from links import Link, Links
from swarm_clients import Client, Job

RATE = 10e6
"""Bits per second of a link, each way."""
POLL_S = 0.02
SETTLE_S = 2.0
"""For the seed and whoever else is there from the start: look at its copy, be known."""
CAP = 5
"""How many times the bound a run may take."""
CAP_S = 30.0
RESTARTED = 2
"""The leecher that is killed and started again."""
ESTABLISHED = "01"
TICKS = os.sysconf("SC_CLK_TCK")
MEMORY = Path("/dev/shm")  # a disk is not what is measured here


@frozen
class Scenario:
    """What happens.

    Attributes:
        title: for people.
        leechers: how many.
        mib: size of the content.
        bound_max: the target for makespan / bound.
        poor: every second leecher has a quarter of the upload.
        every_s: seconds between arrivals; 0: all at once.
        restarts: leecher 2 is killed with half of its copy, and started again after 2 s.
        seed_dies: the seed is killed after so many copies sent; 0: never.
        poisoner: one more member serves wrong bytes.
        rtt_s: between every two.
        loss: share of packets.
        against_peers: makespan / best peer has a target.
    """

    title: str
    leechers: int
    mib: float
    bound_max: float | None = None
    poor: bool = False
    every_s: float = 0.0
    restarts: bool = False
    seed_dies: float = 0.0
    poisoner: bool = False
    rtt_s: float = 0.005
    loss: float = 0.0
    against_peers: bool = False

    def links(self) -> list[Link]:
        """Return the members' lines, and the helper's, which is not limited."""
        poor = Link(RATE / 4, RATE) if self.poor else Link(RATE, RATE)
        leechers = [poor if number % 2 else Link(RATE, RATE) for number in range(self.leechers)]
        others = [Link(RATE, RATE)] * (1 + self.poisoner)
        return [others[0], *leechers, *others[1:], Link(0, 0)]

    def bound_s(self, size: int, share: float) -> float:
        """Return the fluid bound; ``share`` of a link's rate is what TCP carries."""
        lines = self.links()[: self.leechers + 1]
        up = [line.up / 8 * share * (1 - self.loss) for line in lines]
        down = min(line.down for line in lines) / 8 * share * (1 - self.loss)
        last = (self.leechers - 1) * self.every_s
        together = max(size / up[0], size / down, self.leechers * size / sum(up))
        return max(together, last + size / down)


@frozen
class Outcome:
    """What one run showed.

    Attributes:
        makespan_s: until the last copy; how long we waited, if one is missing.
        mean_s: from arrival to copy, over the leechers.
        complete: copies that a client called complete.
        wrong: how many of those differ from the seed's.
        seed_sent: copies' worth of bytes on the wire.
        received: bytes on the wire of all leechers, over N F.
        cpu_s: median over the leechers of CPU seconds from the start to the last copy.
        waited_s: median over the leechers of the seconds that threads waited for a core.
        neighbours: median over the leechers of hosts connected to, at half of the bound.
        restarted: bytes on the wire to the restarted leecher, over F.
        poison: bytes on the wire from the poisoner, over F.
        late: share of packets that the wire carried 2 ms or more too late.
    """

    makespan_s: float
    mean_s: float
    complete: int
    wrong: int
    seed_sent: float
    received: float
    cpu_s: float
    waited_s: float
    neighbours: float
    restarted: float
    poison: float
    late: float


@frozen
class Used:
    """What a running program has had of the processor, in seconds.

    Attributes:
        cpu_s: of all threads, in the kernel and outside.
        waited_s: when its threads could have run, and had no core; added up.
    """

    cpu_s: float = 0.0
    waited_s: float = 0.0

    @classmethod
    def by(cls, process: subprocess.Popen[bytes]) -> Used:
        """Look it up."""
        folder = Path(f"/proc/{process.pid}")
        fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        threads = [path.read_text().split() for path in folder.glob("task/*/schedstat")]
        waited_ns = sum(int(numbers[1]) for numbers in threads)
        return cls((int(fields[11]) + int(fields[12])) / TICKS, waited_ns / 1e9)


def neighbours(process: subprocess.Popen[bytes]) -> int:
    """Return to how many hosts a program's host has TCP connections."""
    lines = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return len({row[2].split(":")[0] for row in rows if row[3] == ESTABLISHED})


@contextlib.contextmanager
def preferred() -> Iterator[None]:
    """Let what we start go before what else runs here: it stands for machines of their own."""
    group = Path("/proc/self/autogroup")
    try:
        group.write_text("-20")
    except OSError:  # no such thing here
        yield
        return
    try:
        yield
    finally:
        group.write_text("0")


@define(eq=False)
class Run:
    """One content, distributed once.

    Args:
        scenario: what happens.
        client: who distributes.
        job: the content.
        links: the hosts.
        share: of a link's rate that TCP carries.
    """

    scenario: Scenario
    client: Client
    job: Job
    links: Links
    share: float
    _began: float = field(init=False, default=0.0)
    _members: dict[int, subprocess.Popen[bytes]] = field(init=False, factory=dict)
    _arrived: dict[int, float] = field(init=False, factory=dict)
    _done: dict[int, float] = field(init=False, factory=dict)
    _used: dict[int, Used] = field(init=False, factory=dict)
    _killed_at: float = field(init=False, default=math.inf)
    _neighbours: float = field(init=False, default=0.0)

    @property
    def _leechers(self) -> range:
        return range(1, self.scenario.leechers + 1)

    def whole(self) -> Outcome:
        """Do it."""
        bound = self.scenario.bound_s(self.job.size, self.share)
        self._prepare()
        first = {n: self.links.count(n) for n in self.job.hosts}
        self._began = time.monotonic()
        now = 0.0
        while len(self._done) < self.scenario.leechers and now < max(CAP_S, CAP * bound):
            now = time.monotonic() - self._began
            self._arrive(now)
            self._happen(now)
            for host in self._leechers:
                if host not in self._done and self.client.is_done(self.job, host):
                    self._done[host] = now
            if not self._neighbours and now >= bound / 2:
                there = [self._members[n] for n in self._leechers if n in self._used]
                self._neighbours = statistics.median(map(neighbours, there))
            time.sleep(POLL_S)
        makespan = max(self._done.values()) if len(self._done) == self.scenario.leechers else now
        used = {n: Used.by(self._members[n]) for n in self._used}
        last = {n: self.links.count(n) for n in self.job.hosts}
        size, poisoner = self.job.size, self.scenario.leechers + 1
        received = [last[n].received - first[n].received for n in self._leechers]
        copies = [filecmp.cmp(self.job.copy(0), self.job.copy(n), False) for n in self._done]
        took = [at - self._arrived[host] for host, at in self._done.items()]
        return Outcome(
            makespan_s=makespan,
            mean_s=statistics.mean(took) if took else makespan,
            complete=len(copies),
            wrong=copies.count(False),
            seed_sent=(last[0].sent - first[0].sent) / size,
            received=sum(received) / self.scenario.leechers / size,
            cpu_s=statistics.median(used[n].cpu_s - self._used[n].cpu_s for n in used),
            waited_s=statistics.median(used[n].waited_s - self._used[n].waited_s for n in used),
            neighbours=self._neighbours,
            restarted=received[RESTARTED - 1] / size,
            poison=last[poisoner].sent / size if self.scenario.poisoner else 0.0,
            late=self.links.late,
        )

    def _prepare(self) -> None:
        """Start everybody who is there from the start."""
        for host in (*self.job.hosts, self.job.helper):
            self.job.home(host).mkdir(parents=True)
        holders = [0, self.scenario.leechers + 1] if self.scenario.poisoner else [0]
        data = random.Random(self.job.size).randbytes(self.job.size)
        for host in holders:
            self.job.copy(host).write_bytes(data)
        self.client.prepare(self.job)
        self._start(self.job.helper, self.client.helper(self.job))
        time.sleep(SETTLE_S / 2)
        self._start(0, self.client.seed(self.job, 0))
        for host in holders[1:]:
            self._start(host, self.client.poison(self.job, host))
        if self.client.waits:
            for host in self._leechers:
                self._start(host, self.client.leech(self.job, host))
            for host in self._leechers:
                self._await_ready(host)
        time.sleep(SETTLE_S)
        for host, process in self._members.items():
            if process.poll() is not None:
                raise SystemExit(f"host {host} ended:\n{self.job.log(host).read_text()}")

    def _start(self, host: int, command: list[str]) -> None:
        self._members[host] = self.links.start(
            host, command, self.job.log(host), self.client.environment
        )

    def _await_ready(self, host: int, times: int = 1) -> None:
        while self.job.log(host).read_bytes().count(b"ready\n") < times:
            if self._members[host].poll() is not None:
                raise SystemExit(f"host {host} ended:\n{self.job.log(host).read_text()}")
            time.sleep(POLL_S)

    def _go(self, host: int) -> None:
        """Let a leecher begin."""
        self._used[host] = Used.by(self._members[host]) if self.client.waits else Used()
        if self.client.waits:
            stdin = self._members[host].stdin
            assert stdin is not None
            stdin.write(b"go\n")
            stdin.flush()
        else:
            self._start(host, self.client.leech(self.job, host))

    def _arrive(self, now: float) -> None:
        """Let those begin whose time has come."""
        for host in self._leechers:
            if host not in self._arrived and now >= (host - 1) * self.scenario.every_s:
                self._arrived[host] = now
                self._go(host)

    def _happen(self, now: float) -> None:
        """Kill and restart as the scenario says."""
        if self.scenario.seed_dies and 0 in self._members:
            sent = self.links.count(0).sent * self.share
            if sent >= self.scenario.seed_dies * self.job.size:
                self._kill(0)
        if not self.scenario.restarts:
            return
        if self._killed_at == math.inf:
            if self.links.count(RESTARTED).received * self.share >= self.job.size / 2:
                self._kill(RESTARTED)
                self._killed_at = now
                if self.client.waits:  # its interpreter starts during the pause
                    self._start(RESTARTED, self.client.leech(self.job, RESTARTED))
        elif RESTARTED not in self._used and now >= self._killed_at + SETTLE_S:
            if self.client.waits:
                self._await_ready(RESTARTED, 2)
            self._go(RESTARTED)

    def _kill(self, host: int) -> None:
        """Kill -9."""
        process = self._members.pop(host)
        process.kill()
        process.wait()
        self._used.pop(host, None)


def run(
    scenario: Scenario,
    client: Client,
    mib: float,
    share: float,
    seed: int,
    congestion: str,
    logs: Path | None,
) -> Outcome:
    """Distribute once.

    Args:
        scenario: what happens.
        client: who distributes.
        mib: size of the content, in MiB.
        share: of a link's rate that TCP carries.
        seed: of the losses.
        congestion: TCP's congestion control.
        logs: where the members' logs go.
    """
    lines = scenario.links()
    folder = tempfile.TemporaryDirectory(
        prefix="swarm-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None
    )
    with folder as text, Links(lines, scenario.rtt_s, scenario.loss, seed, congestion) as links:
        members = len(lines) - 1
        job = Job(Path(text), range(members), members, int(mib * 2**20))
        try:
            return Run(scenario, client, job, links, share).whole()
        finally:
            if logs is not None:
                for host in (*job.hosts, job.helper):
                    if job.log(host).exists():
                        words = f"{client.name} {scenario.title} {host}.log"
                        to = logs / words.replace(" ", "-").replace("/", "")
                        to.write_bytes(job.log(host).read_bytes())
